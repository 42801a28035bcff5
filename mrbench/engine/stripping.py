"""Taking places on this machine's disk out of texts that go to others."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

# A path from the root (or from ~, or a drive) inside a text: at least one folder, no spaces. What follows a letter, a digit or one
# of ":/.~%" is no beginning, so that URLs, hf:// references, item ids and words such as n/a stay as they are.
_POSIX = re.compile(r"(?<![\w:/.~%+-])~?/(?:[^\s/'\"()<>|,;:]+/)+([^\s/'\"()<>|,;:]*)")
_WINDOWS = re.compile(r"(?<![\w/])[A-Za-z]:[\\/](?:[^\s\\/'\"()<>|,;:]+[\\/])*([^\s\\/'\"()<>|,;:]*)")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_SENTENCE = re.compile(r"\n|[:,;] ")  # a path with words behind it
_FILE_URL = "file://"


class Stripper:
    """Replaces absolute paths by their last part.

    Parameters
    ----------
    folders : known places (of data, of the run), which are found in texts even where their names hold spaces.
    """

    def __init__(self, folders: Iterable[str | Path] = ()) -> None:
        places = {str(f).rstrip("/\\") for f in (*folders, Path.home(), Path.cwd())}
        self._known = sorted((p for p in places if is_absolute(p) and len(Path(p).parts) > 1), key=len, reverse=True)

    def text(self, text: str) -> str:
        """A text without absolute paths."""
        text = text.replace(_FILE_URL, "")
        if is_absolute(text):
            return last_part(text)
        for place in self._known:
            text = re.sub(rf"{re.escape(place)}(?=$|[/\\\s'\"(),;:])[/\\]?", _kept, text)
        text = _POSIX.sub(lambda match: match.group(1), text)
        return _WINDOWS.sub(lambda match: match.group(1), text)

    def value(self, value: Any) -> Any:
        """The same for all texts in a JSON document (keys stay)."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {k: self.value(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(v) for v in value]
        return value


def _kept(match: re.Match[str]) -> str:
    """A folder that stands alone keeps its last part; before something in it, nothing of it stays."""
    return "" if match.group(0).endswith(("/", "\\")) else last_part(match.group(0))


def is_absolute(text: str) -> bool:
    """Whether a whole text is a path from the root, from ``~`` or from a drive (and more than a slash)."""
    if len(text) < 2 or _SENTENCE.search(text):
        return False
    return (text.startswith(("/", "~/")) and text[1] != " ") or _DRIVE.match(text) is not None


def last_part(text: str) -> str:
    """The last part of a path of either kind."""
    return PureWindowsPath(text).name if _DRIVE.match(text) else PurePosixPath(text).name


__all__ = ["Stripper", "is_absolute", "last_part"]
