"""Interpolation methods: the baselines of every table, aware of the degradation's pixel grid."""

from __future__ import annotations

from collections.abc import Sequence

from mrbench.cards import MethodCard
from mrbench.hookspecs import hookimpl

_KEYS = "Keys 1981, Cubic convolution interpolation for digital image processing, doi:10.1109/TASSP.1981.1163711"
_LANCZOS = "Duchon 1979, Lanczos filtering in one and two dimensions, J. Appl. Meteorol. 18, 1016-1022"
_BSPLINE = "Unser, Aldroubi, Eden 1993, B-spline signal processing: part I, theory, doi:10.1109/78.193220"
_ZERO = "Bernstein, Fain, Riederer 2001, Effect of windowing and zero-filled reconstruction of MRI data, doi:10.1002/jmri.1183"


def _card(name: str, summary: str, paper: str = "", notes: str = "") -> MethodCard:
    implementation = f"mrbench_methods.interpolation.method:{name}"
    return MethodCard(
        name, implementation, summary, needs_operator=False, channels=(1, 2, 3), paper=paper, licence="Apache-2.0", notes=notes
    )


@hookimpl
def mrbench_methods() -> Sequence[MethodCard]:
    """Return the six interpolation methods."""
    return [
        _card("nearest", "nearest LR sample on the declared grid", notes="What the pixels are; first row of any comparison."),
        _card("bilinear", "linear interpolation per axis on the declared grid", notes="Textbook; borders repeat the sample."),
        _card("bicubic", "cubic convolution (Keys a = -0.5) on the declared grid", _KEYS),
        _card("lanczos", "Lanczos, three lobes, rows normalised, on the declared grid", _LANCZOS),
        _card("bspline", "interpolating cubic B-spline (with prefilter) on the declared grid", _BSPLINE),
        _card(
            "zero_filled", "trigonometric interpolation: zero-filled k-space on the declared grid", _ZERO,
            notes="Exactly consistent with an unwindowed k-space crop; assumes a periodic image, so it rings at the frame.",
        ),
    ]  # fmt: skip
