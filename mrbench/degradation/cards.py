"""The built-in degradations: their options and cards (nothing heavy is imported here)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from mrbench.cards import DegradationCard, Options
from mrbench.hookspecs import hookimpl


class BicubicAAOptions(Options):
    """Antialiased Keys bicubic."""

    a: float = Field(default=-0.5, ge=-2, le=0, description="Keys' parameter; -0.5 reproduces quadratics")
    border: Literal["renorm", "mirror", "replicate"] = Field(
        default="renorm",
        description="taps outside the image: dropped, row renormalised (Pillow) | mirrored (MATLAB) | edge repeated",
    )


class BicubicNoAAOptions(Options):
    """Keys bicubic without antialiasing: four taps whatever the scale."""

    a: float = Field(default=-0.75, ge=-2, le=0, description="Keys' parameter; -0.75 is torch's and OpenCV's")


class NoDegradationOptions(Options):
    """Degradations without options."""


class GaussianOptions(Options):
    """Gaussian blur, then sampling. Default: ``sigma^2 = (s^2 - 1) / 12``, the variance of the scale's box."""

    sigma: float | None = Field(default=None, ge=0.05, description="standard deviation in HR pixels")
    fwhm: float | None = Field(default=None, ge=0.12, description="full width at half maximum in HR pixels (2.3548 sigma)")
    truncate: float = Field(default=4.0, ge=1, le=12, description="the kernel is cut at this many sigmas")

    @model_validator(mode="after")
    def _one(self) -> GaussianOptions:
        if self.sigma is not None and self.fwhm is not None:
            raise ValueError("give sigma or fwhm, not both")
        return self


class KspaceCropOptions(Options):
    """Truncation of k-space."""

    domain: Literal["real", "magnitude", "complex"] = Field(
        default="real",
        description="complex: 2-channel images; real images: Re(H x), linear, or |H x|, non-linear",
    )
    align: Literal["centre", "corner"] = Field(default="centre", description="LR grid; corner is the plain inverse FFT")
    window: Literal["none", "hann", "hamming", "fermi", "tukey"] = Field(default="none", description="separable, of |k|/k_max")
    fermi_r0: float = Field(default=1.0, gt=0, le=2, description="fermi: radius at half height, in k_max")
    fermi_w: float = Field(default=0.05, gt=0, le=1, description="fermi: width, in k_max")
    tukey_alpha: float = Field(default=0.5, gt=0, le=1, description="tukey: tapered fraction")


class SlabOptions(Options):
    """Thick slices. Lengths are in LR spacings: ``thickness + gap = 1``; a negative gap means overlapping slices."""

    profile: Literal["box", "gauss"] = Field(default="box", description="slice profile; gauss has FWHM = thickness")
    thickness: float | None = Field(default=None, ge=0.05, le=4, description="slice thickness in LR spacings; default 1 - gap")
    gap: float | None = Field(default=None, ge=-3, le=0.95, description="between slices, in LR spacings; default 1 - thickness")
    axes: Literal["first", "all"] = Field(default="first", description="first: slices of a volume, rows of an image")
    in_plane: Literal["none", "area", "bicubic_aa"] = Field(default="none", description="operator along the other axes")

    @model_validator(mode="after")
    def _spacing(self) -> SlabOptions:
        if self.thickness is not None and self.gap is not None and abs(self.thickness + self.gap - 1) > 1e-9:
            raise ValueError("thickness + gap must be 1 LR spacing; give one of them")
        return self

    @property
    def width(self) -> float:
        """Thickness in LR spacings."""
        return self.thickness if self.thickness is not None else 1 - (self.gap or 0.0)


class SitkResampleOptions(Options):
    """SimpleITK's Resample onto a coarser grid, without low-pass filter."""

    interpolator: Literal["linear", "nearest", "bspline"] = Field(default="linear", description="SimpleITK interpolator")
    origin: Literal["keep", "centre"] = Field(default="keep", description="coinciding: first voxel centres, or image corners")


_HERE = "mrbench.degradation"
_CONSTANTS = "Constants are preserved, borders included."


@hookimpl
def mrbench_degradations() -> Sequence[DegradationCard]:
    """Return the built-in forward operators."""
    return [
        DegradationCard(
            "bicubic_aa", f"{_HERE}.image_space:BicubicAA", "antialiased bicubic (Keys a = -0.5), centre-aligned; the default",
            BicubicAAOptions,
            source="Keys 1981; kernel stretched by the scale as in Pillow, MATLAB imresize, torch interpolate(antialias=True)",
            notes=f"{_CONSTANTS} Equals Pillow's BICUBIC on float images (border renorm). Output may over- and undershoot.",
        ),
        DegradationCard(
            "bicubic_pil8", f"{_HERE}.pillow8:BicubicPillow8", "Pillow's BICUBIC on 8-bit images, rounding included",
            NoDegradationOptions, ndim=(2,), linear=False,
            source="Pillow Image.resize on mode L, called as such",
            notes=f"{_CONSTANTS} (The 256 grey levels.) Linear part, for adjoint, gradient and data consistency: bicubic_aa.",
        ),
        DegradationCard(
            "bicubic_noaa", f"{_HERE}.image_space:BicubicNoAA", "bicubic without antialiasing (a = -0.75), centre-aligned",
            BicubicNoAAOptions,
            source="torch interpolate(mode='bicubic') default; OpenCV INTER_CUBIC uses the same kernel",
            notes=f"{_CONSTANTS} Aliases: kept to reproduce published work. Border taps repeat the edge.",
        ),
        DegradationCard(
            "area", f"{_HERE}.image_space:Area", "average over each LR cell, exact for non-integer scales, centre-aligned",
            NoDegradationOptions,
            source="average pooling; partial pixels by overlap",
            notes=_CONSTANTS,
        ),
        DegradationCard(
            "gaussian", f"{_HERE}.image_space:Gaussian", "Gaussian blur sampled on the centre-aligned grid",
            GaussianOptions,
            source="sigma^2 = (s^2 - 1)/12 matches the variance of a box of s pixels",
            notes=f"{_CONSTANTS} Rows renormalised at borders. Axes with scale 1 are left untouched.",
        ),
        DegradationCard(
            "kspace_crop", f"{_HERE}.kspace:KspaceCrop", "centre of k-space, optional window, gain that keeps the mean",
            KspaceCropOptions,
            source="y = F_n^-1 { W crop_n(F_N x) } n/N per axis; crop rows N/2 - n/2 ... N/2 + n/2 - 1",
            notes=f"{_CONSTANTS} Periodic at the borders. domain 'magnitude' is non-linear (linear part: 'real'). "
            "Window values under 1e-4 count as 0. Axes with scale 1 are left untouched, windows included.",
        ),
        DegradationCard(
            "slab", f"{_HERE}.image_space:Slab", "thick slices: box or Gaussian slice profile, with gap or overlap",
            SlabOptions,
            source="y(j) = sum_k p(k - (s j + (s-1)/2)) x(k), p a box or a Gaussian of the slice thickness",
            notes=f"{_CONSTANTS} Profiles cut by the border are renormalised. Axes with scale 1 are left untouched.",
        ),
        DegradationCard(
            "sitk_resample", f"{_HERE}.sitk_resample:SitkResample", "SimpleITK Resample to spacing x scale, no low-pass filter",
            SitkResampleOptions,
            source="SimpleITK Resample: spacing times the exact scale, size round(N/scale) with halves to even, outside = 0",
            notes="Integer scales, origin 'keep', linear: point decimation x[::s]. The step is the exact scale. "
            "Constants are preserved except with origin 'centre' where N/scale is rounded up from .5: the last sample then "
            "sits on the image's edge, which SimpleITK counts as outside and sets to 0.",
        ),
    ]  # fmt: skip
