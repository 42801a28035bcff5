"""How stored volumes become ground-truth slices: the typed settings of the preparation step.

Light on purpose (pydantic only), so that protocols can hold a :class:`PreparationSpec` without importing the code that
carries it out (``mrbench.data.preparation``). All settings are explicit: a protocol's hash covers every one of them.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from mrbench.cards import Options

#: Bump this whenever the same files and the same settings give other pixels or masks. It is part of every cache key and
#: item hash.
PREPARATION_VERSION = 1

Plane = Literal["native", "axial", "coronal", "sagittal"]
Side = Annotated[int, Field(ge=1)]


class Growing(Options):
    """Settings that hashes are made of. Fields in ``added`` came later: at their default they are not written out.

    So settings that do not use them keep their hash.
    """

    added: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _without_unused(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = write(self)
        for name in self.added:
            if getattr(self, name) == type(self).model_fields[name].default:
                document.pop(name, None)
        return document


class IntensitySpec(Growing):
    """One affine map ``unit = (native - offset) / scale`` for a whole volume, never for a single slice.

    kind : ``percentile``: ``offset + scale`` is the volume's percentile; ``fixed``: ``low`` -> 0 and ``high`` -> 1;
        ``none``: the stored values are in [0, 1] already (anything else is refused if ``clip`` is on).
    percentile : in percent, over all voxels of the volume (of the magnitude, if complex; of all channels, if colour).
    offset : ``zero``: 0 stays 0; ``min``: the volume's smallest value becomes 0 (not for complex volumes).
    low, high : native values for ``kind: fixed``.
    source : whose statistics make the map: ``hr`` (the ground truth's, as is usual) or ``fixed`` (nobody's).
    clip : clip the mapped ground truth to [0, 1] (complex: the magnitude, keeping the phase).
    levels : round the clipped ground truth to so many equal steps from 0 to 1, halves up (256: what 8-bit files hold).
    """

    added = ("levels",)

    kind: Literal["percentile", "fixed", "none"] = "percentile"
    percentile: float = Field(default=99.9, gt=0, le=100)
    offset: Literal["zero", "min"] = "zero"
    low: float | None = None
    high: float | None = None
    source: Literal["hr", "fixed"] = "hr"
    clip: bool = True
    levels: int | None = Field(default=None, ge=2, le=65536)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.levels is not None and not self.clip:
            raise ValueError("levels are steps from 0 to 1: they need clip: true")
        if self.kind == "fixed":
            if self.low is None or self.high is None or not self.low < self.high:
                raise ValueError("kind 'fixed' needs low and high, with low < high")
            if self.source != "fixed":
                raise ValueError("kind 'fixed' needs source: fixed, since no image's statistics are used")
        elif self.low is not None or self.high is not None:
            raise ValueError(f"low and high belong to kind 'fixed', not to kind {self.kind!r}")
        elif self.kind == "percentile" and self.source != "hr":
            raise ValueError("kind 'percentile' needs source: hr")
        return self


class ForegroundSpec(Options):
    """Which pixels count as anatomy, and which slices hold enough of it.

    method : ``dataset_or_otsu``: the data set's own mask if it brings one, else ``otsu``; ``otsu``: threshold of the volume,
        then per slice closing, hole filling and the largest component; ``whole``: every pixel.
    otsu_factor : the threshold is ``min + otsu_factor * (Otsu - min)``. Otsu's threshold alone separates dark from bright
        tissue where fat or fluid is bright, and leaves muscle, prostate and scalp out; half of it keeps them.
    closing : radius of the closing disc, as a fraction of the shorter side (at least one pixel).
    min_fraction : slices whose (cropped) foreground covers less than this fraction are dropped, and reported.
    """

    method: Literal["dataset_or_otsu", "otsu", "whole"] = "dataset_or_otsu"
    otsu_factor: float = Field(default=0.5, gt=0, le=1)
    closing: float = Field(default=0.02, ge=0, le=0.2)
    min_fraction: float = Field(default=0.1, ge=0, le=1)


class CropSpec(Growing):
    """Centre-crop of height and width to multiples of ``multiple``; with ``square``, the longer side to the shorter one first.

    An even surplus is taken equally from both sides; of an odd one the bottom (right) side loses the extra line:
    the crop starts at ``floor(surplus / 2)``.
    """

    added = ("square",)

    multiple: int = Field(default=8, ge=1)
    mode: Literal["centre"] = "centre"
    square: bool = False


class PreparationSpec(Growing):
    """From a stored volume to ground-truth slices. The defaults are those of the ``uniform-*`` protocols.

    plane : the slices' plane. ``native``: across the thickest voxel axis (equal ones: the last stored axis). Volumes without
        an affine are stacks of displayed slices already: every plane takes them as they are, with a note.
    intensity, foreground, crop : see there.
    canvas : ``(H, W)``: before ``crop``, centre-crop longer sides and zero-pad shorter ones to exactly this size
        (odd differences: as in ``crop``; padding: the extra line goes to the bottom or right). ``None``: sizes stay.
    min_side : volumes whose prepared slices have a shorter side are refused.
    min_slices : volumes with fewer slices are refused (localisers).
    slice_spacing : ``(least, most)`` in mm; volumes whose slices lie closer or farther apart, or at an unknown distance, are refused.
    trim_first, trim_last : of the slices with enough foreground, leave out that many at either end, and report them.
    """

    added = ("slice_spacing",)

    plane: Plane = "native"
    intensity: IntensitySpec = IntensitySpec()
    foreground: ForegroundSpec = ForegroundSpec()
    crop: CropSpec = CropSpec()
    canvas: tuple[Side, Side] | None = None
    min_side: int = Field(default=16, ge=1)
    min_slices: int = Field(default=1, ge=1)
    trim_first: int = Field(default=0, ge=0)
    trim_last: int = Field(default=0, ge=0)
    slice_spacing: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if self.slice_spacing and not 0 < self.slice_spacing[0] <= self.slice_spacing[1]:
            raise ValueError(f"slice_spacing {self.slice_spacing}: expected (least, most) in mm, both above 0")
        if self.canvas and self.crop.square and self.canvas[0] != self.canvas[1]:
            raise ValueError(f"canvas {self.canvas} is no square, and crop.square asks for one")
        if self.canvas and any(side % self.crop.multiple for side in self.canvas):
            raise ValueError(f"canvas {self.canvas} must have sides that are multiples of crop.multiple = {self.crop.multiple}")
        return self


def canonical_json(settings: Options) -> str:
    """The settings as JSON with sorted keys and every default written out: equal text means equal settings."""
    return json.dumps(settings.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False)
