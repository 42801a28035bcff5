"""The metrics that come with mrbench: their cards, options and signatures (light: no torch here).

A signature states the whole convention behind a column; two numbers share a column only if their signatures are equal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field

from mrbench.cards import MetricCard, NoOptions, Options
from mrbench.errors import UserError
from mrbench.hookspecs import hookimpl
from mrbench.metrics.uncertainty_cards import uncertainty_cards

FOREGROUND = "_fg"
GMSD_C = 170 / 255**2  # the paper's 170, for images in [0, 1]
_WHOLE, _INSIDE = "mask:none", "mask:fg"

DataRange = Annotated[float, Field(gt=0)] | Literal["refmax"]


class PsnrOptions(Options):
    """Options of ``psnr``.

    data_range : peak L: a number (the top of the intensity range, 1 for images in [0, 1]), or ``refmax``: the maximum of
        each ground-truth image (of the whole frame, for the foreground column as well).
    epsilon : added to the mean squared error (0: none, identical images give inf).
    quantise : ``uint8``: both images are rounded to multiples of 1/255 (after clipping to [0, 1]) before comparing.
    """

    data_range: DataRange = 1.0
    epsilon: float = Field(0.0, ge=0)
    quantise: Literal["none", "uint8"] = "none"


class SsimOptions(Options):
    """Options of ``ssim``.

    window : ``gauss11``: 11x11 Gaussian, sigma 1.5; ``uniform7``: 7x7 mean.
    covariance : divide by the number of pixels in the window (``population``) or by one less (``sample``).
    downsample : ``auto``: average-pool by max(1, round(min(H, W) / 256)) first, as the authors' second implementation does.
    data_range : L in C1 = (0.01 L)^2 and C2 = (0.03 L)^2: a number, or ``refmax`` (maximum of each ground-truth image).
    border : ``valid``: windows that lie inside the image; ``reflect``: one window per pixel, images reflected at the border.
    quantise : ``uint8``: both images are rounded to multiples of 1/255 (after clipping to [0, 1]) before comparing.
    """

    window: Literal["gauss11", "uniform7"] = "gauss11"
    covariance: Literal["population", "sample"] = "population"
    downsample: Literal["none", "auto"] = "none"
    data_range: DataRange = 1.0
    border: Literal["valid", "reflect"] = "valid"
    quantise: Literal["none", "uint8"] = "none"


class MsSsimOptions(Options):
    """Options of ``ms_ssim``.

    data_range : L, as for ``ssim``.
    """

    data_range: DataRange = 1.0


class GmsdOptions(Options):
    """Options of ``gmsd``.

    c : the constant of the similarity, 170 on the scale 0..255, that is 170 / 255^2 on [0, 1].
    ddof : 0: standard deviation over N pixels, as in the paper; 1: over N - 1, as MATLAB's std2.
    """

    c: float = Field(GMSD_C, gt=0)
    ddof: Literal[0, 1] = 0


class HaarPsiOptions(Options):
    """Options of ``haarpsi``.

    c : constant of the local similarity, on the scale 0..255.
    alpha : slope of the logistic function.
    """

    c: float = Field(30.0, gt=0)
    alpha: float = Field(4.2, gt=0)


def number(value: float) -> str:
    """A number as short text: ``1``, ``0.5``, ``2e-05``."""
    return f"{value:.10g}"


def _range(value: float | str) -> str:
    return value if isinstance(value, str) else number(value)


def _quantise(value: str) -> str:
    return "" if value == "none" else f"|quantise:{value}"


def psnr_signature(options: PsnrOptions) -> str:
    """The convention of ``psnr`` and ``psnr_fg``."""
    epsilon = "" if options.epsilon == 0 else f"|eps:{number(options.epsilon)}"
    return f"L:{_range(options.data_range)}{epsilon}|cap:none{_quantise(options.quantise)}|channels:mse-mean|{_WHOLE}"


def nmse_signature(options: NoOptions) -> str:
    """The convention of ``nmse`` and ``nmse_fg``."""
    return f"sum(x-y)^2/sum(x^2)|x:truth|channels:summed|{_WHOLE}"


def ssim_signature(options: SsimOptions) -> str:
    """The convention of ``ssim`` and ``ssim_fg``."""
    window = "gauss11|sigma:1.5" if options.window == "gauss11" else options.window
    covariance = {"population": "pop", "sample": "sample"}[options.covariance]
    return (
        f"{window}|L:{_range(options.data_range)}|K:0.01,0.03|cov:{covariance}|border:{options.border}"
        f"|down:{options.downsample}{_quantise(options.quantise)}|channels:mean|{_WHOLE}"
    )


def ms_ssim_signature(options: MsSsimOptions) -> str:
    """The convention of ``ms_ssim``."""
    return (
        f"gauss11|sigma:1.5|L:{_range(options.data_range)}|K:0.01,0.03|cov:pop|border:valid"
        f"|weights:0.0448,0.2856,0.3001,0.2363,0.1333|between:mean2x2,odd-dropped|negative:0|channels:mean|{_WHOLE}"
    )


def gmsd_signature(options: GmsdOptions) -> str:
    """The convention of ``gmsd`` and ``gmsd_fg``."""
    c = "170/255^2" if options.c == GMSD_C else number(options.c)
    return f"pool:mean2x2,odd-zero|prewitt/3|border:zero|c:{c}|ddof:{options.ddof}|channels:mean|{_WHOLE}"


def haarpsi_signature(options: HaarPsiOptions) -> str:
    """The convention of ``haarpsi``."""
    return (
        f"scale:0..255|c:{number(options.c)}|alpha:{number(options.alpha)}|pool:mean2x2,odd-zero|haar:3|border:zero"
        f"|empty:1|channels:mean|{_WHOLE}"
    )


def lpips_signature(backbone: str) -> Callable[[NoOptions], str]:
    """The convention of LPIPS on ``backbone``, e.g. ``"alex"``, as a function of its (empty) options."""

    def signature(options: NoOptions) -> str:
        return f"net:{backbone}|v0.1|gray:repeat3|range:-1..1|eps:1e-10|precision:fp32|{_WHOLE}"

    return signature


def data_consistency_signature(options: NoOptions) -> str:
    """The convention of ``data_consistency``."""
    return "rms(Hx-y)|over:channels,pixels|x:unclipped|units:[0,1]-range"


def native_signature(formula: str) -> Callable[[NoOptions], str]:
    """The convention of a mean over the foreground in the data set's units."""

    def signature(options: NoOptions) -> str:
        return f"{formula}|x:truth|units:native,per-volume-scale|clip:unit-range|channels:mean|{_INSIDE}"

    return signature


def column_signature(card: MetricCard, options: Options, suffix: str = "") -> str:
    """The full signature of one column of a metric.

    Parameters
    ----------
    suffix : ``""`` for the whole frame, ``"_fg"`` for the foreground; ``mask:none`` becomes ``mask:fg`` for the latter.

    Raises
    ------
    UserError : the metric has no such column.
    """
    signed = card.signed(options)
    if not suffix:
        return signed
    if suffix != FOREGROUND or not card.foreground:
        has = f"{card.name}, {card.name}{FOREGROUND}" if card.foreground else card.name
        raise UserError(f"metric {card.name} has no column {card.name}{suffix}. It has: {has}.")
    parts = signed.split("|")
    if _WHOLE in parts:
        return "|".join(_INSIDE if part == _WHOLE else part for part in parts)
    return "|".join([*parts[:-1], _INSIDE, parts[-1]])


_WANG_2004 = (
    "Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, Image quality assessment: from error visibility to "
    "structural similarity, IEEE Trans. Image Process. 13(4), 2004"
)
_WANG_2003 = (
    "Z. Wang, E. P. Simoncelli, A. C. Bovik, Multiscale structural similarity for image quality assessment, "
    "Asilomar Conf. Signals, Systems and Computers, 2003"
)
_XUE_2014 = (
    "W. Xue, L. Zhang, X. Mou, A. C. Bovik, Gradient magnitude similarity deviation: a highly efficient perceptual image "
    "quality index, IEEE Trans. Image Process. 23(2), 2014"
)
_REISENHOFER_2018 = (
    "R. Reisenhofer, S. Bosse, G. Kutyniok, T. Wiegand, A Haar wavelet-based perceptual similarity index for image quality "
    "assessment, Signal Process. Image Commun. 61, 2018"
)
_ZHANG_2018 = (
    "R. Zhang, P. Isola, A. A. Efros, E. Shechtman, O. Wang, The unreasonable effectiveness of deep features as a "
    "perceptual metric, CVPR 2018"
)
_ZBONTAR_2018 = (
    "J. Zbontar et al., fastMRI: an open dataset and benchmarks for accelerated MRI, arXiv:1811.08839 (there per volume, "
    "here per image)"
)
_OWN = "Apache-2.0 (own implementation)"
_MASK = "An empty mask gives NaN."

_PSNR_NOTES = f"""\
10 log10(L^2 / MSE) per image; identical images give inf, which is kept. {_MASK} With data_range=refmax an all-zero ground
truth has no peak: NaN unless the images are equal.
Presets: skimage, torchmetrics (per image): the defaults. piq-default: epsilon=1e-8. sr3-uint8: quantise=uint8.
fastmri: data_range=VALUE, the maximum of the reference volume (its own tools give one value per volume)."""

_SSIM_NOTES = f"""\
Mean of the SSIM map. Foreground: mean of the same map over the windows whose centre lies in the mask. {_MASK}
With data_range=refmax an all-zero ground truth gives NaN (0 / 0).
Presets: skimage-default: window=uniform7, covariance=sample. fastmri: the same with data_range=VALUE, the maximum of the
reference volume. piq-default (and the authors' ssim.m): downsample=auto. torchmetrics (data_range=1): border=reflect.
sr3-uint8: quantise=uint8. res_srdiff: downsample=auto (its own scaling of each image by its extremes is not reproduced).
With downsample=auto the mask is pooled too: a pooled pixel belongs to it if at least half of its block does."""

_GMSD_NOTES = f"""\
A deviation, not a distance: an image that is wrong by the same amount everywhere scores well. Foreground: deviation over
the pooled pixels of which at least half of the 2x2 block lies in the mask. {_MASK}
Presets: the paper, piq, res_srdiff: the defaults. MATLAB std2: ddof=1."""

_LPIPS_NOTES = """\
Perceptual distance in features of a network trained on natural images; not calibrated for MR images, and values of
different networks cannot be compared. Best on images of at least 64 pixels a side. Needs the network's ImageNet weights:
taken from the torch hub cache, downloaded on first use (never with HF_HUB_OFFLINE=1 or MRBENCH_OFFLINE=1)."""

_DC_NOTES = """\
Root mean square over all numbers of y, in units of the ground truth's [0, 1] range; of complex images, real and imaginary
parts count as numbers. x is the estimate before clipping. Not defined where the task has no operator."""


_NATIVE_NOTES = f"""\
In the units that the data set declares (milliseconds of a T1 map): the difference in the [0, 1] range times the scale of the
volume's intensity map. Only over the foreground; {_MASK[:1].lower()}{_MASK[1:]} Both images are clipped to the intensity range of the
protocol, so values above it (by default the 99.9th percentile of the volume) count as that. Not computed for data sets without
a physical unit: arbitrary scanner values of different volumes cannot be averaged."""


def _lpips_card(backbone: str, title: str, implementation: str, min_side: int, notes: str = "") -> MetricCard:
    return MetricCard(
        f"lpips_{backbone}",
        f"mrbench.metrics.lpips:{implementation}",
        f"LPIPS v0.1 on {title} features (lower is better)",
        signature=lpips_signature(backbone),
        title="LPIPS",
        heading=f"LPIPS-{backbone}",
        higher_is_better=False,
        min_side=min_side,
        paper=_ZHANG_2018,
        licence="linear layers: BSD-2-Clause (lpips); backbone: BSD-3-Clause (torchvision), weights trained on ImageNet",
        notes=f"{_LPIPS_NOTES}{notes}",
    )


def cards() -> list[MetricCard]:
    """The cards of all built-in metrics."""
    return [
        MetricCard(
            "psnr",
            "mrbench.metrics.fidelity:Psnr",
            "peak signal-to-noise ratio",
            PsnrOptions,
            signature=psnr_signature,
            title="PSNR",
            foreground=True,
            digits=2,
            unit="dB",
            paper="standard; L = 1 on the ground truth's [0, 1] range",
            licence=_OWN,
            notes=_PSNR_NOTES,
        ),
        MetricCard(
            "ssim",
            "mrbench.metrics.ssim:Ssim",
            "structural similarity",
            SsimOptions,
            signature=ssim_signature,
            title="SSIM",
            foreground=True,
            min_side=11,
            paper=_WANG_2004,
            licence=_OWN,
            notes=_SSIM_NOTES,
        ),
        MetricCard(
            "ms_ssim",
            "mrbench.metrics.ssim:MsSsim",
            "structural similarity over five scales",
            MsSsimOptions,
            signature=ms_ssim_signature,
            title="MS-SSIM",
            min_side=176,
            paper=_WANG_2003,
            licence=_OWN,
            notes="Contrast terms of scales 1 to 4 and the full SSIM of scale 5, negative means set to 0.",
        ),
        MetricCard(
            "gmsd",
            "mrbench.metrics.gmsd:Gmsd",
            "gradient magnitude similarity deviation (lower is better)",
            GmsdOptions,
            signature=gmsd_signature,
            title="GMSD",
            higher_is_better=False,
            foreground=True,
            min_side=4,
            paper=_XUE_2014,
            licence=_OWN,
            notes=_GMSD_NOTES,
        ),
        MetricCard(
            "nmse",
            "mrbench.metrics.fidelity:Nmse",
            "normalised mean squared error (lower is better)",
            signature=nmse_signature,
            title="NMSE",
            higher_is_better=False,
            foreground=True,
            paper=_ZBONTAR_2018,
            licence=_OWN,
            notes=f"||x - y||^2 / ||x||^2 with the ground truth x; NaN where the ground truth is all zero. {_MASK}",
        ),
        MetricCard(
            "mae_native",
            "mrbench.metrics.native:MaeNative",
            "mean absolute error inside the foreground, in the data set's units (lower is better)",
            signature=native_signature("mean(abs(y-x))"),
            title="MAE",
            higher_is_better=False,
            digits=2,
            paper="standard for quantitative maps",
            licence=_OWN,
            notes=_NATIVE_NOTES,
        ),
        MetricCard(
            "bias_native",
            "mrbench.metrics.native:BiasNative",
            "mean error inside the foreground, in the data set's units (signed; 0 is best, not ranked)",
            signature=native_signature("mean(y-x)"),
            title="bias",
            higher_is_better=False,
            digits=2,
            paper="standard for quantitative maps",
            licence=_OWN,
            notes=f"Positive: the estimate is too high. {_NATIVE_NOTES}",
        ),
        MetricCard(
            "haarpsi",
            "mrbench.metrics.haarpsi:HaarPsi",
            "Haar wavelet perceptual similarity",
            HaarPsiOptions,
            signature=haarpsi_signature,
            title="HaarPSI",
            min_side=16,
            paper=_REISENHOFER_2018,
            licence=_OWN,
            notes="Grey images, so no chroma term; colour images: mean over channels. Two all-zero images give 1.",
        ),
        _lpips_card("alex", "AlexNet", "LpipsAlex", 31),
        _lpips_card("vgg", "VGG-16", "LpipsVgg", 16),
        _lpips_card(
            "squeeze",
            "SqueezeNet 1.1",
            "LpipsSqueeze",
            24,
            "\nMRBENCH_LPIPS_SQUEEZE=FILE.npz: take the whole network from this file.",
        ),
        MetricCard(
            "data_consistency",
            "mrbench.metrics.consistency:DataConsistency",
            "distance of the degraded estimate from the measurement (lower is better)",
            signature=data_consistency_signature,
            title="DC",
            higher_is_better=False,
            kind="measurement",
            digits=5,
            paper="root mean square of H x - y",
            licence=_OWN,
            notes=_DC_NOTES,
        ),
        *uncertainty_cards(),
    ]


@hookimpl
def mrbench_metrics() -> list[MetricCard]:
    """Bring the built-in metrics."""
    return cards()
