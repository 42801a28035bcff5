"""Methods on images of which there is no ground truth: a user's own LR pictures and volumes.

There is no HR image to scale by, so the intensity map comes from the LR volume itself; all other rules are the protocol's.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrbench.cards import DegradationCard
from mrbench.data.checks import check_size, check_volume
from mrbench.data.dicom import read_dicom
from mrbench.data.hashing import file_sha256
from mrbench.data.orientation import Display, display_of
from mrbench.data.preparation import IntensityMap, intensity_map
from mrbench.data.reading import read_stack, read_volume, source_files
from mrbench.degradation.base import Degradation
from mrbench.degradation.grid import AxisGrid
from mrbench.degradation.measurement import Measurement
from mrbench.engine.entries import Entry
from mrbench.engine.predict_files import MEAN, SD, Job, family_of, variant
from mrbench.engine.predict_formats import FLOAT, Form, StoredAs, dicom_form, form_of, h5_form
from mrbench.engine.restorer import Restored, Restorer
from mrbench.engine.series import read_h5
from mrbench.errors import DataError, MrbenchError, UserError
from mrbench.hub import mismatches
from mrbench.protocol import Protocol, ResolvedProtocol
from mrbench.settings import IntensitySpec, Plane
from mrbench.store.files import write_atomic

SMALLEST = 4  # LR pixels a side
COLOUR_LIKE = 4  # columns: an array this narrow is colour with the channels last, not a stack of images


class PredictionFailed(MrbenchError):
    """A method that did not restore a slice: what it raised, or why its output is no image."""


@dataclass(frozen=True)
class Reading:
    """How inputs are read that leave something open.

    plane : of the slices that NIfTI volumes are cut into. volume_index, assume_axcodes : of NIfTI. key : of ``.npz``. declared :
    native values that become 0 and 1, instead of those that the volume's own values give.
    """

    plane: Plane = "native"
    volume_index: int | None = None
    assume_axcodes: str | None = None
    key: str | None = None
    declared: tuple[float, float] | None = None

    def intensity(self, rules: Protocol) -> IntensitySpec:
        """The intensity map: as declared, else by the protocol's rule. Nothing is clipped."""
        if self.declared is None:
            return rules.preparation.intensity.model_copy(update={"clip": False})
        low, high = self.declared
        return IntensitySpec(kind="fixed", low=low, high=high, source="fixed", clip=False)


@dataclass(frozen=True)
class LowResolution:
    """An input, read and checked.

    shown : ``[C, S, h, w]`` float32, native units, as displayed. forms : how each file stores its slices (one for all, or one a
    slice). digest : SHA-256 over the bytes of its files, from which all noise is seeded. intensity : native -> unit range.
    """

    job: Job
    shown: NDArray[np.float32]
    display: Display
    forms: tuple[Form, ...]
    digest: str
    intensity: IntensityMap
    notes: tuple[str, ...] = ()

    def stored(self, position: int) -> StoredAs:
        """How the values of a slice are stored."""
        return self.forms[position if len(self.forms) > 1 else 0].stored


def open_input(job: Job, reading: Reading, rules: Protocol) -> LowResolution:
    """Read the files of a job, and scale them by the volume's own values.

    Parameters
    ----------
    rules : the protocol, whose rule for the intensity map is taken. Its percentile is that of the LR volume.

    Raises
    ------
    DataError : unreadable, NaN or infinite values (with their number), no image in it, too small.
    UserError : an output whose format cannot hold what will come.
    """
    first = job.files[0]
    family = family_of(first)
    shown_as = None
    if family == "dicom":
        volume = read_dicom(job.files, job.frames)
    elif len(job.files) > 1:
        volume = read_stack(job.files)
    elif family == "hdf5":
        volume, shown_as = read_h5(first, reading.key, reading.volume_index)
    else:
        volume = read_volume(first, reading.volume_index, reading.assume_axcodes, reading.key)
    if family == "array" and volume.array.shape[1] > 1 and volume.array.shape[3] <= COLOUR_LIKE < volume.array.shape[2]:
        raise DataError(
            first, f"its shape is {volume.array.shape[1:]}: arrays are [rows, columns] or [slices, rows, columns].",
            "Colour with the channels last is read from PNG or TIFF.",
        )  # fmt: skip
    check_volume(volume, first if len(job.files) == 1 else job.name, SMALLEST)
    display = shown_as or display_of(volume.affine, volume.voxel, reading.plane)
    shown: NDArray[np.float32] = display.apply(volume.array)
    if min(shown.shape[2:]) < SMALLEST:
        raise DataError(
            first, f"its {display.plane or 'stored'} slices are {shown.shape[2]} x {shown.shape[3]} pixels, smaller than {SMALLEST} "
            "on a side.", "Cut it along another plane with --plane axial, coronal or sagittal.",
        )  # fmt: skip
    notes = []
    if volume.affine is None and reading.plane != "native":
        notes.append(f"no affine: the stored images are taken as {reading.plane} slices as they are")
    if volume.affine is not None and reading.plane == "native":
        notes += _unclear_plane(volume.voxel, display, rules.in_plane)
    if family == "dicom":
        forms: tuple[Form, ...] = (dicom_form(job.files, volume, display),)
    elif family == "hdf5":
        forms = (h5_form(first, reading.key, volume, display),)
    else:
        forms = tuple(form_of(f, family_of(f), display, reading.key) for f in job.files)
    per_file = shown.shape[1] if len(forms) == 1 else 1
    for form, output in zip(forms, job.outputs, strict=True):
        form.check(output, per_file, shown.shape[0])
    found = intensity_map(shown, reading.intensity(rules), first)
    return LowResolution(job, shown, display, forms, _digest(job.files), found, tuple(notes))


def _unclear_plane(voxel: tuple[float, float, float], display: Display, scale: float) -> list[str]:
    """A note if another plane would do as well: restored along it, its slices would be the thickest axis too."""
    chosen = display.axes[0]
    others = [a for a in range(3) if a != chosen and all(voxel[a] >= voxel[b] / scale for b in range(3) if b != a)]
    if not others:
        return []
    sizes = " x ".join(f"{size:.3g}" for size in voxel)
    return [
        f"cut into {display.plane} slices, across its thickest (or last) axis; its voxels of {sizes} mm do not tell in which plane it "
        "was made coarse. If in another one: --plane axial, coronal or sagittal"
    ]


def _digest(files: Sequence[Path]) -> str:
    hashes = [file_sha256(part) for file in files for part in source_files(file)]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def bind_degradation(card: DegradationCard, options: Any, size: tuple[int, int], scales: Sequence[float]) -> BoundSize:
    """The degradation for LR images of ``size``: bound to ``round(scale * size)``."""
    return BoundSize(card.load()(options), size, tuple(scales))


@dataclass(frozen=True)
class BoundSize:
    """A degradation and the LR size of its images."""

    degradation: Degradation[Any]
    size: tuple[int, int]
    scales: tuple[float, ...]

    def measurement(self, y: Tensor, ids: Sequence[str], sigma: float | None, seed_key: str) -> Measurement:
        """LR images ``[B, C, h, w]`` as what the degradation measured; ``sigma``: noise level, ``None`` if unknown.

        Raises
        ------
        UserError : no HR size gives this LR size.
        """
        height, width = (int(np.floor(n * s + 0.5)) for n, s in zip(self.size, self.scales, strict=True))
        operator = self.degradation.bind((height, width), self.scales)
        if operator.lr_size != self.size:
            raise UserError(
                f"no image that {operator.name} reduces by {self.scales} has {self.size[0]} x {self.size[1]} pixels."
            )
        gy, gx = operator.grid
        return Measurement(y, (height, width), (gy.step, gx.step), operator, (gy, gx), sigma, tuple(ids), seed_key)


@dataclass(frozen=True)
class Prediction:
    """What came of one input.

    files : written, by kind ("", ``_mean``, ``_sd``, ``_draw2`` ...). size : ``(H, W)``. clipped : pixels of the image that were
    cut to the range of the stored type. seconds : of the method alone.
    """

    source: LowResolution
    files: dict[str, tuple[Path, ...]]
    size: tuple[int, int]
    clipped: int
    seconds: float
    notes: tuple[str, ...] = ()


@dataclass
class Predictor:
    """A loaded method under a protocol, for inputs of any size.

    kinds : what is kept, see :func:`mrbench.engine.predict_files.kinds_of`. sigma : noise level of the inputs in units of the
    [0, 1] range, ``None`` if unknown. batch : slices at a time.
    """

    entry: Entry
    protocol: ResolvedProtocol
    restorer: Restorer
    draws: int = 1
    kinds: Sequence[str] = ("",)
    sigma: float | None = None
    batch: int = 4
    _bound: dict[tuple[int, int], BoundSize] = field(init=False, default_factory=dict)

    def refuse_channels(self, channels: int, name: object) -> None:
        """Refuse images with channels that the method does not take (``UserError``)."""
        card = self.entry.card
        if channels not in card.channels:
            takes = " or ".join(map(str, card.channels))
            what = {1: "grey (1 channel)", 2: "complex (2 channels)", 3: "colour (3 channels)"}.get(channels, str(channels))
            raise UserError(
                f"{name}: is {what}, and method {card.name} takes {takes} channel(s). Convert it, or name another method."
            )

    def warnings(self, channels: int) -> list[str]:
        """How the weights' training differs from what they are used for here."""
        record, rules = self.entry.checkpoint, self.protocol
        if record is None:
            return []
        found = mismatches(record, scale=rules.protocol.in_plane, degradation=rules.degradation.name, channels=channels)
        return [f"{self.entry.label}: {text}" for text in found]

    def predict(self, source: LowResolution, advance: Callable[[int], None] = lambda count: None) -> Prediction:
        """Restore all slices of an input and write its files; each appears whole or not at all, the image itself last.

        Parameters
        ----------
        advance : called with the number of slices done.

        Raises
        ------
        UserError : channels that the method does not take, or more values than can be held.
        PredictionFailed : the method failed on a slice; nothing is written.
        """
        channels, slices = source.shown.shape[:2]
        self.refuse_channels(channels, source.job.name)
        size = (source.shown.shape[2], source.shown.shape[3])
        if size not in self._bound:
            self._bound[size] = bind_degradation(
                self.protocol.degradation, self.protocol.degradation_options, size, self.protocol.protocol.scales
            )
        kept = _Kept(source, self.kinds)
        seconds, begin, grids = 0.0, time.perf_counter(), None
        for start in range(0, slices, self.batch):
            positions = range(start, min(start + self.batch, slices))
            measurement = self._measure(source, positions, self._bound[size])
            grids = grids or measurement.grid
            if start == 0:
                check_size(source.job.name, channels * slices * int(np.prod(measurement.size)))
            outcomes = self.restorer.restore(measurement.to(self.restorer.device), self.draws)
            for position, outcome in zip(positions, outcomes, strict=True):
                kept.add(position, _estimate(outcome, source, position))
                seconds += outcome.seconds
            advance(len(positions))
        assert grids is not None
        seconds = seconds if np.isfinite(seconds) else time.perf_counter() - begin
        written = kept.write(grids)
        return Prediction(source, written, (grids[0].n_hr, grids[1].n_hr), kept.clipped, seconds, source.notes)

    def _measure(self, source: LowResolution, positions: Sequence[int], bound: BoundSize) -> Measurement:
        unit = source.intensity.to_unit(source.shown[:, list(positions)])
        y = torch.from_numpy(np.ascontiguousarray(np.moveaxis(unit, 1, 0)))
        if self.protocol.protocol.clip_measurement:
            y = y.clamp(0, 1)
        ids = [f"{source.digest}/{p:04d}" for p in positions]
        return bound.measurement(y, ids, self.sigma, self.protocol.hash)


def _estimate(outcome: Restored, source: LowResolution, position: int) -> NDArray[np.float32]:
    """``[K, C, H, W]`` in native units."""
    if outcome.estimate is None:
        where = f", slice {position}" if source.shown.shape[1] > 1 else ""
        raise PredictionFailed(f"{source.job.name}{where}: {outcome.error}")
    return source.intensity.to_native(outcome.estimate.float().cpu().numpy())


class _Kept:
    """The slices of an input as they will be stored, by kind."""

    def __init__(self, source: LowResolution, kinds: Sequence[str]) -> None:
        self._source = source
        self._images: dict[str, list[NDArray[Any]]] = {kind: [] for kind in kinds}
        self.clipped = 0

    def add(self, position: int, draws: NDArray[np.float32]) -> None:
        """Draws ``[K, C, H, W]`` of the next slice, in native units."""
        stored = self._source.stored(position)
        numbered = 1  # draws 2 to K follow in the order of the kinds
        for kind, images in self._images.items():
            if kind == SD:
                images.append(FLOAT.encode(_sd(draws))[0])
                continue
            if kind == MEAN:
                native = draws.mean(axis=0, dtype=np.float64).astype(np.float32)
            elif kind == "":
                native = draws[0]
            else:
                native = draws[numbered]
                numbered += 1
            image, cut = stored.encode(native)
            images.append(image)
            self.clipped += cut if kind == "" else 0

    def write(self, grids: tuple[AxisGrid, AxisGrid]) -> dict[str, tuple[Path, ...]]:
        """Write the files of all kinds; the image itself comes last, so that where it is, all are."""
        written: dict[str, tuple[Path, ...]] = {}
        for kind in reversed(self._images):
            paths: list[Path] = []
            for content in self._contents(kind, grids):
                for path, data in content:
                    write_atomic(path, lambda stream, data=data: stream.write(data))  # type: ignore[misc]
                    paths.append(path)
            written[kind] = tuple(paths)
        return {kind: written[kind] for kind in self._images}

    def _contents(self, kind: str, grids: tuple[AxisGrid, AxisGrid]) -> list[list[tuple[Path, bytes]]]:
        source, images = self._source, self._images[kind]
        outputs = [variant(o, kind) for o in source.job.outputs]
        stored = [FLOAT] * len(source.forms) if kind == SD else [f.stored for f in source.forms]
        if len(source.forms) == 1:
            return [source.forms[0].content(outputs[0], images, grids, stored[0])]
        each = zip(source.forms, outputs, images, stored, strict=True)
        return [form.content(output, [image], grids, s) for form, output, image, s in each]


def _sd(draws: NDArray[np.float32]) -> NDArray[np.float32]:
    """``[K, C, H, W] -> [C, H, W]``: standard deviation with ``K - 1``; of complex draws that of both parts together, ``[1, H, W]``."""
    variance = draws.var(axis=0, ddof=1, dtype=np.float64)
    if len(variance) == 2:
        variance = variance.sum(axis=0, keepdims=True)
    result: NDArray[np.float32] = np.sqrt(variance).astype(np.float32)
    return result


def load_method(entry: Entry, device: torch.device, precision: str = "fp32") -> Restorer:
    """The method of an entry, with its weights.

    Raises
    ------
    UserError : a control (it sees the ground truth, and there is none), or a method that cannot be loaded, with the reason.
    """
    card = entry.card
    if card.control:
        raise UserError(f"method {card.name} is a control: it is given the ground truth, and here there is none. Name another.")
    try:
        return Restorer(card, entry.options, device, precision, entry.checkpoint, warm_up=False)  # times are not compared
    except MrbenchError:
        raise
    except Exception as error:  # a plugin may raise anything
        raise UserError(f"{card.name} could not be loaded: {type(error).__name__}: {error}") from error


__all__ = [
    "LowResolution", "Prediction", "PredictionFailed", "Predictor", "Reading", "bind_degradation", "load_method", "open_input",
]  # fmt: skip
