"""The conformance suite for methods: does a plugin keep its contract, and its card its word?

Everything runs on a small phantom (two subjects, sizes even and odd), measured as in a real run. A check is
judged only when those that it builds on hold, so a defect is reported once, under its own name. A card's
``expected_failures`` turn known ones into ``expected``; one that does not come true counts as a failure.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, get_args

import torch
from pydantic import ValidationError
from torch import Tensor

from mrbench.cards import Checkpoint, MethodCard, Options, Tier
from mrbench.engine.probe import CHANNELS, DEFAULT_DEGRADATION, EVEN, ODD, SEED_KEY, Case, Trial
from mrbench.engine.restorer import check_values
from mrbench.errors import UserError
from mrbench.hub import source_of
from mrbench.plugins import Registry

CheckStatus = Literal["pass", "fail", "expected", "skip", "unexpected_pass"]

TOLERANCE = 1e-3  # in pixels, between batch sizes and orders (design, section 5)
SPREAD = 1e-6  # draws of a stochastic method differ by more than this somewhere
DRAWS = 3
OTHER_DEGRADATIONS = ("kspace_crop", "area")  # another border and kernel


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check; ``detail`` says what was found, or why it was not judged."""

    name: str
    status: CheckStatus
    detail: str


def conforms(results: Sequence[CheckResult]) -> bool:
    """Whether nothing failed and every expected failure came true."""
    return all(r.status not in ("fail", "unexpected_pass") for r in results)


def check_method(
    card: MethodCard,
    registry: Registry,
    options: Options | None = None,
    checkpoint: Checkpoint | None = None,
    device: str | torch.device = "cpu",
) -> list[CheckResult]:
    """Run every check of :data:`CHECKS` on a method, in order.

    Parameters
    ----------
    options : ``None``: the card's defaults.
    checkpoint : handed to the method's ``load``; one made for a single scale is checked at that scale alone.

    Raises
    ------
    UserError : the card has options without a default and ``options`` is ``None``.
    """
    trial = Trial(card, registry, card.parse({}) if options is None else options, checkpoint, torch.device(device))
    held: dict[str, bool] = {}
    results = []
    for check in CHECKS:
        result = _judge(check, trial, next((n for n in check.needs if not held[n]), None))
        held[check.name] = result.status == "pass" or (result.status == "skip" and not result.detail.startswith(_BLOCKED))
        results.append(_expectation(result, card.expected_failures.get(check.name)))
    return results


# -- judging -------------------------------------------------------------------------------------------------------
class _Failed(Exception):
    pass


class _Skipped(Exception):
    pass


_BLOCKED = "not judged: it builds on "


@dataclass(frozen=True)
class Check:
    """A check: its name in ``expected_failures``, what it asks, and the checks that must hold before it can be judged."""

    name: str
    asks: str
    run: Callable[[Trial], str]
    needs: tuple[str, ...] = ()


def _judge(check: Check, trial: Trial, blocker: str | None) -> CheckResult:
    if blocker is not None:
        return CheckResult(check.name, "skip", _BLOCKED + blocker)
    try:
        return CheckResult(check.name, "pass", check.run(trial))
    except _Failed as failure:
        return CheckResult(check.name, "fail", str(failure))
    except _Skipped as reason:
        return CheckResult(check.name, "skip", str(reason))
    except Exception as error:  # whatever a plugin raises is its result
        return CheckResult(check.name, "fail", _text(error))


def _expectation(result: CheckResult, reason: str | None) -> CheckResult:
    if reason is None or result.status == "skip":
        return result
    if result.status == "fail":
        return CheckResult(result.name, "expected", f"{reason} ({result.detail})")
    text = f"the card expects a failure ({reason}), but it passes: take it off the card"
    return CheckResult(result.name, "unexpected_pass", text)


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip() or 'no message'}"


def _difference(a: Tensor, b: Tensor) -> Tensor:
    """Largest absolute difference per item; equal infinities and NaN in the same place count as equal."""
    same = (a == b) | (a.isnan() & b.isnan())
    return torch.where(same, 0.0, (a - b).abs()).nan_to_num(nan=float("inf")).flatten(1).amax(1)


def _within(difference: float, what: str) -> str:
    text = f"largest difference {difference:.1e} (tolerance {TOLERANCE:.0e})"
    if not difference <= TOLERANCE:
        raise _Failed(f"{what}: {text}")
    return text


def _every(trial: Trial, cases: Sequence[Case], operator: bool = True) -> None:
    """Run cases; raise ``_Failed`` naming those that raised or gave another shape."""
    problems = []
    for case in cases:
        try:
            trial.run(case, operator=operator)
        except Exception as error:
            problems.append(f"{case}: {_text(error)}")
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise _Failed(problems[0] + more)


# -- the card ------------------------------------------------------------------------------------------------------
def _card(trial: Trial) -> str:
    card = trial.card
    weights = card.tier != "none" or bool(card.checkpoints)
    unknown = sorted(set(card.expected_failures) - {c.name for c in CHECKS})
    wrong = {
        "summary is empty": not card.summary.strip(),
        "summary is longer than one line of 120 characters": "\n" in card.summary or len(card.summary) > 120,
        "neither paper nor notes say what the method is": not (card.paper or card.notes),
        "version is empty": not card.version,
        f"tier {card.tier!r} is none of {', '.join(get_args(Tier))}": card.tier not in get_args(Tier),
        "licence is empty, although the method has weights": weights and not card.licence,
        f"channels {card.channels} are not some of 1, 2, 3": not card.channels or not set(card.channels) <= set(CHANNELS),
        f"scales {card.scales} are not whole numbers of 2 or more": card.scales is not None
        and (not card.scales or any(not isinstance(s, int) or s < 2 for s in card.scales)),
        f"nfe {card.nfe} is no number of network calls": card.nfe is not None and card.nfe < 1,
        f"expected_failures names unknown checks: {', '.join(unknown)}": bool(unknown),
        "expected_failures has an entry without a reason": any(not r.strip() for r in card.expected_failures.values()),
        "two checkpoints have one name": len({c.name for c in card.checkpoints}) < len(card.checkpoints),
    }
    problems = [text for text, is_wrong in wrong.items() if is_wrong]
    problems += [f"checkpoint {c.name}: {p}" for c in card.checkpoints for p in _checkpoint_problems(card, c)]
    if problems:
        raise _Failed("; ".join(problems))
    return f"version {card.version}, tier {card.tier}"


def _checkpoint_problems(card: MethodCard, checkpoint: Checkpoint) -> list[str]:
    wrong = {
        "sha256 is not 64 hex digits": not re.fullmatch(r"[0-9a-f]{64}", checkpoint.sha256)
        and not (source_of(checkpoint) == "elsewhere" and not checkpoint.sha256),  # nobody may know it where others host it
        f"tier {checkpoint.tier!r} is no tier of weights": checkpoint.tier not in get_args(Tier) or checkpoint.tier == "none",
        "licence is empty": not checkpoint.licence,
        "revision is not a commit (40 hex digits)": bool(checkpoint.repo_id)
        and not re.fullmatch(r"[0-9a-f]{40}", checkpoint.revision),
        f"scale {checkpoint.scale} is none of the method's": None not in (checkpoint.scale, card.scales)
        and checkpoint.scale not in (card.scales or ()),
        f"channels {checkpoint.channels} are none of the method's": checkpoint.channels not in card.channels,
    }
    return [text for text, is_wrong in wrong.items() if is_wrong]


def _options(trial: Trial) -> str:
    fields = trial.card.options.model_fields
    bare = [name for name, info in fields.items() if not (info.description or "").strip()]
    if bare:
        raise _Failed(f"options without a description: {', '.join(bare)}")
    if not trial.card.options.model_config.get("frozen"):
        raise _Failed("the option model is not frozen: derive it from mrbench.Options")
    trial.options.model_dump_json()
    return ", ".join(fields) or "no options"


def _unknown_option(trial: Trial) -> str:
    model = trial.card.options
    name = "no_such_option" + "_" * sum(k.startswith("no_such_option") for k in model.model_fields)
    try:
        trial.card.parse({name: 1})
    except UserError as error:
        unnamed = [k for k in model.model_fields if k not in str(error)]
        if unnamed:
            raise _Failed(f"the refusal does not name the known options {', '.join(unnamed)}: {error}") from None
    else:
        raise _Failed("an unknown option is taken without complaint")
    try:
        model.model_validate({**trial.options.model_dump(), name: 1})
    except ValidationError:
        return "refused" + (", naming the known ones" if model.model_fields else "")
    raise _Failed("the option model takes unknown keys: it must keep extra='forbid'")


# -- loading -------------------------------------------------------------------------------------------------------
def _load(trial: Trial) -> str:
    kind = "function" if trial.probe.is_function else "class"
    if trial.card.control and trial.probe.is_function:
        raise _Failed("a control is a class with restore(measurement, draws, truth), not a function")
    if not trial.card.deterministic and trial.probe.is_function:
        raise _Failed("a function gives one image: a method that is not deterministic is a class, restore(measurement, draws)")
    return kind


def _checkpoint(trial: Trial) -> str:
    if not trial.probe.loads:
        raise _Skipped("the method loads no weights")
    template = trial.checkpoint or next(iter(trial.card.checkpoints), None)
    if template is None:
        raise _Skipped("the card has no checkpoints")
    head = json.dumps({"no.such.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    foreign = len(head).to_bytes(8, "little") + head + bytes(4)  # safetensors: header length, JSON header, data
    refusals = []
    with TemporaryDirectory() as folder:
        for what, content in (("weights of another network", foreign), ("a damaged file", bytes(range(256)))):
            file = Path(folder) / "wrong.safetensors"
            file.write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            wrong = replace(template, name="wrong", file=str(file), sha256=digest, repo_id="", revision="")
            try:
                trial.load(checkpoint=wrong)
            except Exception as error:
                refusals.append(f"{what}: {_text(error)}")
            else:
                raise _Failed(f"{what} is loaded without complaint")
    return "refused " + "; ".join(refusals)


def _inference_mode(trial: Trial) -> str:
    try:
        trial.base_result()
    except Exception as inside:
        try:
            trial.run(trial.base, inference=False)
        except Exception:
            raise _Skipped("the method works neither inside nor outside torch.inference_mode: see shapes") from None
        raise _Failed(
            f"{_text(inside)}. It works outside torch.inference_mode: where gradients are needed, "
            "wrap them in `with torch.inference_mode(False), torch.enable_grad()` and clone what comes from outside"
        ) from None
    return "works"


# -- shapes and values ---------------------------------------------------------------------------------------------
def _shapes(trial: Trial) -> str:
    trial.base_result()
    _every(trial, [replace(trial.base, scale=s, count=2) for s in trial.scales])
    return f"scales {', '.join(map(str, trial.scales))} at {EVEN[0]}x{EVEN[1]}"


def _odd_sizes(trial: Trial) -> str:
    _every(trial, [replace(trial.base, scale=s, size=ODD, count=2) for s in trial.scales])
    return f"scales {', '.join(map(str, trial.scales))} at {ODD[0]}x{ODD[1]}"


def _channels(trial: Trial) -> str:
    _every(trial, [replace(trial.base, channels=c, count=2) for c in trial.card.channels if c != trial.base.channels])
    declared = ", ".join(f"{c} ({CHANNELS[c]})" for c in trial.card.channels)
    rest = [str(c) for c in CHANNELS if c not in trial.card.channels]
    return declared + (f"; {' and '.join(rest)} are not asked for" if rest else "")


def _degradations(trial: Trial) -> str:
    _every(trial, [replace(trial.base, degradation=d, count=2) for d in OTHER_DEGRADATIONS])
    return ", ".join((DEFAULT_DEGRADATION, *OTHER_DEGRADATIONS))


def _no_operator(trial: Trial) -> str:
    if trial.card.needs_operator:
        raise _Skipped("the card says needs_operator: the harness refuses tasks without one")
    _every(trial, [replace(trial.base, count=2)], operator=False)
    return "works"


def _dtype(trial: Trial) -> str:
    bad = [d for d in trial.probe.dtypes if not d.is_floating_point]
    if bad:
        raise _Failed(f"returned {', '.join(sorted(map(str, bad)))}, expected floating point on the [0, 1] range")
    return ", ".join(sorted(str(d).removeprefix("torch.") for d in trial.probe.dtypes))


def _finite(trial: Trial) -> str:
    for case, output in trial.seen:
        bad = int((~output.isfinite()).sum())
        if bad:
            raise _Failed(f"{case}: NaN or infinite values in {bad} of {output.numel()} pixels")
    return f"{len(trial.seen)} batches"


def _range(trial: Trial) -> str:
    finite = [(case, output) for case, output in trial.seen if output.isfinite().all()]
    if not finite:
        raise _Skipped("no finite output to look at")
    for case, output in finite:
        for estimate in output:
            problem = check_values(estimate)
            if problem:
                raise _Failed(f"{case}: {problem}")
    low, high = min(float(o.min()) for _, o in finite), max(float(o.max()) for _, o in finite)
    return f"values between {low:.3g} and {high:.3g}"


def _inputs(trial: Trial) -> str:
    if trial.probe.modified:
        raise _Failed(f"changes {' and '.join(sorted(trial.probe.modified))} in place: work on a copy")
    return "unchanged"


# -- randomness and batches ----------------------------------------------------------------------------------------
def _same_seed(trial: Trial) -> str:
    difference = float(_difference(trial.base_result(), trial.run(trial.base)).max())
    if difference != 0:
        raise _Failed(f"two calls with the same measurement and seed differ by up to {difference:.1e}")
    return "bit-equal"


def _global_random(trial: Trial) -> str:
    if trial.probe.drawn:
        names = " and ".join(sorted(trial.probe.drawn))
        raise _Failed(f"draws from the global generator of {names}: take numbers from measurement.noise(draws) alone")
    difference = float(_difference(trial.base_result(), trial.run(trial.base, probe=trial.load(seed=1), seed=1)).max())
    if difference != 0:
        raise _Failed(
            f"another torch.manual_seed (or numpy, random) changes the result by up to {difference:.1e}: "
            "weights are left as initialised, or numbers do not come from measurement.noise(draws)"
        )
    return "independent of torch, numpy and random"


def _other_seed(trial: Trial) -> str:
    difference = _difference(trial.base_result(), trial.run(trial.base, seed_key=SEED_KEY + "-2"))
    if trial.card.deterministic:
        if float(difference.max()) != 0:
            moved = f"{float(difference.max()):.1e}"
            raise _Failed(f"the card says deterministic, but another seed changes the result by up to {moved}")
        return "deterministic: the same for another seed"
    if float(difference.min()) <= SPREAD:
        raise _Failed("the card says not deterministic, but another seed gives the same result")
    return f"another seed differs by up to {float(difference.max()):.1e}"


def _batch_size(trial: Trial) -> str:
    alone = torch.cat([trial.run(trial.base, [i]) for i in range(trial.base.count)])
    difference = float(_difference(trial.base_result(), alone).max())
    return _within(difference, f"items alone and in a batch of {trial.base.count} differ")


def _item_order(trial: Trial) -> str:
    order = list(reversed(range(trial.base.count)))
    difference = float(_difference(trial.base_result()[order], trial.run(trial.base, order)).max())
    return _within(difference, "the same items in another order differ")


def _draws(trial: Trial) -> str:
    if trial.card.deterministic:
        raise _Skipped("deterministic: the harness asks for one draw")
    several = trial.run(trial.base, draws=DRAWS)
    text = _within(float(_difference(trial.base_result(), several[:, :1]).max()), f"draw 1 of {DRAWS} and draw 1 alone differ")
    for j in range(1, DRAWS):
        if float(_difference(several[:, j - 1], several[:, j]).min()) <= SPREAD:
            raise _Failed(f"draws {j} and {j + 1} of {DRAWS} are the same image")
    return f"draw 1 alone and of {DRAWS}: {text}"


def _cpu(trial: Trial) -> str:
    if trial.device.type == "cpu":
        return "every check ran on it"
    cpu = torch.device("cpu")
    difference = float(_difference(trial.base_result(), trial.run(trial.base, probe=trial.load(device=cpu))).max())
    return f"differs from {trial.device} by up to {difference:.1e}"


_SHAPED = ("shapes",)
_CALM = (*_SHAPED, "same_seed")
_REPEATS = (*_CALM, "global_random")

# The last four look at everything that the others made the method return.
CHECKS: tuple[Check, ...] = (
    Check("card", "the card is complete and consistent", _card),
    Check("options", "every option has a description", _options),
    Check("unknown_option", "unknown options are refused, naming the known ones", _unknown_option),
    Check("load", "the implementation loads and has the right form", _load),
    Check("checkpoint", "a wrong checkpoint is refused", _checkpoint, ("load",)),
    Check("inference_mode", "works inside torch.inference_mode", _inference_mode, ("load",)),
    Check("shapes", "the right shape at every declared scale", _shapes, ("load", "inference_mode")),
    Check("odd_sizes", "the same for odd image sizes", _odd_sizes, _SHAPED),
    Check("channels", "the same for every declared number of channels", _channels, _SHAPED),
    Check("degradations", "the same for other degradations than the default one", _degradations, _SHAPED),
    Check("no_operator", "works without an operator, if it says so", _no_operator, _SHAPED),
    Check("same_seed", "bit-equal when called again", _same_seed, _SHAPED),
    Check("global_random", "draws random numbers from the measurement's noise source alone", _global_random, _CALM),
    Check("other_seed", "another seed changes the result of a stochastic method, and of no other", _other_seed, _REPEATS),
    Check("batch_size", "the same result for any batch size", _batch_size, _REPEATS),
    Check("item_order", "the same result for any order of items", _item_order, _REPEATS),
    Check("draws", "draw 1 is the same draw whatever K, and draws differ", _draws, (*_REPEATS, "other_seed")),
    Check("cpu", "runs on the CPU", _cpu, _SHAPED),
    Check("dtype", "returns floating point", _dtype, _SHAPED),
    Check("finite", "no NaN, no infinities", _finite, _SHAPED),
    Check("range", "values on the [0, 1] range of the ground truth", _range, _SHAPED),
    Check("inputs", "leaves what it is given unchanged", _inputs, _SHAPED),
)
