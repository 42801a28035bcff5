"""Columns of ablations: what the weights of each run say about how they were trained, as ticks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mrbench.errors import UserError
from mrbench.report.text import clean, shorten

if TYPE_CHECKING:
    from mrbench.store.runs import RunData

Factors = Mapping[str, "bool | str"]
_LONGEST = 24
_NOT_A_FACTOR = ("summary", "tier")  # of a preset's options


def factors_of(runs: Sequence[RunData]) -> tuple[tuple[str, ...], list[dict[str, bool | str]]]:
    """Headings, and per run what stands under them; a run whose weights say nothing has none.

    Where the recipe of the weights names its factors, these are the headings. Of other weights all that differs between the runs is
    shown: stages of the training, and options (a switch is a tick, anything else its value).

    Raises
    ------
    UserError : no run knows how its weights were trained, or nothing differs.
    """
    recipes = [r.manifest.method.recipe for r in runs]
    if not any(recipes):
        raise UserError(
            "none of these runs says how its weights were trained, so there are no columns of ablations. Weights made by `mrbench train` "
            "do (--ablation all trains the ablations of a recipe); runs made by an older mrbench learn it when the same `mrbench run` is "
            "called again."
        )
    named = [_named(r) for r in recipes]
    found = named if any(named) else _differing(recipes)
    headings = tuple(dict.fromkeys(h for f in found for h in f))
    if not headings:
        raise UserError(
            "the weights of these runs were trained alike (same stages, same options), so there is no column of ablations."
        )
    return headings, found


def _named(recipe: Mapping[str, Any] | None) -> dict[str, bool | str]:
    factors = (recipe or {}).get("factors")
    if not isinstance(factors, Mapping):
        return {}
    return {clean(name): _value(value) for name, value in factors.items()}


def _differing(recipes: Sequence[Mapping[str, Any] | None]) -> list[dict[str, bool | str]]:
    known = [r for r in recipes if r is not None]
    stages = list(dict.fromkeys(s for r in known for s in r.get("stages", ())))
    stages = [s for s in stages if not all(s in r.get("stages", ()) for r in known)]
    options = [dict(_flat(r.get("options", {}), "")) for r in known]
    names = list(dict.fromkeys(n for o in options for n in o if n not in _NOT_A_FACTOR))
    names = [n for n in names if len({repr(o.get(n)) for o in options}) > 1]
    return [
        {}
        if r is None
        else {
            **{clean(s): s in r.get("stages", ()) for s in stages},
            **{clean(n): _value(o[n]) for n in names if n in (o := dict(_flat(r.get("options", {}), "")))},
        }
        for r in recipes
    ]


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Options by dotted names."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}".lstrip("."))
    else:
        yield path, value


def _value(value: Any) -> bool | str:
    if isinstance(value, bool):
        return value
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return shorten(clean(text), _LONGEST) or "none"


def ticks(factors: Factors) -> int:
    """How many there are."""
    return sum(value is True for value in factors.values())
