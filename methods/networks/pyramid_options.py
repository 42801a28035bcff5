"""Names of the image pyramids (no torch here)."""

from __future__ import annotations

from typing import Literal, get_args

PyramidKind = Literal["pool", "kspace", "bicubic"]
PYRAMIDS: tuple[str, ...] = get_args(PyramidKind)
MAX_LEVELS = 3
