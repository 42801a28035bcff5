"""The "architecture" of a checkpoint's ``config.json``: configurations of networks by name, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mrbench.cards import Options, parse_options
from mrbench.errors import UserError
from mrbench.hub.checkpoint import LocalCheckpoint


def parts_of(
    checkpoint: LocalCheckpoint, method: str, models: Mapping[str, type[Options]], required: str
) -> dict[str, Any] | None:
    """Every part of ``models`` that the checkpoint describes, parsed; ``None`` where it has no ``config.json`` (published files).

    Raises
    ------
    UserError : the weights belong to another method, or the architecture has unknown parts or values or lacks ``required``.
    """
    what = str(checkpoint.file)
    owner = checkpoint.config.get("method", method)
    if owner != method:
        raise UserError(f"{what} holds weights of {owner}, not of {method}. Use --method {owner}@..., or name another file.")
    parts: Mapping[str, Any] = checkpoint.config.get("architecture") or {}
    if not parts:
        return None
    unknown = sorted(set(parts) - set(models))
    if unknown or required not in parts:
        problem = f"unknown parts {', '.join(unknown)}" if unknown else f"no part {required}"
        raise UserError(f'{what}: the "architecture" of its config.json has {problem}. Known: {", ".join(models)}.')
    return {
        name: parse_options(model, parts[name], f'{what}: "architecture.{name}" of config.json')
        for name, model in models.items()
        if parts.get(name) is not None
    }
