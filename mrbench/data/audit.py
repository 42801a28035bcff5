"""The audit of data sets: who is on two sides, what is there twice, what is unlike the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mrbench.data.manifest import UNKNOWN_SUBJECT
from mrbench.data.near_copies import NearCopy, Picture, near_copies, picture_of
from mrbench.data.outliers import Outlier, VolumeLook, outliers
from mrbench.data.preparation import PreparedArrays, prepare_volume
from mrbench.data.records import BadSource, Dataset, Volume, VolumeRef
from mrbench.data.survey import Progress, Survey, read_checked, survey
from mrbench.errors import DataError
from mrbench.settings import CropSpec, PreparationSpec

#: Slices as the ``uniform`` protocols prepare them, whole (no crop, so that copies of other sizes are recognised).
PREPARATION = PreparationSpec(crop=CropSpec(multiple=1))


@dataclass(frozen=True)
class Audited:
    """A data set under audit. ``subjects``: whether its subject ids are people's (``DatasetCard.subjects``)."""

    name: str
    dataset: Dataset
    subjects: bool = True


@dataclass(frozen=True)
class Shared:
    """A subject in several splits of a data set, or in several data sets: ``(data set, split)`` of each side."""

    subject: str
    sides: tuple[tuple[str, str], ...]


@dataclass
class Audit:
    """What an audit found. ``volumes``: read; ``slices``: looked at."""

    surveys: dict[str, Survey] = field(default_factory=dict)
    shared: list[Shared] = field(default_factory=list)
    copies: list[NearCopy] = field(default_factory=list)
    outliers: list[Outlier] = field(default_factory=list)
    looks: list[VolumeLook] = field(default_factory=list)
    bad: dict[str, list[BadSource]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    volumes: int = 0
    slices: int = 0

    @property
    def leaks(self) -> bool:
        """Whether a subject, or a picture, is on two sides."""
        return bool(self.shared) or any(copy.sides != "subjects" for copy in self.copies)


def audit(sets: Sequence[Audited], slices: int = 0, progress: Progress | None = None) -> Audit:
    """Read all volumes of some data sets, one at a time, and compare.

    Parameters
    ----------
    sets : with different names.
    slices : at most so many slices of each volume, spread evenly; 0: all that the preparation keeps.
    progress : called before each volume and once at the end.

    Raises
    ------
    UserError : a data set is not there.
    """
    result = Audit()
    for one in sets:
        result.surveys[one.name] = survey(one.dataset)
        result.bad[one.name] = list(result.surveys[one.name].bad)
    result.shared = shared_between({one.name: result.surveys[one.name].refs for one in sets if one.subjects})
    result.notes += [
        f"{one.name}: nobody knows who is who in it, so shared subjects cannot be found, only near-copies"
        for one in sets
        if not one.subjects
    ]
    pictures: list[Picture] = []
    looks: list[VolumeLook] = []
    total, done = sum(len(s.refs) for s in result.surveys.values()), 0
    for one in sets:
        for ref in result.surveys[one.name].refs:
            if progress is not None:
                progress(done, total, f"{one.name}: {ref.subject}/{ref.volume}")
            done += 1
            try:
                seen, look = look_at(one, ref, slices)
            except DataError as error:
                result.bad[one.name].append(
                    BadSource(ref.subject, ref.volume, error.file, f"{error.reason} {error.fix}".strip())
                )
                continue
            pictures += seen
            looks += [look] if look is not None else []
            result.volumes += 1
    if progress is not None:
        progress(total, total, "comparing")
    result.slices = len(pictures)
    result.copies = near_copies(pictures)
    result.looks = looks
    result.outliers = outliers(looks)
    return result


def shared_between(sets: Mapping[str, Sequence[VolumeRef]]) -> list[Shared]:
    """Subjects that are in more than one split or data set, sorted. Nameless ones are counted within their data set only."""
    sides: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for name, refs in sets.items():
        for ref in refs:
            home = name if ref.subject == UNKNOWN_SUBJECT else ""
            sides.setdefault((ref.subject, home), set()).add((name, ref.split))
    return [Shared(s, tuple(sorted(where))) for (s, _), where in sorted(sides.items()) if len(where) > 1]


def look_at(one: Audited, ref: VolumeRef, slices: int = 0) -> tuple[list[Picture], VolumeLook | None]:
    """The pictures of a volume's slices, and how it looks (``None`` where no slice has enough foreground).

    Raises
    ------
    DataError : the volume cannot be used.
    """
    volume, prepared = prepared_volume(one.dataset, ref)
    kept = list(prepared.positions)
    if slices and len(kept) > slices:
        kept = [kept[i] for i in np.linspace(0, len(kept) - 1, slices).round().astype(int)]
    if not kept:
        return [], None
    images = {p: magnitude(prepared.hr[p]) for p in kept}
    pictures = [
        picture_of(image, one.name, ref.subject, ref.volume, ref.split, p, prepared.mask[p]) for p, image in images.items()
    ]
    return pictures, _look(one.name, ref, volume, prepared, pictures)


def prepared_volume(dataset: Dataset, ref: VolumeRef, spec: PreparationSpec = PREPARATION) -> tuple[Volume, PreparedArrays]:
    """Read and prepare one volume (nothing is cached).

    Raises
    ------
    DataError : it cannot be used.
    """
    volume = read_checked(dataset, ref)
    return volume, prepare_volume(volume, spec, ref.files[0] if ref.files else f"{ref.subject}/{ref.volume}")


def magnitude(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """``[C, H, W]`` as ``[H, W]``: the magnitude of complex images, the mean of colours."""
    grey: NDArray[np.float32] = np.hypot(image[0], image[1]) if image.shape[0] == 2 else image.mean(axis=0, dtype=np.float32)
    return grey


def slice_image(dataset: Dataset, ref: VolumeRef, position: int) -> tuple[NDArray[np.float32], float]:
    """One slice ``[H, W]`` in [0, 1] by its display position, and the size of its rows over that of its columns.

    Raises
    ------
    DataError : the volume cannot be used.
    """
    _, prepared = prepared_volume(dataset, ref)
    return magnitude(prepared.hr[position]), aspect_of(prepared.voxel)


def aspect_of(voxel: tuple[float, float, float]) -> float:
    """Height of a pixel over its width, 1 where unknown. ``voxel``: mm between slices, rows and columns."""
    _, row, column = voxel
    return row / column if row > 0 and column > 0 else 1.0


def _look(name: str, ref: VolumeRef, volume: Volume, prepared: PreparedArrays, pictures: Sequence[Picture]) -> VolumeLook:
    kept = [p.position for p in pictures]
    inside = prepared.mask[kept]
    values = np.stack([magnitude(prepared.hr[p]) for p in kept])
    bodies = values[inside] if inside.any() else values.reshape(-1)
    stored = volume.array
    top = float(stored.max())
    body = max(int(prepared.mask.sum()), 1)
    return VolumeLook(
        dataset=name,
        subject=ref.subject,
        volume=ref.volume,
        mean=np.mean([p.small for p in pictures], axis=0, dtype=np.float64),
        scale=prepared.intensity.scale,
        tone=float(np.median(bodies)),
        foreground=float(inside.mean()),
        clipped=float((stored == top).sum()) / stored.shape[0] / body,
        negative=float((stored < 0).mean()) if stored.shape[0] == 1 and prepared.intensity.offset == 0 else 0.0,
        voxel=prepared.voxel,
        plane=prepared.display.plane,
        axcodes=prepared.display.axcodes,
        position=kept[len(kept) // 2],
    )
