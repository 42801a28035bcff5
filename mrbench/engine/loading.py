"""Loading an entry's method, and what a run says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mrbench.engine.costs import count_parameters
from mrbench.engine.entries import Entry
from mrbench.engine.folders import Conditions
from mrbench.engine.restorer import Restorer
from mrbench.errors import MrbenchError


@dataclass(frozen=True)
class Loaded:
    """What manifests say of a method that was loaded, and of where: the name of its device, and that device's surroundings."""

    nfe: int | None
    parameters: int | None
    kind: str  # cpu | cuda | mps
    device: str
    environment: dict[str, Any]


def load_method(entry: Entry, conditions: Conditions) -> tuple[Restorer | None, str]:
    """The method of an entry, ready in this process, or why it could not be loaded."""
    try:
        return Restorer(entry.card, entry.options, conditions.device, conditions.precision, entry.checkpoint), ""
    except Exception as error:
        if isinstance(error, MrbenchError):
            return None, str(error)
        return None, f"{entry.card.name} could not be loaded: {type(error).__name__}: {error}"


def parameters_of(restorer: Restorer | None) -> int | None:
    """For the manifest; a plugin's objects may raise anything, and a count is no reason to stop a run."""
    try:
        return count_parameters(restorer.implementation) if restorer is not None else None
    except Exception:
        return None
