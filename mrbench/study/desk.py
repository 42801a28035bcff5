"""What the page may ask for: who reads what in which order, and that a rating be kept. No method is known here."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mrbench.errors import UserError
from mrbench.study.order import reading_order
from mrbench.study.records import IMAGES, RATINGS, Study, read_study
from mrbench.study.store import RatingLog, StudyFull, read_ratings, reader_key, reader_name

_MOST_LOGS = 1000  # names in memory: of those who asked, with or without a file


class Desk:
    """One study, its readers, and their ratings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.study: Study = read_study(folder)
        self._logs: dict[str, RatingLog] = {}
        self._lock = threading.Lock()
        missing = [c for c in self.study.images if not self.image_path(c).is_file()]
        if missing:
            raise UserError(f"{folder}: {len(missing)} images are not there (first: {missing[0]}.u16). Restore the folder.")

    def image_path(self, code: str) -> Path:
        """The file of a code of this study (``KeyError`` for any other text)."""
        if code not in self.study.images:
            raise KeyError(code)
        return self.folder / IMAGES / f"{code}.u16"

    def warnings(self) -> list[str]:
        """Unfinished lines in the files of the readers so far.

        Raises
        ------
        UserError : a damaged file.
        """
        found = (read_ratings(path, self.study) for path in sorted((self.folder / RATINGS).glob("*.jsonl")))
        return [w for f in found for w in f.warnings]

    def start(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """``{"reader": name, "create": bool}`` -> the study as this reader sees it, with the ratings so far.

        A name without ratings gets ``{"known": false}``, unless ``create`` is true.
        """
        log = self._log(_text(document, "reader"))
        if not log.exists:
            if document.get("create") is not True:
                return {"known": False, "reader": log.reader}
            log.begin()
        ratings: dict[str, dict[str, int]] = {}
        for (image, criterion), value in log.ratings().items():
            ratings.setdefault(image, {})[criterion] = value
        s = self.study
        return {
            "known": True,
            "reader": log.reader,
            "title": s.title,
            "criteria": list(s.criteria),
            "scale": list(s.scale),
            "anchors": list(s.anchors),
            "trials": [
                {"id": t.id, "images": list(t.images), "reference": t.reference}
                for t in reading_order(s, reader_key(log.reader))
            ],
            "images": {c: i.model_dump(include={"height", "width", "channels", "low", "high"}) for c, i in s.images.items()},
            "ratings": ratings,
        }

    def rate(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """``{"reader", "trial", "image", "criterion", "value"}`` -> ``{"saved": true}`` once it is on the disk."""
        log = self._log(_text(document, "reader"))
        value = document.get("value")
        if type(value) is not int:
            raise UserError("value: a whole number is needed.")
        log.add(_text(document, "trial"), _text(document, "image"), _text(document, "criterion"), value)
        return {"saved": True}

    def _log(self, name: str) -> RatingLog:
        key = reader_key(reader_name(name))
        with self._lock:
            if key not in self._logs:
                if len(self._logs) >= _MOST_LOGS:
                    raise StudyFull("Too many names were tried. Start the server again.")
                self._logs[key] = RatingLog(self.folder, self.study, name)
            return self._logs[key]


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str):
        raise UserError(f"{name}: a text is needed.")
    return value
