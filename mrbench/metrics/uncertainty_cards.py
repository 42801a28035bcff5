"""Metrics of several draws: their cards, options and signatures (light: no torch here).

Such a metric (a card with ``kind="draws"``) looks at all K draws of a method at once, and exists for K >= 2 only. Its columns
carry K in their signature, for example ``CRPS|estimator:fair|draws:clipped|channels:mean|mask:none|mrbench:1|K:10``. What its
implementation looks like: :class:`mrbench.metrics.uncertainty.DrawsMetric`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from mrbench.cards import MetricCard, NoOptions, Options

LEVELS = (0.5, 0.8, 0.9)  # of central intervals
DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
VARIANCE_FLOOR = 1e-6
NEEDS_DRAWS = "needs two or more draws per slice, and there is one (a deterministic method, or one draw asked for)"
WITH_DRAWS = ("crps", "coverage", "spread_skill")  # what belongs beside the image metrics once a method gives several draws


def usual_metrics(of_protocol: Sequence[str], draws: int) -> tuple[str, ...]:
    """The metrics that a run computes unless told otherwise: the protocol's, and of several draws those in ``WITH_DRAWS`` besides."""
    return (*of_protocol, *(name for name in WITH_DRAWS if draws > 1 and name not in of_protocol))


QuantileRule = Literal["weibull", "linear"]
DRAWS: Literal["draws"] = "draws"  # the kind of these cards


# -- options -------------------------------------------------------------------------------------------------------
class CrpsOptions(Options):
    """Options of ``crps``.

    estimator : ``fair``: unbiased in K (Ferro 2014); ``ecdf``: of the empirical distribution of the draws; ``gaussian``: of
        the normal distribution with their mean and standard deviation (variance at least 1e-6).
    """

    estimator: Literal["fair", "ecdf", "gaussian"] = "fair"


class EnergyOptions(Options):
    """Options of ``energy_score``.

    estimator : ``fair``: unbiased in K; ``ecdf``: of the empirical distribution of the draws.
    """

    estimator: Literal["fair", "ecdf"] = "fair"


class NllOptions(Options):
    """Options of ``nll``.

    bins : equal bins of [0, 1].
    floor : what keeps a missed pixel finite: ``max``: max(p, epsilon); ``add``: p + epsilon; ``dirichlet``: p is
        (count + alpha) / (K + bins alpha).
    epsilon : the probability of ``max`` and ``add`` (0: one missed pixel makes the image infinite).
    alpha : pseudo-count of ``dirichlet``.
    log : base of the logarithm, ``e`` (nats) or ``2`` (bits).
    """

    bins: int = Field(256, ge=2, le=65536)
    floor: Literal["max", "add", "dirichlet"] = "max"
    epsilon: float = Field(1e-12, ge=0, lt=1)
    alpha: float = Field(1 / 256, gt=0)
    log: Literal["e", "2"] = "e"


class KdeOptions(Options):
    """Options of ``nll_kde``.

    factor : the bandwidth is factor * s * K^(-1/5), with the standard deviation s of the draws.
    smallest : the smallest bandwidth, on the [0, 1] range.
    """

    factor: float = Field(1.06, gt=0)
    smallest: float = Field(1 / 256, gt=0)


class GaussOptions(Options):
    """Options of ``nll_gauss``.

    variance_floor : the smallest variance.
    """

    variance_floor: float = Field(VARIANCE_FLOOR, gt=0)


class IntervalOptions(Options):
    """Options of ``coverage``, ``interval_width`` and ``interval_score``.

    quantiles : where the quantile q lies among the sorted draws 1 .. K: ``weibull``: at q (K + 1), at most at the extremes,
        so that calibrated draws cover what the level says (or the (K - 1) / (K + 1) between the extremes); ``linear``: at
        1 + q (K - 1), as numpy does, so that they cover level * (K - 1) / (K + 1) only.
    """

    quantiles: QuantileRule = "weibull"


class CalibrationOptions(Options):
    """Options of ``calibration_error``.

    levels : ``ranks``: j / (K + 1) for the j-th sorted draw, ties shared evenly; ``deciles-weibull`` and ``deciles-linear``:
        0.1 to 0.9, the quantiles as for ``coverage``, ties counted as below.
    """

    levels: Literal["ranks", "deciles-weibull", "deciles-linear"] = "ranks"


class CorrelationOptions(Options):
    """Options of ``error_correlation``.

    kind : ``spearman`` (of ranks, ties averaged) or ``pearson``.
    """

    kind: Literal["spearman", "pearson"] = "spearman"


class AuseOptions(Options):
    """Options of ``ause``.

    error : of the posterior mean: ``absolute`` or ``squared``.
    steps : points of the curve: the shares 0, 1/steps ... (steps - 1)/steps of pixels are left out.
    """

    error: Literal["absolute", "squared"] = "absolute"
    steps: int = Field(20, ge=2, le=1000)


# -- signatures ----------------------------------------------------------------------------------------------------
_COMMON = "draws:clipped|channels:mean|mask:none"


def _short(value: float) -> str:
    return f"{value:.4g}"


def _exact(value: float) -> str:
    return f"{value:.10g}"


def crps_signature(options: CrpsOptions) -> str:
    """The convention of ``crps``."""
    floor = f"|ddof:1|variance:>={_exact(VARIANCE_FLOOR)}" if options.estimator == "gaussian" else ""
    return f"estimator:{options.estimator}{floor}|{_COMMON}"


def energy_signature(options: EnergyOptions) -> str:
    """The convention of ``energy_score``."""
    return f"estimator:{options.estimator}|norm:euclid|over:channels,pixels|draws:clipped|mask:none"


def nll_signature(options: NllOptions) -> str:
    """The convention of ``nll`` and ``nll_miss``."""
    floor = f"dirichlet:{_exact(options.alpha)}" if options.floor == "dirichlet" else f"{options.floor}:{options.epsilon:g}"
    return f"histogram|bins:{options.bins}|floor:{floor}|log:{options.log}|{_COMMON}"


def kde_signature(options: KdeOptions) -> str:
    """The convention of ``nll_kde``."""
    return f"kde:gauss|h:{_exact(options.factor)}*s*K^-0.2,>={_exact(options.smallest)}|ddof:1|log:e|{_COMMON}"


def gauss_signature(options: GaussOptions) -> str:
    """The convention of ``nll_gauss``."""
    return f"gauss|ddof:1|variance:>={_exact(options.variance_floor)}|log:e|{_COMMON}"


def interval_signature(options: IntervalOptions) -> str:
    """The convention of central intervals; the level is each column's own."""
    return f"central|quantiles:{options.quantiles}|ends:closed|{_COMMON}"


def calibration_signature(options: CalibrationOptions) -> str:
    """The convention of ``calibration_error``."""
    ties = "even" if options.levels == "ranks" else "below"
    return f"mean(abs(P(y<=Q)-q))|levels:{options.levels}|ties:{ties}|{_COMMON}"


def rank_signature(options: NoOptions) -> str:
    """The convention of ``rank_histogram`` and ``rank_histogram_outside``."""
    return f"ties:even|{_COMMON}"


def spread_signature(options: NoOptions) -> str:
    """The convention of ``spread``."""
    return f"mean(s)|ddof:1|{_COMMON}"


def spread_skill_signature(options: NoOptions) -> str:
    """The convention of ``spread_skill``."""
    return f"sqrt((K+1)/K*mean(s^2))/rmse(mean)|ddof:1|{_COMMON}"


def correlation_signature(options: CorrelationOptions) -> str:
    """The convention of ``error_correlation``."""
    return f"{options.kind}|error:absolute,of-mean|with:s|ddof:1|draws:clipped|mask:none"


def ause_signature(options: AuseOptions) -> str:
    """The convention of ``ause``."""
    return f"error:{options.error},of-mean|by:s|ddof:1|steps:{options.steps}|scale:full-mean|draws:clipped|mask:none"


# -- texts ---------------------------------------------------------------------------------------------------------
_OWN = "Apache-2.0 (own implementation)"
_GNEITING = (
    "T. Gneiting, A. E. Raftery, Strictly proper scoring rules, prediction, and estimation, J. Am. Stat. Assoc. 102, 2007"
)
_FERRO = "C. A. T. Ferro, Fair scores for ensemble forecasts, Q. J. R. Meteorol. Soc. 140, 2014"
_FORTIN = "V. Fortin, M. Abaza, F. Anctil, R. Turcotte, Why should ensemble spread match the RMSE of the ensemble mean?, 2014"
_HAMILL = "T. M. Hamill, Interpretation of rank histograms for verifying ensemble forecasts, Mon. Weather Rev. 129, 2001"
_ILG = "E. Ilg et al., Uncertainty estimates and multi-hypotheses networks for optical flow, ECCV 2018"
_MSP_SR = "the pixel-wise negative log-likelihood of MSP-SR: a histogram of 256 bins of the draws of each pixel"

_DRAWS = "Needs K >= 2 draws, each clipped to [0, 1]. Complex images: the magnitude."
_TIES = "In a black background all draws equal the ground truth; read the foreground column."

_CRPS_NOTES = f"""\
Mean over pixels of E|x - y| - E|x - x'| / 2, on the [0, 1] range; 0 is perfect, and a single draw would have its mean absolute
error. Proper: honest draws score best. {_DRAWS}"""

_ENERGY_NOTES = f"""\
The CRPS of whole images: E||x - y|| - E||x - x'|| / 2 with the Euclidean norm over pixels and channels, so it grows with the
number of pixels. {_DRAWS}"""

_NLL_NOTES = f"""\
p is the share of draws in the ground truth's bin; NLL is the mean of -log p. The paper names no floor; with one, NLL is nearly
(share of missed pixels) * -log(epsilon), so nll_miss stands beside it always. At small K it prefers over-confident draws, and is
therefore not ranked: rank by crps, nll_kde or nll_gauss. {_DRAWS}"""

_KDE_NOTES = f"""\
-log of the mean of K normal densities around the draws, at the ground truth (a density: values may be negative). {_DRAWS} {_TIES}"""

_GAUSS_NOTES = f"""\
-log of the normal density with mean and variance of the draws (a density: values may be negative). The variance floor decides
where all draws agree. {_DRAWS} {_TIES}"""

_INTERVAL_NOTES = f"""\
Central intervals of 50, 80 and 90 %. With the weibull rule, 90 % needs K >= 19; with fewer draws the interval is the range of the
draws, which calibrated draws cover (K - 1) / (K + 1) of the time. The signature says what calibrated draws reach. {_DRAWS} {_TIES}"""

_CALIBRATION_NOTES = f"""\
Mean over levels q of |P(y <= Q_q) - q|, with the quantiles Q_q of the draws; 0 is calibrated. {_DRAWS} {_TIES}"""

_RANK_NOTES = f"""\
Sum of |f_r - 1 / (K + 1)| over the ranks r = 0 .. K of the ground truth among the draws, ties shared evenly; 0 is flat.
rank_histogram_outside is f_0 + f_K: above the value of calibrated draws the draws are over-confident (or biased), below it
under-confident. {_DRAWS}"""

_SPREAD_SKILL_NOTES = f"""\
1 where the spread of the draws explains the error of their mean; below 1 over-confident. {_DRAWS}"""

_CORRELATION_NOTES = f"""\
Does the spread say where the errors are? Correlation over the pixels of each slice of |posterior mean - ground truth| with the
standard deviation of the draws. A black background alone raises it: read the foreground column. {_DRAWS}"""

_AUSE_NOTES = f"""\
Leave out the most uncertain pixels (by the standard deviation of the draws) and look at the error of the rest, beside an oracle
that leaves out the largest errors; both relative to the error of all pixels. The area between the curves. {_DRAWS}"""


# -- cards ---------------------------------------------------------------------------------------------------------
def _card(name: str, implementation: str, summary: str, options: type[Options] = NoOptions, **more: Any) -> MetricCard:
    fixed: dict[str, Any] = {"kind": DRAWS, "foreground": True, "higher_is_better": False, "licence": _OWN}
    return MetricCard(name, f"mrbench.metrics.uncertainty_{implementation}", summary, options, **{**fixed, **more})


def _scores() -> list[MetricCard]:
    return [
        _card(
            "crps",
            "scores:Crps",
            "continuous ranked probability score (lower is better)",
            CrpsOptions,
            signature=crps_signature,
            title="CRPS",
            digits=5,
            paper=f"{_GNEITING}; {_FERRO}",
            notes=_CRPS_NOTES,
        ),
        _card(
            "energy_score",
            "scores:EnergyScore",
            "energy score of whole images (lower is better)",
            EnergyOptions,
            signature=energy_signature,
            title="energy score",
            digits=3,
            paper=_GNEITING,
            notes=_ENERGY_NOTES,
        ),
        _card(
            "nll",
            "likelihood:HistogramNll",
            "histogram negative log-likelihood and the share of missed pixels",
            NllOptions,
            signature=nll_signature,
            title="NLL",
            paper=_MSP_SR,
            notes=_NLL_NOTES,
        ),
        _card(
            "nll_kde",
            "likelihood:KdeNll",
            "negative log-likelihood of a smoothed density (lower is better)",
            KdeOptions,
            signature=kde_signature,
            title="NLL-KDE",
            paper="Gaussian kernel density with Silverman's bandwidth",
            notes=_KDE_NOTES,
        ),
        _card(
            "nll_gauss",
            "likelihood:GaussianNll",
            "Gaussian negative log-likelihood (lower is better)",
            GaussOptions,
            signature=gauss_signature,
            title="NLL-Gauss",
            paper=_GNEITING,
            notes=_GAUSS_NOTES,
        ),
    ]


def _calibration() -> list[MetricCard]:
    return [
        _card(
            "coverage",
            "calibration:Coverage",
            "share of ground-truth pixels in central intervals of 50, 80 and 90 %",
            IntervalOptions,
            signature=interval_signature,
            title="coverage",
            paper=_GNEITING,
            notes=_INTERVAL_NOTES,
        ),
        _card(
            "interval_width",
            "calibration:IntervalWidth",
            "mean width of central intervals of 50, 80 and 90 %",
            IntervalOptions,
            signature=interval_signature,
            title="width",
            paper=_GNEITING,
            notes=_INTERVAL_NOTES,
        ),
        _card(
            "interval_score",
            "calibration:IntervalScore",
            "interval score of central intervals of 50, 80 and 90 % (lower is better)",
            IntervalOptions,
            signature=interval_signature,
            title="interval score",
            paper=_GNEITING,
            notes=f"(u - l) + 2/a (l - y)+ + 2/a (y - u)+ with a = 1 - level. {_INTERVAL_NOTES}",
        ),
        _card(
            "calibration_error",
            "calibration:CalibrationError",
            "how far quantiles of the draws are from their levels (lower is better)",
            CalibrationOptions,
            signature=calibration_signature,
            title="calibration error",
            paper=_GNEITING,
            notes=_CALIBRATION_NOTES,
        ),
        _card(
            "rank_histogram",
            "calibration:RankHistogram",
            "how uneven the ranks of the ground truth among the draws are (lower is better)",
            signature=rank_signature,
            title="rank histogram",
            paper=_HAMILL,
            notes=_RANK_NOTES,
        ),
    ]


def _spreads() -> list[MetricCard]:
    return [
        _card(
            "spread",
            "spread:Spread",
            "mean standard deviation of the draws",
            signature=spread_signature,
            title="spread",
            digits=5,
            paper="standard deviation over the draws, N - 1",
            notes=_DRAWS,
        ),
        _card(
            "spread_skill",
            "spread:SpreadSkill",
            "spread of the draws over the error of their mean (1: calibrated)",
            signature=spread_skill_signature,
            title="spread/skill",
            digits=3,
            paper=_FORTIN,
            notes=_SPREAD_SKILL_NOTES,
        ),
        _card(
            "error_correlation",
            "spread:ErrorCorrelation",
            "correlation of error and spread (higher is better)",
            CorrelationOptions,
            signature=correlation_signature,
            title="error correlation",
            higher_is_better=True,
            digits=3,
            paper="Spearman's rank correlation",
            notes=_CORRELATION_NOTES,
        ),
        _card(
            "ause",
            "spread:Ause",
            "area under the sparsification error (lower is better)",
            AuseOptions,
            signature=ause_signature,
            title="AUSE",
            paper=_ILG,
            notes=_AUSE_NOTES,
        ),
    ]


def uncertainty_cards() -> list[MetricCard]:
    """The cards of all built-in metrics of several draws."""
    return [*_scores(), *_calibration(), *_spreads()]
