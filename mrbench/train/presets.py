"""Presets: YAML files with a recipe's options, and the changes that a call makes to them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mrbench.errors import PluginError, UserError
from mrbench.plugins import did_you_mean
from mrbench.train.recipe import Recipe
from mrbench.train.settings import RecipeOptions, Stage

USUAL = ("demo", "small", "matched", "paper")


def preset_document(recipe: type[Recipe[Any]], method: str, name: str) -> dict[str, Any]:
    """The text of a preset as YAML reads it.

    Raises
    ------
    UserError : no such preset (with those that exist). PluginError : the file is no YAML mapping.
    """
    known = recipe.presets()
    if name not in known:
        listing = ", ".join(sorted(known, key=_order)) or "none"
        raise UserError(f"method {method} has no preset {name!r}.{did_you_mean(name, known)} Its presets: {listing}.")
    try:
        document = yaml.safe_load(known[name].read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PluginError(f"preset {known[name]}: cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise PluginError(f"preset {known[name]}: expected a mapping of options, got {type(document).__name__}.")
    return document


def read_options(
    recipe: type[Recipe[Any]], method: str, preset: str, changes: Mapping[str, Any], source: str = ""
) -> RecipeOptions:
    """A preset with changes, validated.

    Parameters
    ----------
    changes : dotted keys and values: ``{"width": 32, "network.depth": 2, "stages.main.batch": 8}``. A list is entered by the
        position or the ``name`` of an element.
    source : named in errors (default: the preset).

    Raises
    ------
    UserError : an unknown preset, an unknown key or a bad value.
    """
    document = copy.deepcopy(preset_document(recipe, method, preset))
    for key, value in changes.items():
        _change(document, key, value, method)
    try:
        return recipe.options_model.model_validate(document)
    except ValidationError as error:
        lines = []
        for e in error.errors():
            where = ".".join(map(str, e["loc"])) or "options"
            if e["type"] == "extra_forbidden":
                near = did_you_mean(str(e["loc"][-1]), recipe.options_model.model_fields) if len(e["loc"]) == 1 else ""
                lines.append(f"unknown option {where!r}.{near}")
            else:
                lines.append(f"{where}: {e['msg']} (got {e['input']!r})")
        known = ", ".join(recipe.options_model.model_fields)
        what = source or f"preset {preset} of method {method}"
        raise UserError(f"{what}: {'; '.join(lines)} Options of the recipe: {known}.") from None


def _change(document: Any, key: str, value: Any, method: str) -> None:
    *path, last = key.split(".")
    place = document
    for depth, part in enumerate(path):
        index = _index(place, part)
        if isinstance(place, dict) and index not in place:
            place[index] = {}
        try:
            place = place[index]
        except (LookupError, TypeError):
            raise UserError(
                f"--set {method}.{key}: there is no {'.'.join(path[: depth + 1])!r} in the options of the recipe."
            ) from None
    index = _index(place, last)
    if not isinstance(place, (dict, list)) or (isinstance(place, list) and not isinstance(index, int)):
        raise UserError(f"--set {method}.{key}: {'.'.join(path)!r} holds no options.")
    if isinstance(place, list) and not 0 <= index < len(place):
        raise UserError(f"--set {method}.{key}: the list has {len(place)} elements, counted from 0.")
    place[index] = value


def _index(place: Any, part: str) -> Any:
    if not isinstance(place, list):
        return part
    named = [i for i, element in enumerate(place) if isinstance(element, dict) and element.get("name", "main") == part]
    if named:
        return named[0]
    return int(part) if part.isdigit() else part


def choose_stages(stages: Sequence[Stage], names: Sequence[str] | None, steps: int | None) -> list[Stage]:
    """The stages that are carried out: those named (in their own order), with ``steps`` in all shared out in proportion.

    Raises
    ------
    UserError : an unknown stage, or fewer steps than stages.
    """
    chosen = list(stages)
    if names is not None:
        known = [s.name for s in stages]
        unknown = [n for n in names if n not in known]
        if unknown:
            raise UserError(f"--stages: no stage named {', '.join(map(repr, unknown))}. Stages: {', '.join(known)}.")
        chosen = [s for s in stages if s.name in names]
    if steps is None:
        return chosen
    if steps < len(chosen):
        raise UserError(f"--steps {steps}: fewer than one step for each of the {len(chosen)} stages.")
    shares = share_out(steps, [s.steps for s in chosen])
    return [stage.with_steps(share) for stage, share in zip(chosen, shares, strict=True)]


def share_out(total: int, weights: Sequence[int]) -> list[int]:
    """``total`` in proportion to ``weights``, at least 1 each; rounded so that the sum is exact."""
    spare, whole = total - len(weights), sum(weights)
    exact = [spare * w / whole for w in weights]
    shares = [int(x) for x in exact]
    by_rest = sorted(range(len(weights)), key=lambda i: (shares[i] - exact[i], i))
    for i in by_rest[: spare - sum(shares)]:
        shares[i] += 1
    return [1 + share for share in shares]


def _order(name: str) -> tuple[int, str]:
    return (USUAL.index(name), name) if name in USUAL else (len(USUAL), name)


def list_presets(recipe: type[Recipe[Any]], method: str) -> list[tuple[str, str]]:
    """Names and summaries of the presets that exist, the usual ones first."""
    names = sorted(recipe.presets(), key=_order)
    return [(name, str(preset_document(recipe, method, name).get("summary", ""))) for name in names]


def describe_presets(recipe: type[Recipe[Any]], method: str) -> str:
    """The presets as one line of an error message."""
    found = list_presets(recipe, method)
    if not found:
        folder = Path(recipe.preset_folder)
        return f"its recipe has no presets (expected YAML files in {folder} beside its module)"
    return "; ".join(f"{name}: {summary}" if summary else name for name, summary in found)
