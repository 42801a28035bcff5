"""Reassembled volumes as NIfTI files: at their place in space, in the units of the source."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrbench.data.orientation import display_of
from mrbench.data.preparation import window_of
from mrbench.data.records import Volume, VolumeRef
from mrbench.engine.task import Task
from mrbench.engine.volumes import Reassembled, StoredVolume, native, spread
from mrbench.errors import UserError
from mrbench.settings import PreparationSpec
from mrbench.store.files import write_atomic

ENDING = ".nii.gz"
MEAN, SD, TRUTH = "_mean", "_sd", "_truth"


@dataclass(frozen=True)
class Place:
    """Where the voxels of a reassembled volume lie.

    affine : ``[4, 4]``, voxel index -> RAS mm, of the file's stored axes (those of the source, which its display undoes). known :
    whether the source says so; otherwise the affine holds voxel sizes only.
    """

    affine: NDArray[np.float64]
    display: Any
    known: bool

    def stored(self, images: NDArray[Any]) -> NDArray[Any]:
        """``[S, H, W]`` as displayed along the axes of the source's file."""
        return np.ascontiguousarray(self.display.undo(images))


def place_of(source: Volume, volume: StoredVolume, preparation: PreparationSpec, file: object) -> Place:
    """The place of the slices of ``volume``, which were cut from ``source`` by ``preparation``.

    A display axis that shows stored samples ``start ... start + n - 1`` (of N) begins there, or at ``N - start - n`` if it runs
    backwards; the affine of the source is moved by that many voxels. Its directions and voxel sizes stay.
    """
    display = display_of(source.affine, source.voxel, preparation.plane)
    shown = display.apply(source.array).shape[1:]
    window = window_of((shown[1], shown[2]), preparation, file)
    first, last = volume.span
    starts, sizes = (first, window.top, window.left), (last - first + 1, *window.size)
    shift = np.zeros(3)
    for axis, flip, full, start, size in zip(display.axes, display.flips, shown, starts, sizes, strict=True):
        shift[axis] = full - start - size if flip else start
    matrix = np.eye(4)
    matrix[:3, 3] = shift
    if source.affine is not None:
        return Place(source.affine @ matrix, display, True)
    voxel = [size if np.isfinite(size) and size > 0 else 1.0 for size in source.voxel]
    return Place(np.diag([*voxel, 1.0]), display, False)


class VolumeWriter:
    """Writes the volumes of one run; reads each source once more, for its place in space.

    Files are ``OUT/RUN/SUBJECT__VOLUME.nii.gz`` (draw 1), of several draws ``_mean`` and ``_sd`` too, and ``_truth`` if asked. Values
    are float32 (complex64 for complex images) in the units of the source; missing slices are NaN.
    """

    def __init__(self, task: Task, out: Path, run: str, truth: bool = False) -> None:
        """``out``: the folder; ``run``: name of the run, a folder in it; ``truth``: the ground truth too."""
        self._task, self._folder, self._truth = task, out / run, truth
        self._dataset = task.choice.card.load()(task.choice.card.parse(task.options, task.choice.alias))
        refs = [ref for ref in self._dataset.refs() if isinstance(ref, VolumeRef)]
        self._refs: Mapping[tuple[str, str], VolumeRef] = {(ref.subject, ref.volume): ref for ref in refs}
        self.notes: list[str] = []

    def files(self, volume: StoredVolume, draws: int) -> dict[str, Path]:
        """The files of a volume, by kind ("", ``_mean``, ``_sd``, ``_truth``)."""
        stem = "__".join(volume.name.split("/")[1:])
        kinds = ["", *([MEAN, SD] if draws > 1 else []), *([TRUTH] if self._truth else [])]
        return {kind: self._folder / f"{stem}{kind}{ENDING}" for kind in kinds}

    def refuse_existing(self, volumes: Sequence[StoredVolume], draws: int) -> None:
        """Refuse to overwrite (``UserError``)."""
        for volume in volumes:
            for file in self.files(volume, draws).values():
                if file.exists():
                    raise UserError(f"{file}: exists already. Name another folder, or overwrite with --force.")

    def write(self, volume: Reassembled) -> list[Path]:
        """Write the files of one volume.

        Raises
        ------
        UserError : colour images, which NIfTI holds no float values of.
        DataError : the source cannot be read any more.
        """
        source = volume.source
        if volume.truth.shape[0] == 3:
            raise UserError(
                f"{source.name}: colour images are no volume in physical units; NIfTI files are of 1 or 2 channels."
            )
        stored = self._dataset.read(self._refs[source.subject, source.volume])
        place = place_of(stored, source, self._task.protocol.protocol.preparation, source.name)
        if not place.known:
            self.notes.append(f"{source.name}: its source does not say where it lies; the file holds voxel sizes only")
        images: dict[str, NDArray[np.float32]] = {"": native(self._task, source, volume.estimates[0])}
        if len(volume.estimates) > 1:
            images |= {MEAN: native(self._task, source, volume.estimates.mean(axis=0)), SD: spread(self._task, volume)}
        if self._truth:
            images[TRUTH] = native(self._task, source, volume.truth)
        files = self.files(source, len(volume.estimates))
        for kind, file in files.items():
            content = nifti_bytes(images[kind], place, "sd" if kind == SD else "")
            write_atomic(file, lambda stream, content=content: stream.write(content))  # type: ignore[misc]
        return list(files.values())


def nifti_bytes(images: NDArray[np.float32], place: Place, intent: str = "") -> bytes:
    """``[C, S, H, W]`` with C = 1 or 2 (complex) as a gzipped NIfTI-1 file, equal for equal content."""
    import nibabel

    values = images[0] if len(images) == 1 else (images[0] + 1j * images[1]).astype(np.complex64)
    if intent == "sd" and len(images) == 2:
        values = np.hypot(images[0], images[1])
    affine = place.affine if place.known else None
    image: Any = nibabel.Nifti1Image(place.stored(values), affine)  # type: ignore[no-untyped-call]
    if not place.known:  # sizes, and codes that say that there is nothing more
        image.header.set_zooms([float(place.affine[a, a]) for a in range(3)])
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = b"restored by mrbench"
    data: bytes = image.to_bytes()
    return gzip.compress(data, mtime=0)


__all__ = ["Place", "VolumeWriter", "nifti_bytes", "place_of"]
