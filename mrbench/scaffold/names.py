"""From the name of a card to all the names that a plugin needs."""

from __future__ import annotations

import keyword
import os
import re
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib.machinery import PathFinder
from itertools import count
from typing import Any, Literal, get_args

from mrbench.errors import UserError
from mrbench.plugins import Registry, Shelf

Kind = Literal["method", "dataset", "metric"]
KINDS: tuple[Kind, ...] = get_args(Kind)
WORDS: dict[Kind, str] = {"method": "method", "dataset": "data set", "metric": "metric"}

LONGEST = 60  # characters of a name: it becomes file names, folder names and column names
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
_FOREGROUND = "_fg"  # ends the foreground column of a metric
_RESERVED = {"metric"}  # --set metric.NAME.KEY is an option of a metric


@dataclass(frozen=True)
class Names:
    """``name``: of the card. ``plugin``: of the plugin (the file's stem, the entry point). ``package``: import name of a package.

    ``distribution``: what pip calls it. ``cls``: of the implementation. All but ``name`` are legal identifiers, or parts of such,
    whatever ``name`` is (a keyword, one with dashes, one that begins with a digit), and taken by nobody here.
    """

    kind: Kind
    name: str
    plugin: str
    package: str
    distribution: str
    cls: str


def choose_names(kind: Kind, name: str, registry: Registry, more_taken: Collection[str] = ()) -> Names:
    """The names of a new plugin.

    Parameters
    ----------
    more_taken : names that cannot be used besides those of the registry's cards of this kind.

    Raises
    ------
    UserError : the name is not legal or taken; with names that are neither.
    """
    word = WORDS[kind]
    shelves: dict[Kind, Shelf[Any]] = {"method": registry.methods, "dataset": registry.datasets, "metric": registry.metrics}
    shelf = shelves[kind]
    taken = {*shelf.names(), *more_taken}
    if problem := _problem(kind, name):
        raise UserError(f"{name!r} cannot be the name of a {word}: {problem}. {_suggestions(kind, name, taken)}")
    if name in taken:
        owner = f"the plugin {shelf.owner(name)} brings it" if name in shelf.names() else "it is in use"
        raise UserError(f"there is a {word} named {name!r} already: {owner}. {_suggestions(kind, name, taken)}")
    stem = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    plugins = {p.name for p in registry.plugins}
    package = next(n for n in _candidates(f"mrbench_{stem}", kind) if not _importable(n))
    camel = "".join(part.capitalize() for part in stem.split("_"))
    return Names(
        kind=kind,
        name=name,
        plugin=next(n for n in _candidates(stem, kind) if n not in plugins and not _importable(n)),
        package=package,
        distribution=package.replace("_", "-"),
        cls=kind.capitalize() + camel if camel[0].isdigit() else camel + kind.capitalize(),
    )


def _problem(kind: Kind, name: str) -> str:
    """Why no card of this kind may have the name, or the empty string."""
    if not _NAME.fullmatch(name):
        return "names start with a letter or digit and hold letters, digits and _ . + -"
    if len(name) > LONGEST:
        return f"it has {len(name)} characters, more than {LONGEST}"
    if kind != "metric" and name in _RESERVED:
        return f"--set {name}.NAME.KEY is an option of a metric"
    if kind == "metric" and name.endswith(_FOREGROUND):
        return f"{_FOREGROUND!r} ends the name of a metric's foreground column"
    return ""


def _suggestions(kind: Kind, name: str, taken: Collection[str]) -> str:
    plain = re.sub(r"[^A-Za-z0-9_.+-]+", "_", name).strip("_.+-")[: LONGEST - 8].rstrip("_.+-") or f"my_{kind}"
    if kind == "metric":
        plain = plain.removesuffix(_FOREGROUND) or "my_metric"
    found = [
        n for n in (plain, f"my_{plain}", *(f"{plain}_{k}" for k in range(2, 100))) if n not in taken and not _problem(kind, n)
    ]
    return f"Choose another name, for example {' or '.join(found[:2])}."


def _candidates(stem: str, kind: Kind) -> Iterator[str]:
    """Identifiers made of a stem, the plainest first."""
    for n in (stem, f"{stem}_{kind}", f"{kind}_{stem}", *(f"{kind}_{stem}_{k}" for k in range(2, 10))):
        if n.isidentifier() and not keyword.iskeyword(n) and not keyword.issoftkeyword(n):
            yield n
    yield from (f"{kind}_{stem}_{k}" for k in count(10))


def _importable(module: str) -> bool:
    """Whether a top-level module of this name is installed: a file that hides it would break whoever imports it.

    The current folder does not count: what lies there is looked at when it is written.
    """
    here = os.path.abspath(".")
    places = [p for p in sys.path if p and os.path.abspath(p) != here]
    return module in sys.stdlib_module_names or module in sys.modules or PathFinder.find_spec(module, places) is not None
