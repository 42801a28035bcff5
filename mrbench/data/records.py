"""What passes between data sets, preparation and the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mrbench.cards import Options


@dataclass(frozen=True)
class VolumeRef:
    """A volume that a data set can read: ids and files, no pixels.

    ``files`` are all files whose bytes determine the volume, in slice order where each file is one slice.
    ``slices`` are stable labels of the slices (e.g. instance numbers); empty: positions 000, 001, ...
    ``extra`` is whatever the data set needs to read it; it must be JSON-serialisable (it enters the cache key).
    """

    subject: str
    volume: str
    files: tuple[Path, ...]
    slices: tuple[str, ...] = ()
    split: str = "test"  # train | val | test
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class BadSource:
    """A file that was found but cannot be used. It is recorded as a skipped row, never dropped silently."""

    subject: str
    volume: str
    file: str
    reason: str


@dataclass
class Volume:
    """What a reader returns.

    ``array``: float32 ``[C, D0, D1, D2]``; C = 1 magnitude, 2 complex (real, imaginary), 3 colour. With an ``affine``
    (4x4, voxel index -> RAS mm) the three axes are the stored ones; without, they are (slice, row, column) as displayed.
    ``voxel``: mm along D0, D1, D2 (``nan`` if unknown). ``mask``: optional foreground ``[D0, D1, D2]`` bool.
    ``units``: of the stored values (``"arbitrary"``, ``"ms"``, ...).
    """

    array: NDArray[np.float32]
    voxel: tuple[float, float, float]
    affine: NDArray[np.float64] | None = None
    units: str = "arbitrary"
    mask: NDArray[np.bool_] | None = None


class Dataset(Protocol):
    """What the implementation of a ``DatasetCard`` looks like: ``Class(options)`` with these members."""

    def __init__(self, options: Options) -> None: ...

    def refs(self) -> list[VolumeRef | BadSource]:
        """All volumes of the data set, in a stable order, without reading pixels.

        Raises ``UserError`` where the data set cannot be found at all, with what to do.
        """
        ...

    def read(self, ref: VolumeRef) -> Volume:
        """Read one volume. Raises ``DataError`` for unusable files."""
        ...
