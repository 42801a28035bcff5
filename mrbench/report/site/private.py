"""What a page that leaves the house must not tell: places on the disk of whoever made it."""

from __future__ import annotations

import re
from typing import Any

# /home/me/data or C:\Users\me\data, also within a sentence; not hf://org/repo, 170/255^2 or and/or
_PLACE = re.compile(
    r"(?<![\w:/\\.)\]}^])(?:~?/(?:[^\s/\\:,;'\"()\[\]]+/)+|[A-Za-z]:[\\/](?:[^\s/\\:,;'\"()\[\]]+[\\/])+)(?=[^\s/\\])"
)
_ALONE = re.compile(r"^(?:file://)?(?:~?/|[A-Za-z]:[\\/]|\\\\)[^\n]*$")


def without_places(text: str) -> str:
    """Absolute paths cut down to their last part."""
    if _ALONE.match(text) and " " not in text.strip():
        return re.split(r"[\\/]", text.rstrip("\\/"))[-1] or text
    return _PLACE.sub("", text)


def without_places_in(value: Any) -> Any:
    """The same for every text in lists and mappings (keys included)."""
    if isinstance(value, str):
        return without_places(value)
    if isinstance(value, dict):
        return {without_places_in(k): without_places_in(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_places_in(v) for v in value]
    return value
