"""The conformance suite for metrics: does a plugin keep its contract, and its card its word?

Everything runs on small phantoms with known distortions, called as the engine calls metrics. What cannot be loaded here (a
network without weights) is judged by its card alone.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, pairwise

import torch
from torch import Tensor

from mrbench.cards import MetricCard, Options
from mrbench.engine.conformance_base import (
    Absent,
    Check,
    CheckResult,
    Failed,
    Skipped,
    card_problems,
    check_options,
    check_unknown_option,
    expected_failures,
    refuse,
    run_checks,
)
from mrbench.engine.metric_trial import LEVELS, MetricTrial, Sample, foreground_of, variants
from mrbench.errors import MetricUnavailable
from mrbench.metrics.cards import FOREGROUND, column_signature
from mrbench.metrics.uncertainty import Part
from mrbench.plugins import Registry
from mrbench.store.rows import FIXED_COLUMNS

TOLERANCE = 1e-5  # relative, between batches and orders
DTYPE_TOLERANCE = 1e-3  # relative, between float32 and float64, and between devices
KINDS = ("image", "measurement", "draws")


def check_metric(
    card: MetricCard, registry: Registry, options: Options | None = None, device: str | torch.device = "cpu"
) -> list[CheckResult]:
    """Run every check of :data:`CHECKS` on a metric, in order.

    Parameters
    ----------
    registry : the degradations that metrics of kind "measurement" look at. options : ``None``: the card's defaults.

    Raises
    ------
    UserError : the card has options without a default and ``options`` is ``None``.
    """
    trial = MetricTrial(card, registry, card.parse({}) if options is None else options, torch.device(device))
    return run_checks(CHECKS, trial, expected_failures(card))


# -- the card ------------------------------------------------------------------------------------------------------
def _card(trial: MetricTrial) -> str:
    card = trial.card
    wrong = {
        "neither paper nor notes say what the metric is": not (card.paper or card.notes),
        "licence is empty": not card.licence,
        f"kind {card.kind!r} is none of {', '.join(KINDS)}": card.kind not in KINDS,
        f"version {card.version!r} is no whole number of 1 or more": not isinstance(card.version, int) or card.version < 1,
        f"min_side {card.min_side!r} is no number of pixels": not isinstance(card.min_side, int) or card.min_side < 1,
        f"digits {card.digits!r} is no number of decimals": not isinstance(card.digits, int) or not 0 <= card.digits <= 12,
        f"the name {card.name!r} is that of a column of every result": card.name in FIXED_COLUMNS,
        f"the name {card.name!r} ends in {FOREGROUND!r}, like the foreground column of another metric": card.name.endswith(
            FOREGROUND
        ),
        f"the name {card.name!r} holds ',' or '@', which column names and --metrics use": any(c in card.name for c in ",@"),
    }
    refuse([*card_problems(card, [c.name for c in CHECKS]), *(text for text, is_wrong in wrong.items() if is_wrong)])
    return f"version {card.version}, {'higher' if card.higher_is_better else 'lower'} is better"


def _options(trial: MetricTrial) -> str:
    return check_options(trial.card.options, trial.options, in_docstring=True)


def _unknown_option(trial: MetricTrial) -> str:
    return check_unknown_option(trial.card, trial.options)


def _signature(trial: MetricTrial) -> str:
    card = trial.card
    signed = card.signed(trial.options)
    again = card.signed(card.parse(trial.options.model_dump()))
    if signed != again:
        raise Failed(f"equal options have two signatures: {signed} and {again}")
    if not signed.isprintable() or " at 0x" in signed or len(signed.split("|")) < 3:
        raise Failed(f"{signed!r} does not state the convention behind the number: title|convention|...|mrbench:VERSION")
    if card.foreground and column_signature(card, trial.options, FOREGROUND) == signed:
        raise Failed("the foreground column has the signature of the whole frame")
    untold, untried = [], []
    for name in type(trial.options).model_fields:
        others = [name_ for name_ in type(trial.options).model_fields if name_ != name]
        bases = [trial.options, *chain.from_iterable(variants(trial.options, o) for o in others)]
        pairs = [(base, other) for base in bases for other in variants(base, name)]
        if not pairs:
            untried.append(name)
        elif all(card.signed(base) == card.signed(other) for base, other in pairs):
            untold.append(name)
    if untold:
        raise Failed(f"the options {', '.join(untold)} change nothing in the signature: {signed}")
    return signed + (f" (not tried: {', '.join(untried)})" if untried else "")


# -- loading -------------------------------------------------------------------------------------------------------
def _load(trial: MetricTrial) -> str:
    implementation = trial.card.load()
    if not isinstance(implementation, type):
        raise Failed(f"the implementation is no class, but {type(implementation).__name__}")
    members = ("prepare", "__call__", "reference") if trial.card.kind == "image" else ("prepare", "__call__")
    missing = [m for m in members if not callable(getattr(implementation, m, None))]
    if missing:
        raise Failed(f"the class has no method {' and no method '.join(missing)}")
    parts = getattr(implementation, "parts", (Part(),))
    endings = [p.ending for p in parts if isinstance(p, Part)]
    if len(endings) != len(parts) or len(set(endings)) < len(endings) or not endings:
        raise Failed(f"parts are {parts!r}, expected columns (mrbench.metrics.uncertainty.Part) of different endings")
    implementation(trial.options)
    return implementation.__name__


def _prepare(trial: MetricTrial) -> str:
    try:
        trial.loaded(trial.device)
    except MetricUnavailable as error:
        raise Absent(f"it is not available here: {error}") from None
    return f"on {trial.device}"


# -- values --------------------------------------------------------------------------------------------------------
def _values(trial: MetricTrial) -> str:
    sample = trial.sample(LEVELS[1])
    count = len(sample.truth)
    found = trial.score(sample, trial.mask())
    endings = [p.ending for p in trial.parts]
    expected = {*endings, *(map(foreground_of, endings) if trial.card.foreground else ())}
    if set(found) != expected:
        raise Failed(f"with a foreground mask it gave the columns {sorted(found)}, expected {sorted(expected)}")
    for ending, values in found.items():
        if tuple(values.shape) != (count,) or values.dtype != torch.float64:
            raise Failed(f"{_column(trial, ending)} is {values.dtype} {list(values.shape)}, expected torch.float64 [{count}]")
    if not trial.native and set(trial.score(sample)) != set(endings):
        raise Failed(f"without a mask it gave the columns {sorted(trial.score(sample))}, expected {sorted(endings)}")
    return ", ".join(f"{_column(trial, e)} {float(v[0]):.4g}" for e, v in list(found.items())[:4])


def _column(trial: MetricTrial, ending: str) -> str:
    return trial.card.name + ending


def _finite(trial: MetricTrial) -> str:
    for what, sample in {"noisy images": trial.sample(LEVELS[0]), "very noisy images": trial.sample(LEVELS[1])}.items():
        for part in trial.parts:
            values = trial.values(sample, part)
            if not values.isfinite().all():
                raise Failed(f"{_column(trial, part.ending)} of {what} is {_shown(values)}")
    return "finite for noisy images"


def _shown(values: Tensor) -> str:
    return ", ".join(f"{v:.6g}" for v in values.tolist())


def _direction(trial: MetricTrial) -> str:
    if not trial.ranked():
        raise Skipped("it ranks nothing: 0 is best" if trial.signed else "it ranks nothing")
    told = []
    for part in trial.ranked():
        means = [float(trial.values(sample, part).mean()) for sample in trial.worsening()]
        if not all(trial.better(torch.tensor(a), torch.tensor(b)) for a, b in pairwise(means)):
            says = "higher" if trial.card.higher_is_better else "lower"
            raise Failed(
                f"the card says that {says} is better, but {_column(trial, part.ending)} goes {' -> '.join(f'{m:.4g}' for m in means)} as images get worse"
            )
        told.append(" -> ".join(f"{m:.4g}" for m in means))
    return f"{'; '.join(told)} as images get worse"


def _perfect(trial: MetricTrial) -> str:
    if trial.signed:
        values = trial.values(trial.perfect())
        if float(values.abs().max()) > TOLERANCE:
            raise Failed(f"0 is best, but identical images have {_shown(values)}")
        return "0 for identical images"
    if not trial.ranked():
        raise Skipped("it ranks nothing")
    told = []
    for part in trial.ranked():
        best = trial.values(trial.perfect(), part)
        if trial.card.kind == "draws" and bool(best.isnan().all()):
            continue  # the spread of equal draws tells nothing
        if best.isnan().any():
            raise Failed(f"{_column(trial, part.ending)} of identical images is {_shown(best)}")
        for sample in trial.worsening():
            values = trial.values(sample, part)
            if not trial.better(best, values).all():
                raise Failed(
                    f"{_column(trial, part.ending)} of identical images is {_shown(best)}, no better than {_shown(values)} of distorted ones"
                )
        told.append(f"{_column(trial, part.ending)} {float(best[0]):.4g}")
    if not told:
        raise Skipped("not defined for draws that are all the ground truth")
    return f"best for identical images: {', '.join(told)}"


def _range(trial: MetricTrial) -> str:
    bounds = {p: trial.values(trial.perfect(), p) for p in trial.ranked()} if trial.card.kind != "draws" else {}
    low, high = float("inf"), float("-inf")
    for what, sample in trial.extremes().items():
        for part in trial.parts:
            values = trial.values(sample, part)
            if not values.isfinite().all() and trial.card.kind != "draws":
                raise Failed(f"{_column(trial, part.ending)} of an estimate that is {what} is {_shown(values)}")
            if values.isinf().any():
                raise Failed(f"{_column(trial, part.ending)} of draws that are {what} is {_shown(values)}")
            if part in bounds and trial.better(values, bounds[part]).any():
                raise Failed(
                    f"{_column(trial, part.ending)} of an estimate that is {what} is {_shown(values)}, better than {_shown(bounds[part])} of the ground truth"
                )
            finite = values[values.isfinite()]
            if len(finite):
                low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return f"between {low:.4g} and {high:.4g} for estimates such as {', '.join(trial.extremes())}"


# -- what must not matter ------------------------------------------------------------------------------------------
def _repeats(trial: MetricTrial) -> str:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first = trial.score(trial.sample(LEVELS[1]), trial.mask())
        torch.manual_seed(2)
        second = trial.score(trial.sample(LEVELS[1]), trial.mask(), metric=trial.loaded(trial.device))
    for ending, values in first.items():
        if not torch.equal(values.nan_to_num(), second[ending].nan_to_num()):
            raise Failed(
                f"{_column(trial, ending)} is {_shown(values)}, then {_shown(second[ending])}: nothing in a metric is random"
            )
    return "bit-equal when called again, with another global seed"


def _batch_size(trial: MetricTrial) -> str:
    sample, mask = trial.sample(LEVELS[1]), trial.mask()
    together = trial.score(sample, mask)
    alone = [trial.score(sample.of([i]), mask[i : i + 1]) for i in range(len(mask))]
    return _alike(trial, together, {e: torch.cat([a[e] for a in alone]) for e in together}, TOLERANCE, "in a batch and alone")


def _item_order(trial: MetricTrial) -> str:
    sample, mask = trial.sample(LEVELS[1]), trial.mask()
    order = list(reversed(range(len(mask))))
    together = {e: v[order] for e, v in trial.score(sample, mask).items()}
    return _alike(trial, together, trial.score(sample.of(order), mask[order]), TOLERANCE, "in one order and another")


def _alike(trial: MetricTrial, a: dict[str, Tensor], b: dict[str, Tensor], tolerance: float, how: str) -> str:
    largest = 0.0
    for ending, values in a.items():
        other = b[ending]
        same = (values == other) | (values.isnan() & other.isnan())
        relative = torch.where(same, 0.0, (values - other).abs() / values.abs().clamp_min(1e-3)).nan_to_num(nan=float("inf"))
        if not float(relative.max()) <= tolerance:
            raise Failed(f"{_column(trial, ending)} {how} is {_shown(values)} and {_shown(other)}")
        largest = max(largest, float(relative.max()))
    return f"largest relative difference {largest:.1e} (tolerance {tolerance:.0e})"


def _inputs(trial: MetricTrial) -> str:
    sample, mask = trial.sample(LEVELS[1]), trial.mask()
    inputs = {"the estimate": sample.estimates, "the ground truth": sample.truth, "the mask": mask}
    copies = {name: t.clone() for name, t in inputs.items()}
    trial.score(sample, mask)
    changed = [name for name, t in inputs.items() if not torch.equal(t, copies[name])]
    if changed:
        raise Failed(f"changes {' and '.join(changed)} in place: work on a copy")
    return "unchanged"


def _dtype(trial: MetricTrial) -> str:
    sample, mask = trial.sample(LEVELS[1]), trial.mask()
    double = Sample(sample.estimates.double(), sample.truth.double())
    if trial.card.kind == "measurement":
        raise Skipped("the engine gives float32")
    return _alike(trial, trial.score(sample, mask), trial.score(double, mask), DTYPE_TOLERANCE, "in float32 and float64")


def _device(trial: MetricTrial) -> str:
    if trial.device.type == "cpu":
        return "every check ran on the CPU"
    cpu = torch.device("cpu")
    sample, mask = trial.sample(LEVELS[1]), trial.mask()
    there = trial.score(sample, mask)
    here = trial.score(sample, mask, metric=trial.loaded(cpu), device=cpu)
    return _alike(trial, there, here, DTYPE_TOLERANCE, f"on {trial.device} and on the CPU")


# -- images of other kinds -----------------------------------------------------------------------------------------
def _sizes(trial: MetricTrial) -> str:
    side = trial.card.min_side
    sizes = [(side, side), (side + 1, side + 2), (trial.size[0] + 1, trial.size[1] + 3)]
    for size in sizes:
        sample = trial.sample(LEVELS[1], size)
        whole = torch.ones(len(sample.truth), *size, dtype=torch.bool)
        try:
            found = trial.score(sample, whole)
        except MetricUnavailable as error:
            raise Failed(f"images of {size[0]}x{size[1]} are refused ({error}), but the card's min_side is {side}") from None
        bad = next((e for e, v in found.items() if trial.card.kind != "draws" and not v.isfinite().all()), None)
        if bad is not None:
            raise Failed(f"{_column(trial, bad)} of images of {size[0]}x{size[1]} is {_shown(found[bad])}")
    return ", ".join(f"{h}x{w}" for h, w in sizes)


def _channels(trial: MetricTrial) -> str:
    sample = trial.sample(LEVELS[1], channels=3)
    whole = torch.ones(len(sample.truth), *trial.size, dtype=torch.bool)
    for ending, values in trial.score(sample, whole).items():
        if tuple(values.shape) != (len(sample.truth),) or not values.isfinite().all():
            raise Failed(f"{_column(trial, ending)} of colour images is {list(values.shape)}: {_shown(values.flatten())}")
    return "colour images give one value each"


def _foreground(trial: MetricTrial) -> str:
    sample, mask = trial.sample(LEVELS[1]), trial.mask()
    if not trial.card.foreground:
        if trial.native:
            raise Skipped("it is a mean over the foreground, and has no column of the frame")
        _alike(trial, trial.score(sample), trial.score(sample, mask), 0.0, "without and with a mask")
        return "no foreground column, and the mask changes nothing"
    found = trial.score(sample, mask)
    border = _changed(sample, slice(0, 4))
    elsewhere = trial.score(border, mask)
    for part in trial.parts:
        column = _column(trial, foreground_of(part.ending))
        values, other = found[foreground_of(part.ending)], elsewhere[foreground_of(part.ending)]
        if not torch.equal(values.nan_to_num(), other.nan_to_num()):
            raise Failed(f"{column} changes from {_shown(values)} to {_shown(other)} with pixels far outside the mask")
    h = trial.size[0]
    inside = trial.score(_changed(sample, slice(h // 2 - 2, h // 2 + 2)), mask)
    if all(torch.equal(found[e].nan_to_num(), inside[e].nan_to_num()) for e in found if e.endswith(FOREGROUND)):
        raise Failed(f"{_column(trial, FOREGROUND)} does not change with pixels inside the mask")
    whole = trial.score(sample, torch.ones_like(mask))
    _alike(
        trial, {p.ending: whole[p.ending] for p in trial.parts}, {p.ending: whole[foreground_of(p.ending)] for p in trial.parts},
        TOLERANCE, "over the frame, and over a foreground that is all of it,",
    )  # fmt: skip
    return "looks inside the mask only; a mask of everything gives the value of the frame"


def _changed(sample: Sample, rows: slice) -> Sample:
    estimates = sample.estimates.clone()
    estimates[..., rows, :] = 1 - estimates[..., rows, :]
    return replace(sample, estimates=estimates)


def _empty_mask(trial: MetricTrial) -> str:
    if not trial.card.foreground and not trial.native:
        raise Skipped("it has no foreground column")
    sample, mask = trial.sample(LEVELS[1]), trial.mask()
    full = trial.score(sample, mask)
    mask[1] = False
    found = trial.score(sample, mask)
    for part in trial.parts:
        ending = part.ending if trial.native else foreground_of(part.ending)
        values, others = found[ending], [0, 2]
        if not bool(values[1].isnan()):
            raise Failed(
                f"{_column(trial, ending)} of an image without foreground is {float(values[1]):.6g}, expected NaN: there is no such value"
            )
        _alike(
            trial,
            {ending: full[ending][others]},
            {ending: values[others]},
            TOLERANCE,
            "beside an image with and without foreground",
        )
        if not trial.native:
            _alike(
                trial,
                {part.ending: full[part.ending]},
                {part.ending: found[part.ending]},
                TOLERANCE,
                "with and without foreground",
            )
    return "NaN for an image without foreground, and for no other"


def _nan(trial: MetricTrial) -> str:
    if trial.card.kind == "draws":
        raise Skipped("the engine refuses draws that are not finite before they get here")
    sample, mask = trial.sample(LEVELS[1]), trial.mask()
    full = trial.score(sample, mask)
    h, w = trial.size
    sample.estimates[1, :, h // 2, w // 2] = float("nan")
    found = trial.score(sample, mask)
    for ending, values in found.items():
        if bool(values[1].isfinite()):
            raise Failed(
                f"{_column(trial, ending)} of an estimate with a NaN is {float(values[1]):.6g}: the number hides it, expected NaN"
            )
        _alike(
            trial, {ending: full[ending][[0, 2]]}, {ending: values[[0, 2]]}, TOLERANCE, "beside a sound and an unsound image"
        )
    return "an estimate with a NaN has no value, and spoils no other"


_READY = ("prepare",)
_SHAPED = (*_READY, "values")
_FINITE = (*_SHAPED, "finite")
_REPEATS = (*_FINITE, "repeats")

CHECKS: tuple[Check[MetricTrial], ...] = (
    Check("card", "the card is complete and consistent", _card),
    Check("options", "every option has a description (on its field, or `name : text` in the model's docstring)", _options),
    Check("unknown_option", "unknown options are refused, naming the known ones", _unknown_option),
    Check("signature", "the signature states the convention, and every option changes it", _signature),
    Check("load", "the implementation loads and has the right form", _load),
    Check("prepare", "it can be made ready here", _prepare, ("load",)),
    Check("values", "one float64 value an image and column, with and without a foreground mask", _values, _READY),
    Check("inputs", "leaves what it is given unchanged", _inputs, _SHAPED),
    Check("finite", "finite values for distorted images", _finite, _SHAPED),
    Check("direction", "values get worse, in the card's sense, as images do", _direction, _FINITE),
    Check("perfect", "no distorted image scores as well as the ground truth", _perfect, (*_FINITE, "direction")),
    Check("range", "extreme estimates have finite values, none better than the ground truth's", _range, (*_FINITE, "perfect")),
    Check("repeats", "bit-equal when called again", _repeats, (*_FINITE, "inputs")),
    Check("batch_size", "the same values for any batch size", _batch_size, _REPEATS),
    Check("item_order", "the same values for any order of items", _item_order, (*_REPEATS, "batch_size")),
    Check("dtype", "the same values for float32 and float64", _dtype, _REPEATS),
    Check("device", "the same values on every device", _device, _REPEATS),
    Check("sizes", "works from the card's min_side on, and for odd sizes", _sizes, (*_FINITE, "card")),
    Check("channels", "works for colour images", _channels, _FINITE),
    Check("foreground", "the foreground column looks inside the mask only", _foreground, _REPEATS),
    Check("empty_mask", "an empty foreground has no value (NaN)", _empty_mask, _REPEATS),
    Check("nan", "an estimate with a NaN has no value", _nan, _REPEATS),
)

__all__ = ["CHECKS", "CheckResult", "check_metric"]
