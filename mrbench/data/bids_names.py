"""Names of the Brain Imaging Data Structure (BIDS 1.x): entities, suffixes, and sidecar files with what they inherit."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mrbench.errors import DataError, UserError

_ENTITY = re.compile(r"(?P<key>[a-zA-Z0-9]+)-(?P<value>[a-zA-Z0-9+]+)")
_SUFFIX = re.compile(r"[a-zA-Z0-9]+")


@dataclass(frozen=True)
class BidsName:
    """A file name taken apart: ``sub-01_ses-2_acq-mp2rage_T1map.nii.gz`` has the entities sub, ses and acq.

    ``suffix``: the last part (``T1map``). ``extension``: from the first dot (``.nii.gz``).
    """

    entities: Mapping[str, str]
    suffix: str
    extension: str

    @property
    def stem(self) -> str:
        """The name without extension, entities in their order."""
        return "_".join([*(f"{key}-{value}" for key, value in self.entities.items()), self.suffix])


def parse_name(name: str) -> BidsName | None:
    """The parts of a file name, or ``None`` if it is not made of ``key-value`` pairs and a suffix."""
    stem, dot, extension = name.partition(".")
    *pairs, suffix = stem.split("_")
    if not dot or not _SUFFIX.fullmatch(suffix):
        return None
    entities: dict[str, str] = {}
    for pair in pairs:
        match = _ENTITY.fullmatch(pair)
        if match is None or match["key"] in entities:
            return None
        entities[match["key"]] = match["value"]
    return BidsName(entities, suffix, dot + extension)


def parse_entities(text: str) -> dict[str, str]:
    """Entities written as in file names, e.g. ``"acq-mp2rage_inv-1"``.

    Raises
    ------
    UserError : not of this form.
    """
    entities: dict[str, str] = {}
    for pair in filter(None, text.split("_")):
        match = _ENTITY.fullmatch(pair)
        if match is None or match["key"] in entities:
            raise UserError(
                f"{text!r} is not a list of BIDS entities. Expected key-value pairs as in file names: acq-mp2rage_inv-1"
            )
        entities[match["key"]] = match["value"]
    return entities


def sidecar(file: Path, root: Path) -> dict[str, Any]:
    """What JSON files say about a file, by the inheritance principle of BIDS.

    A JSON file in the file's folder or in one above it (up to ``root``) applies if it has the same suffix and no entity that
    the file does not have with the same value. Of two that say different things the one in the deeper folder counts, and in one
    folder the one with more entities.

    Parameters
    ----------
    file : below ``root``, with a BIDS name.

    Raises
    ------
    DataError : such a JSON file is not readable as a JSON object.
    """
    name = parse_name(file.name)
    found: dict[str, Any] = {}
    if name is None:
        return found
    for folder in reversed(file.relative_to(root).parents):  # the root first
        matching = []
        for candidate in (root / folder).glob("*.json"):
            parsed = parse_name(candidate.name)
            if parsed and parsed.suffix == name.suffix and parsed.entities.items() <= name.entities.items():
                matching.append((len(parsed.entities), candidate.name, candidate))
        for _, _, candidate in sorted(matching):
            found |= _json_object(candidate)
    return found


def _json_object(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(path, f"it cannot be read as JSON: {str(error).rstrip('.')}.", "Repair it.") from error
    if not isinstance(document, dict):
        raise DataError(path, "it is not a JSON object.", "Repair it.")
    return document
