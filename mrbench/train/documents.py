"""The documents of a checkpoint folder: ``config.json``, ``training.json`` and the model card."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

import mrbench
from mrbench.cards import MethodCard
from mrbench.engine.environment import device_name, package_versions
from mrbench.errors import PluginError
from mrbench.hub.checkpoint import FORMAT
from mrbench.protocol import digest
from mrbench.train.job import Job, fingerprint
from mrbench.train.log import LOG
from mrbench.train.recipe import Recipe
from mrbench.train.settings import RecipeOptions, Stage
from mrbench.train.sources import Source, hashes_of

OWN_FIELDS = {"format", "method", "name", "tier", "licence"}  # a recipe does not set these
NAMES = {"psnr": "PSNR (dB)", "ssim": "SSIM", "lpips_squeeze": "LPIPS (squeeze)", "gmsd": "GMSD", "haarpsi": "HaarPSI"}


def checkpoint_config(card: MethodCard, recipe: Recipe[Any], name: str, tier: str, licence: str = "") -> dict[str, Any]:
    """``config.json``: what the recipe says, and what is the same for all.

    Raises
    ------
    PluginError : the recipe sets what is not its to say, or no ``architecture``.
    """
    said = recipe.checkpoint_config()
    foreign = sorted(OWN_FIELDS & set(said))
    if foreign or not isinstance(said.get("architecture"), Mapping):
        what = f"sets {', '.join(foreign)}" if foreign else "has no mapping 'architecture'"
        raise PluginError(f"{type(recipe).__name__}.checkpoint_config() {what}.")
    context = recipe.context
    return {
        "format": FORMAT,
        "method": card.name,
        "name": name,
        "tier": tier,
        **({"licence": licence} if licence else {}),
        "kind": "network",
        "scale": context.scale,
        "degradation": context.protocol.degradation.name,
        "channels": context.channels,
        "method_options": {},
        **said,
    }


def training_document(
    job: Job,
    recipe: Recipe[Any],
    stages: Sequence[Stage],
    planned: Sequence[Stage],
    used: Mapping[str, Sequence[Source]],
    selections: Sequence[Mapping[str, Any]],
    curve: Sequence[Mapping[str, Any]],
    seconds: float,
) -> dict[str, Any]:
    """``training.json``: what the weights came from, how they were chosen, and what may be said about them.

    Parameters
    ----------
    stages : those that are done; planned : all. used : the data sets of each stage, by its name.
    selections : one record for each stage that is done. seconds : spent, interruptions not counted.
    """
    sources = list({s.alias: s for stage in stages for s in used[stage.name]}.values())
    subjects, items = hashes_of(sources)
    val_subjects, val_items = hashes_of(sources, ("val",))
    origins = {part: (c.record.name, c.record.sha256, c.training) for part, c in recipe.draws_on().items()}
    if job.init:
        origins["init"] = (job.init.name, job.init.sha256, job.init.training)
    earlier = _stages_of(job.init.training) if job.init else []
    for _, _, seen in origins.values():  # whoever taught these weights
        subjects = sorted({*subjects, *(seen or {}).get("subjects", ())})
        items = sorted({*items, *(seen or {}).get("items", ())})
    return {
        "format": FORMAT,
        "method": job.card.name,
        "method_version": job.card.version,
        "seed": job.seed,
        "steps": sum(s.steps for s in stages),
        "preset": job.preset,
        "stages": [s.model_dump(mode="json") for s in stages],
        "options": _options(job.options),
        "earlier_stages": earlier,
        "factors": dict(recipe.factors([*earlier, *(s.name for s in stages)])),
        "protocol": {"name": job.protocol.name, "hash": job.protocol.hash, "rules": dict(job.protocol.rules)},
        "drawn_on": [
            {"part": part, "name": name, "sha256": sha256, "subjects_known": seen is not None}
            for part, (name, sha256, seen) in origins.items()
        ],
        "data": [s.record() for s in sources],
        "subjects": subjects,
        "items": items,
        "val_subjects": val_subjects,
        "val_items": val_items,
        "selection": dict(selections[-1]) if selections else {},
        "stage_selections": [dict(s) for s in selections[:-1]],
        "optimised_for": list(recipe.optimised_for()),
        "loss_curve": list(curve),
        "seconds": round(seconds, 1),
        "device": device_name(recipe.context.device),
        "threads": job.settings.threads,
        "versions": {"mrbench": mrbench.__version__, "accelerate": version("accelerate"), **package_versions()},
        "fingerprint": digest(fingerprint(job, planned)),
        "probe": {"name": "", "scores": {}},
    }


def model_card(card: MethodCard, config: Mapping[str, Any], training: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """``README.md``: the same for people."""
    count = sum(t.numel() for t in tensors.values() if t.is_floating_point())
    title = f"{card.name}: {config['name']}"
    lines = [f"# {title}", "", card.summary or card.name, ""]
    if config["tier"] == "demo":
        lines += ["Demonstration weights: small, quickly trained, to try things out. They rank nothing.", ""]
    scale = f"{config['scale']}x" if config.get("scale") else "any scale"
    lines += [
        "| | |",
        "|---|---|",
        f"| method | {card.name} (version {card.version}){': ' + card.paper if card.paper else ''} |",
        f"| task | {scale}, degradation {config.get('degradation') or 'any'}, {config.get('channels')} channel(s) |",
        f"| weights | {count:,} numbers ({config['kind']}) |",
        f"| training | preset {training['preset']}, {training['steps']:,} steps, seed {training['seed']}, "
        f"{_duration(training['seconds'])} on {training['device']} |",
        f"| licence of the weights | {config.get('licence') or 'not stated'} |",
        f"| protocol | {training['protocol']['name']} ({training['protocol']['hash']}) |",
        f"| made with | mrbench {training['versions']['mrbench']}, torch {training['versions']['torch']} |",
        "",
        "## Data",
        "",
        "| data set | train | validation | licence |",
        "|---|---|---|---|",
    ]
    for data in training["data"]:
        name = data["alias"] if data["alias"] == data["name"] else f"{data['alias']} ({data['name']})"
        lines.append(f"| {name} | {_part(data['train'])} | {_part(data['val'])} | {data['licence'] or 'not stated'} |")
    lines += ["", "`training.json` holds hashes of all subjects and slices: tests on any of them are refused.", ""]
    lines += _scores(training)
    lines += _probe(training)
    lines += ["## Use", "", f"    mrbench run --method {card.name}@DIR --dataset NAME{_protocol_flag(config, training)}", ""]
    lines += [f"`DIR` is this folder. The loss over the steps is in `training.json`, all of the log in `{LOG}`.", ""]
    return "\n".join(lines)


def _scores(training: Mapping[str, Any]) -> list[str]:
    selection = training["selection"]
    scores = {k: v for k, v in selection.get("scores", {}).items() if v is not None}
    if not scores:
        return []
    bicubic = selection["reference"].get("bicubic", {})
    count = len(selection["items"])
    where = ", ".join(selection["set"])
    lines = [
        "## Scores on validation slices",
        "",
        f"{count} slices of {where or 'the validation subjects'}; weights: {selection['reason']}"
        + (f", by {selection['metric']}" if selection["reason"].startswith("best") else "")
        + ". They were chosen on these slices, so this is no test.",
        "",
        "| metric | these weights | bicubic |",
        "|---|---|---|",
    ]
    goals = set(training["optimised_for"])
    for column, value in scores.items():
        if column.endswith("_fg") and column.removesuffix("_fg") in scores:
            continue
        mark = " (trained for it)" if column.partition("@")[0] in goals else ""
        lines.append(f"| {NAMES.get(column, column)}{mark} | {_number(value)} | {_number(bicubic.get(column))} |")
    return [*lines, ""]


def _probe(training: Mapping[str, Any]) -> list[str]:
    probe = training["probe"]
    if not probe["scores"]:
        return []
    goals = set(training["optimised_for"])
    lines = [f"## Probe: {probe['items']} items of {probe['name']}", "", "| metric | mean |", "|---|---|"]
    for column, value in probe["scores"].items():
        mark = " (trained for it)" if column.partition("@")[0].removesuffix("_fg") in goals else ""
        lines.append(f"| {NAMES.get(column, column)}{mark} | {_number(value)} |")
    return [*lines, ""]


def _stages_of(training: Mapping[str, Any] | None) -> list[str]:
    """Names of all stages that weights went through, as their ``training.json`` tells."""
    told = training or {}
    return [*told.get("earlier_stages", ()), *(s["name"] for s in told.get("stages", ()))]


def _options(options: RecipeOptions) -> dict[str, Any]:
    """Options without places on this machine: of those that name files, the last part."""
    said = options.model_dump(mode="json", exclude={"stages"})
    return {k: Path(v).name if k in options.path_options and isinstance(v, str) else v for k, v in said.items()}


def _part(count: Mapping[str, int]) -> str:
    return (
        f"{count['slices']} slices of {count['subjects']} subject{'' if count['subjects'] == 1 else 's'}"
        if count["slices"]
        else "none"
    )


def _number(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.4g}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _protocol_flag(config: Mapping[str, Any], training: Mapping[str, Any]) -> str:
    name = training["protocol"]["name"]
    if config.get("scale") and name == f"uniform-x{config['scale']}":
        return f" --scale {config['scale']}"
    return f" --protocol {name}"
