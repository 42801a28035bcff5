"""What a data set holds, as far as ids and headers tell; and the check of its splits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from mrbench.data.checks import check_volume
from mrbench.data.orientation import display_of
from mrbench.data.records import BadSource, Dataset, Volume, VolumeRef
from mrbench.data.splits import SPLITS
from mrbench.errors import DataError, UserError

#: Called as ``progress(done, total, name)`` before each volume and once at the end.
Progress = Callable[[int, int, str], None]

#: Attribute of a data set (an instance) whose splits may share subjects, because its user said so.
SHARED = "shared_subjects"

_TRIES = 3  # volumes that are read before a data set counts as unreadable


@dataclass(frozen=True)
class Counts:
    """Of one split. ``slices``: ``None`` if no file was read and the data set does not name its slices."""

    subjects: int
    volumes: int
    slices: int | None


@dataclass(frozen=True)
class VolumeFacts:
    """A volume that was read: ``shape [C, D0, D1, D2]``, voxel sizes in mm (``nan``: unknown), plane and axes (empty: unknown)."""

    subject: str
    volume: str
    shape: tuple[int, ...]
    voxel: tuple[float, float, float]
    units: str
    low: float
    high: float
    slices: int
    plane: str
    axcodes: str


@dataclass(frozen=True)
class Survey:
    """The volumes of a data set, what cannot be used, and what its user should know."""

    refs: tuple[VolumeRef, ...]
    bad: tuple[BadSource, ...] = ()
    warnings: tuple[str, ...] = ()
    facts: tuple[VolumeFacts, ...] = field(default=())

    def counts(self) -> dict[str, Counts]:
        """Counts by split (those that hold something), and of ``all``."""
        slices = {(f.subject, f.volume): f.slices for f in self.facts}

        def count(refs: Sequence[VolumeRef]) -> Counts:
            known = [slices.get((r.subject, r.volume), _named(r)) for r in refs]
            return Counts(len({r.subject for r in refs}), len(refs), sum(known) if all(known) else None)

        parts = {s: [r for r in self.refs if r.split == s] for s in SPLITS}
        return {s: count(refs) for s, refs in parts.items() if refs} | {"all": count(self.refs)}

    @property
    def shared(self) -> dict[str, tuple[str, ...]]:
        """Subjects that are in several splits."""
        return shared_subjects(self.refs)


def _named(ref: VolumeRef) -> int:
    """Slices of a volume as its data set tells them without reading it; 0: it does not."""
    told = ref.extra.get("slices")
    return len(ref.slices) or (told if isinstance(told, int) else 0)


def shared_subjects(refs: Iterable[VolumeRef]) -> dict[str, tuple[str, ...]]:
    """Subjects with volumes in several splits, and these splits in order."""
    splits: dict[str, set[str]] = {}
    for ref in refs:
        splits.setdefault(ref.subject, set()).add(ref.split)
    return {
        s: tuple(k for k in (*SPLITS, *sorted(found - set(SPLITS))) if k in found)
        for s, found in splits.items()
        if len(found) > 1
    }


def check_splits(name: str, dataset: Dataset, refs: Iterable[VolumeRef]) -> str:
    """Refuse splits that share subjects, unless the data set was told that they may.

    Neighbouring slices are near-copies: whoever trains on one side has seen the other.

    Returns
    -------
    A warning where sharing was asked for, else the empty string.

    Raises
    ------
    UserError : names the subjects.
    """
    shared = shared_subjects(refs)
    if not shared:
        return ""
    shown = ", ".join(f"{subject} ({' and '.join(splits)})" for subject, splits in sorted(shared.items())[:3])
    more = f", and {len(shared) - 3} more" if len(shared) > 3 else ""
    if getattr(dataset, SHARED, False):
        return f"{name}: {len(shared)} subject(s) are in several splits, as was asked for: {shown}{more}. Scores on them say little"
    raise UserError(
        f"data set {name!r}: {len(shared)} subject(s) are in several splits: {shown}{more}. Splits are by person: the slices of "
        "one person are near-copies of each other. Put each person on one side."
    )


def survey(dataset: Dataset) -> Survey:
    """Look at ids and headers; no pixels are read.

    Raises
    ------
    UserError : the data set cannot be found, or holds no volume at all.
    """
    found = dataset.refs()
    refs = tuple(r for r in found if isinstance(r, VolumeRef))
    bad = tuple(b for b in found if isinstance(b, BadSource))
    return Survey(refs, bad, tuple(getattr(dataset, "warnings", ())))


def read_one(dataset: Dataset, refs: Sequence[VolumeRef]) -> VolumeFacts:
    """Read the first volume that can be read, of the first few.

    Raises
    ------
    DataError : none of them can; the first reason.
    UserError : there are none.
    """
    if not refs:
        raise UserError("there is no volume to read.")
    first: DataError | None = None
    for ref in refs[:_TRIES]:
        try:
            return read_facts(dataset, ref)
        except DataError as error:
            first = first or error
    assert first is not None
    raise first


def read_facts(dataset: Dataset, ref: VolumeRef) -> VolumeFacts:
    """Read and check one volume, and say what it is.

    Raises
    ------
    DataError : it cannot be used (whatever its reader raised).
    """
    volume = read_checked(dataset, ref)
    display = display_of(volume.affine, volume.voxel, "native")
    return VolumeFacts(
        subject=ref.subject,
        volume=ref.volume,
        shape=volume.array.shape,
        voxel=volume.voxel,
        units=volume.units,
        low=float(volume.array.min()),
        high=float(volume.array.max()),
        slices=int(volume.array.shape[1 + display.axes[0]]),
        plane=display.plane,
        axcodes=display.axcodes,
    )


def read_checked(dataset: Dataset, ref: VolumeRef) -> Volume:
    """Read one volume and check it.

    Raises
    ------
    DataError : it cannot be used; also where the data set's reader raised something else.
    """
    name = str(ref.files[0]) if ref.files else f"{ref.subject}/{ref.volume}"
    try:
        volume = dataset.read(ref)
    except (DataError, UserError):
        raise
    except Exception as error:  # a reader may raise anything; one file must not stop the others
        raise DataError(name, f"the data set's reader raised {type(error).__name__}: {error}") from error
    check_volume(volume, name, 1)
    labels = len(ref.slices)
    display = display_of(volume.affine, volume.voxel, "native")
    count = int(np.shape(volume.array)[1 + display.axes[0]])
    if labels and labels != count and volume.affine is None:
        raise DataError(name, f"the data set names {labels} slices, the volume has {count}.")
    return volume


def read_all(dataset: Dataset, found: Survey, progress: Progress | None = None) -> Survey:
    """Read every volume: the survey with the facts of the good ones, and all that cannot be used."""
    facts, bad, good = [], list(found.bad), []
    for done, ref in enumerate(found.refs):
        if progress is not None:
            progress(done, len(found.refs), f"{ref.subject}/{ref.volume}")
        try:
            facts.append(read_facts(dataset, ref))
            good.append(ref)
        except DataError as error:
            bad.append(BadSource(ref.subject, ref.volume, error.file, f"{error.reason} {error.fix}".strip()))
    if progress is not None:
        progress(len(found.refs), len(found.refs), "")
    return Survey(tuple(good), tuple(bad), found.warnings, tuple(facts))
