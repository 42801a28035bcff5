"""The conformance suite for methods: does a plugin keep its contract, and its card its word?

Everything runs on a small phantom (two subjects, sizes even and odd), measured as in a real run. A check is
judged only when those that it builds on hold, so a defect is reported once, under its own name. A card's
``expected_failures`` turn known ones into ``expected``; one that does not come true counts as a failure.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import torch
from torch import Tensor

from mrbench.cards import Checkpoint, MethodCard, Options, Tier
from mrbench.engine.conformance_base import (
    Check,
    CheckResult,
    Failed,
    Skipped,
    card_problems,
    check_options,
    check_unknown_option,
    conforms,
    refuse,
    run_checks,
    text_of,
)
from mrbench.engine.probe import CHANNELS, DEFAULT_DEGRADATION, EVEN, ODD, SEED_KEY, Case, Trial
from mrbench.engine.restorer import check_values
from mrbench.hub import source_of
from mrbench.plugins import Registry

__all__ = ["CHECKS", "CheckResult", "check_method", "conforms"]

TOLERANCE = 1e-3  # in pixels, between batch sizes and orders (design, section 5)
SPREAD = 1e-6  # draws of a stochastic method differ by more than this somewhere
DRAWS = 3
OTHER_DEGRADATIONS = ("kspace_crop", "area")  # another border and kernel


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
    return run_checks(CHECKS, trial, card.expected_failures)


def _difference(a: Tensor, b: Tensor) -> Tensor:
    """Largest absolute difference per item; equal infinities and NaN in the same place count as equal."""
    same = (a == b) | (a.isnan() & b.isnan())
    return torch.where(same, 0.0, (a - b).abs()).nan_to_num(nan=float("inf")).flatten(1).amax(1)


def _within(difference: float, what: str) -> str:
    text = f"largest difference {difference:.1e} (tolerance {TOLERANCE:.0e})"
    if not difference <= TOLERANCE:
        raise Failed(f"{what}: {text}")
    return text


def _every(trial: Trial, cases: Sequence[Case], operator: bool = True) -> None:
    """Run cases; raise ``Failed`` naming those that raised or gave another shape."""
    problems = []
    for case in cases:
        try:
            trial.run(case, operator=operator)
        except Exception as error:
            problems.append(f"{case}: {text_of(error)}")
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise Failed(problems[0] + more)


# -- the card ------------------------------------------------------------------------------------------------------
def _card(trial: Trial) -> str:
    card = trial.card
    weights = card.tier != "none" or bool(card.checkpoints)
    wrong = {
        "neither paper nor notes say what the method is": not (card.paper or card.notes),
        "version is empty": not card.version,
        f"tier {card.tier!r} is none of {', '.join(get_args(Tier))}": card.tier not in get_args(Tier),
        "licence is empty, although the method has weights": weights and not card.licence,
        f"channels {card.channels} are not some of 1, 2, 3": not card.channels or not set(card.channels) <= set(CHANNELS),
        f"scales {card.scales} are not whole numbers of 2 or more": card.scales is not None
        and (not card.scales or any(not isinstance(s, int) or s < 2 for s in card.scales)),
        f"nfe {card.nfe} is no number of network calls": card.nfe is not None and card.nfe < 1,
        "two checkpoints have one name": len({c.name for c in card.checkpoints}) < len(card.checkpoints),
    }
    problems = card_problems(card, [c.name for c in CHECKS])
    problems += [text for text, is_wrong in wrong.items() if is_wrong]
    problems += [f"checkpoint {c.name}: {p}" for c in card.checkpoints for p in _checkpoint_problems(card, c)]
    refuse(problems)
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
    return check_options(trial.card.options, trial.options)


def _unknown_option(trial: Trial) -> str:
    return check_unknown_option(trial.card, trial.options)


# -- loading -------------------------------------------------------------------------------------------------------
def _load(trial: Trial) -> str:
    kind = "function" if trial.probe.is_function else "class"
    if trial.card.control and trial.probe.is_function:
        raise Failed("a control is a class with restore(measurement, draws, truth), not a function")
    if not trial.card.deterministic and trial.probe.is_function:
        raise Failed("a function gives one image: a method that is not deterministic is a class, restore(measurement, draws)")
    return kind


def _checkpoint(trial: Trial) -> str:
    if not trial.probe.loads:
        raise Skipped("the method loads no weights")
    template = trial.checkpoint or next(iter(trial.card.checkpoints), None)
    if template is None:
        raise Skipped("the card has no checkpoints")
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
                refusals.append(f"{what}: {text_of(error)}")
            else:
                raise Failed(f"{what} is loaded without complaint")
    return "refused " + "; ".join(refusals)


def _inference_mode(trial: Trial) -> str:
    try:
        trial.base_result()
    except Exception as inside:
        try:
            trial.run(trial.base, inference=False)
        except Exception:
            raise Skipped("the method works neither inside nor outside torch.inference_mode: see shapes") from None
        raise Failed(
            f"{text_of(inside)}. It works outside torch.inference_mode: where gradients are needed, "
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
        raise Skipped("the card says needs_operator: the harness refuses tasks without one")
    _every(trial, [replace(trial.base, count=2)], operator=False)
    return "works"


def _dtype(trial: Trial) -> str:
    bad = [d for d in trial.probe.dtypes if not d.is_floating_point]
    if bad:
        raise Failed(f"returned {', '.join(sorted(map(str, bad)))}, expected floating point on the [0, 1] range")
    return ", ".join(sorted(str(d).removeprefix("torch.") for d in trial.probe.dtypes))


def _finite(trial: Trial) -> str:
    for case, output in trial.seen:
        bad = int((~output.isfinite()).sum())
        if bad:
            raise Failed(f"{case}: NaN or infinite values in {bad} of {output.numel()} pixels")
    return f"{len(trial.seen)} batches"


def _range(trial: Trial) -> str:
    finite = [(case, output) for case, output in trial.seen if output.isfinite().all()]
    if not finite:
        raise Skipped("no finite output to look at")
    for case, output in finite:
        for estimate in output:
            problem = check_values(estimate)
            if problem:
                raise Failed(f"{case}: {problem}")
    low, high = min(float(o.min()) for _, o in finite), max(float(o.max()) for _, o in finite)
    return f"values between {low:.3g} and {high:.3g}"


def _inputs(trial: Trial) -> str:
    if trial.probe.modified:
        raise Failed(f"changes {' and '.join(sorted(trial.probe.modified))} in place: work on a copy")
    return "unchanged"


# -- randomness and batches ----------------------------------------------------------------------------------------
def _same_seed(trial: Trial) -> str:
    difference = float(_difference(trial.base_result(), trial.run(trial.base)).max())
    if difference != 0:
        raise Failed(f"two calls with the same measurement and seed differ by up to {difference:.1e}")
    return "bit-equal"


def _global_random(trial: Trial) -> str:
    if trial.probe.drawn:
        names = " and ".join(sorted(trial.probe.drawn))
        raise Failed(f"draws from the global generator of {names}: take numbers from measurement.noise(draws) alone")
    difference = float(_difference(trial.base_result(), trial.run(trial.base, probe=trial.load(seed=1), seed=1)).max())
    if difference != 0:
        raise Failed(
            f"another torch.manual_seed (or numpy, random) changes the result by up to {difference:.1e}: "
            "weights are left as initialised, or numbers do not come from measurement.noise(draws)"
        )
    return "independent of torch, numpy and random"


def _other_seed(trial: Trial) -> str:
    difference = _difference(trial.base_result(), trial.run(trial.base, seed_key=SEED_KEY + "-2"))
    if trial.card.deterministic:
        if float(difference.max()) != 0:
            moved = f"{float(difference.max()):.1e}"
            raise Failed(f"the card says deterministic, but another seed changes the result by up to {moved}")
        return "deterministic: the same for another seed"
    if float(difference.min()) <= SPREAD:
        raise Failed("the card says not deterministic, but another seed gives the same result")
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
        raise Skipped("deterministic: the harness asks for one draw")
    several = trial.run(trial.base, draws=DRAWS)
    text = _within(float(_difference(trial.base_result(), several[:, :1]).max()), f"draw 1 of {DRAWS} and draw 1 alone differ")
    for j in range(1, DRAWS):
        if float(_difference(several[:, j - 1], several[:, j]).min()) <= SPREAD:
            raise Failed(f"draws {j} and {j + 1} of {DRAWS} are the same image")
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
CHECKS: tuple[Check[Trial], ...] = (
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
