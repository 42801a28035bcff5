"""From a stored volume to ground-truth slices: orientation, one intensity map a volume, foreground, crop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrbench.data.checks import check_volume
from mrbench.data.foreground import foreground, percentile
from mrbench.data.orientation import Display, display_of
from mrbench.data.records import Volume
from mrbench.errors import DataError
from mrbench.settings import PREPARATION_VERSION, IntensitySpec, PreparationSpec

_UNIT_SLACK = 1e-6  # by how much values may leave [0, 1] where "none" says that they do not


@dataclass(frozen=True)
class IntensityMap:
    """``unit = (native - offset) / scale``: the same for a whole volume, for HR and LR."""

    scale: float
    offset: float

    def to_unit(self, native: NDArray[np.float32]) -> NDArray[np.float32]:
        """Native units to the [0, 1] range (nothing is clipped)."""
        return ((native - np.float32(self.offset)) / np.float32(self.scale)).astype(np.float32, copy=False)

    def to_native(self, unit: NDArray[np.float32]) -> NDArray[np.float32]:
        """Back to the units of the source."""
        return (unit * np.float32(self.scale) + np.float32(self.offset)).astype(np.float32, copy=False)


@dataclass(frozen=True)
class Window:
    """Where the prepared pixels lie in the displayed slice: ``prepared[r, c] = shown[top + r, left + c]``.

    ``top`` and ``left`` are negative where zeros were padded. ``shown`` is the displayed slice's size.
    """

    top: int
    left: int
    size: tuple[int, int]
    shown: tuple[int, int]

    def cut(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        """The window of the last two axes, zero where it lies outside."""
        out = np.zeros((*array.shape[:-2], *self.size), dtype=array.dtype)
        (r0, r1, s0), (c0, c1, t0) = (
            (max(start, 0), min(start + side, full), max(-start, 0))
            for start, side, full in zip((self.top, self.left), self.size, self.shown, strict=True)
        )
        out[..., s0 : s0 + r1 - r0, t0 : t0 + c1 - c0] = array[..., r0:r1, c0:c1]
        return out


@dataclass(frozen=True)
class LeftOut:
    """A slice that was dropped: its position in display order, its foreground fraction, and why."""

    position: int
    fraction: float
    reason: str


@dataclass(frozen=True)
class PreparedArrays:
    """A prepared volume.

    hr : ``[S, C, H, W]`` float32, every slice (3-D degradations need them all); in [0, 1] if the settings clip (complex: magnitudes).
    mask : ``[S, H, W]`` bool, the foreground.
    positions : display position of each kept slice, from 0.
    stored : its index along the stored slice axis.
    fractions : foreground fraction of *every* slice, in display order.
    left_out : the slices that are not measured.
    intensity : the volume's intensity map.
    voxel : mm between slices, rows and columns (``nan``: unknown).
    window : where the pixels lie in the displayed slice.
    display : how stored axes became slices, rows and columns.
    units : of the native values.
    notes : what a reader of results should know.
    """

    hr: NDArray[np.float32]
    mask: NDArray[np.bool_]
    positions: tuple[int, ...]
    stored: tuple[int, ...]
    fractions: tuple[float, ...]
    left_out: tuple[LeftOut, ...]
    intensity: IntensityMap
    voxel: tuple[float, float, float]
    window: Window
    display: Display
    units: str
    notes: tuple[str, ...] = ()


def prepare_volume(volume: Volume, spec: PreparationSpec, file: object = "volume") -> PreparedArrays:
    """Carry out ``spec`` on one volume.

    The intensity map and the Otsu threshold come from the whole stored volume, before any slice or border is cut off.
    For complex volumes the percentile, the threshold and the clipping are those of the magnitude; for colour the map is joint
    over the channels and the threshold is that of their mean.

    Parameters
    ----------
    volume : as read.
    spec : the settings.
    file : named in errors.

    Raises
    ------
    DataError : the volume fails :func:`mrbench.data.checks.check_volume`, is too small or has too few slices for ``spec``, or
        cannot be mapped (its percentile is not above the offset; values outside [0, 1] under ``kind: none``).
    """
    check_volume(volume, file, spec.min_side)
    display = display_of(volume.affine, volume.voxel, spec.plane)
    shown: NDArray[np.float32] = display.apply(volume.array)  # [C, S, H, W], a view
    slices, height, width = shown.shape[1:]
    if slices < spec.min_slices:
        raise DataError(file, f"it has {slices} slice(s), fewer than min_slices = {spec.min_slices}.", "Leave it out.")
    _check_spacing(volume.voxel[display.axes[0]], spec, file)
    window = window_of((height, width), spec, file)
    magnitude = _magnitude(shown)
    intensity = _intensity_map(shown if shown.shape[0] == 3 else magnitude, shown.shape[0], spec.intensity, file)
    own = display.apply(volume.mask) if volume.mask is not None else None
    mask = window.cut(foreground(magnitude, own, spec.foreground)).astype(np.bool_)
    fractions = tuple(float(image.mean()) for image in mask)
    kept, left_out = _choose(fractions, spec)
    hr = np.empty((slices, shown.shape[0], *window.size), dtype=np.float32)
    for position in range(slices):
        unit = intensity.to_unit(shown[:, position])
        hr[position] = window.cut(_levels(_clip(unit), spec.intensity.levels) if spec.intensity.clip else unit)
    last = volume.array.shape[1 + display.axes[0]] - 1
    voxel = (volume.voxel[display.axes[0]], volume.voxel[display.axes[1]], volume.voxel[display.axes[2]])
    return PreparedArrays(
        hr=hr,
        mask=mask,
        positions=kept,
        stored=tuple(last - p if display.flips[0] else p for p in kept),
        fractions=fractions,
        left_out=left_out,
        intensity=intensity,
        voxel=voxel,
        window=window,
        display=display,
        units=volume.units,
        notes=_notes(volume, spec),
    )


def intensity_map(shown: NDArray[np.float32], spec: IntensitySpec, file: object = "volume") -> IntensityMap:
    """The map of a volume ``[C, S, H, W]`` by its own values: percentile of the magnitude, joint over colours (see ``spec``).

    Raises
    ------
    DataError : the percentile is not above the offset; an offset for complex values; values outside [0, 1] under ``kind: none``.
    """
    return _intensity_map(shown if shown.shape[0] == 3 else _magnitude(shown), shown.shape[0], spec, file)


def _notes(volume: Volume, spec: PreparationSpec) -> tuple[str, ...]:
    if volume.affine is None and spec.plane != "native":
        return (f"no affine: the stored images are taken as {spec.plane} slices as they are",)
    return ()


def _magnitude(shown: NDArray[np.float32]) -> NDArray[np.float32]:
    magnitude: NDArray[np.float32] = shown[0]
    if shown.shape[0] == 2:
        magnitude = np.hypot(shown[0], shown[1])
    elif shown.shape[0] == 3:
        magnitude = shown.mean(axis=0, dtype=np.float32)
    return magnitude


def _intensity_map(values: NDArray[np.float32], channels: int, spec: IntensitySpec, file: object) -> IntensityMap:
    low, high = float(values.min()), float(values.max())
    if channels == 2 and spec.levels is not None:
        raise DataError(file, "it is complex: rounding to grey levels is of magnitude images.", "Leave it out.")
    if spec.kind == "none":
        if spec.clip and (low < -_UNIT_SLACK or high > 1 + _UNIT_SLACK):
            raise DataError(
                file, f"its values run from {low:g} to {high:g}, but intensity kind 'none' expects [0, 1].",
                "Use kind: percentile, or kind: fixed with low and high.",
            )  # fmt: skip
        return IntensityMap(1.0, 0.0)
    if spec.kind == "fixed" and spec.low is not None and spec.high is not None:
        if channels == 2 and spec.low != 0:
            raise DataError(file, "it is complex: an offset would change its phase.", "Use low: 0.")
        return IntensityMap(spec.high - spec.low, spec.low)
    if channels == 2 and spec.offset == "min":
        raise DataError(file, "it is complex: an offset would change its phase.", "Use offset: zero.")
    offset = low if spec.offset == "min" else 0.0
    scale = percentile(values, spec.percentile) - offset
    if not scale > 0:
        raise DataError(
            file, f"its {spec.percentile:g}th percentile is not above the offset {offset:g}: it is nearly empty.",
            "Leave it out.",
        )  # fmt: skip
    return IntensityMap(scale, offset)


def _clip(unit: NDArray[np.float32]) -> NDArray[np.float32]:
    """Clip to [0, 1]; complex images ``[2, H, W]`` to magnitude 1, keeping the phase."""
    if unit.shape[0] != 2:
        return np.clip(unit, 0, 1)
    clipped: NDArray[np.float32] = unit / np.maximum(np.hypot(unit[0], unit[1]), np.float32(1))
    return clipped


def _levels(unit: NDArray[np.float32], levels: int | None) -> NDArray[np.float32]:
    """``floor((n - 1) v + 1/2) / (n - 1)`` for values in [0, 1]."""
    if levels is None:
        return unit
    top = np.float32(levels - 1)
    rounded: NDArray[np.float32] = np.floor(unit * top + np.float32(0.5)) / top
    return rounded


def _check_spacing(spacing: float, spec: PreparationSpec, file: object) -> None:
    if spec.slice_spacing is None:
        return
    least, most = spec.slice_spacing
    if not least <= spacing <= most:
        found = f"{spacing:g} mm apart" if np.isfinite(spacing) else "at an unknown distance"
        raise DataError(file, f"its slices lie {found}; this protocol takes {least:g} to {most:g} mm.", "Leave it out.")


def window_of(shown: tuple[int, int], spec: PreparationSpec, file: object = "volume") -> Window:
    """Where the prepared pixels lie in a displayed slice of the size ``shown``.

    Raises
    ------
    DataError : nothing large enough is left.
    """
    starts, sizes = [], []
    side = min(shown)
    for full, target in zip(shown, spec.canvas or ((side, side) if spec.crop.square else shown), strict=True):
        start = (full - target) // 2 if full >= target else -((target - full) // 2)
        size = target // spec.crop.multiple * spec.crop.multiple
        starts.append(start + (target - size) // 2)
        sizes.append(size)
    if min(sizes) < spec.min_side:
        raise DataError(
            file, f"its slices are {shown[0]} x {shown[1]} pixels, {sizes[0]} x {sizes[1]} after the crop to multiples of "
            f"{spec.crop.multiple}; at least {spec.min_side} on each side are needed.", "Leave it out.",
        )  # fmt: skip
    return Window(starts[0], starts[1], (sizes[0], sizes[1]), shown)


def _choose(fractions: tuple[float, ...], spec: PreparationSpec) -> tuple[tuple[int, ...], tuple[LeftOut, ...]]:
    least = spec.foreground.min_fraction
    enough = [p for p, fraction in enumerate(fractions) if fraction >= least]
    kept = tuple(enough[spec.trim_first : max(0, len(enough) - spec.trim_last)])
    left_out = []
    for position, fraction in enumerate(fractions):
        if position in kept:
            continue
        reason = f"foreground {fraction:.3f} < {least:g}" if fraction < least else "trimmed (trim_first, trim_last)"
        left_out.append(LeftOut(position, fraction, reason))
    return kept, tuple(left_out)


__all__ = [
    "PREPARATION_VERSION", "IntensityMap", "LeftOut", "PreparationSpec", "PreparedArrays", "Window", "intensity_map",
    "prepare_volume", "window_of",
]  # fmt: skip
