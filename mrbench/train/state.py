"""The state of an unfinished training on disk, and whether it belongs to what is asked for now."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mrbench.errors import UserError
from mrbench.store.files import write_atomic

FOLDER = "resume"
STATE = "state.pt"
BEST = "best.safetensors"
FORMAT = 1


def state_file(out: Path) -> Path:
    """Where the state of an unfinished training lies."""
    return out / FOLDER / STATE


def best_file(out: Path) -> Path:
    """Where the best weights of the present stage lie."""
    return out / FOLDER / BEST


def save_state(out: Path, state: Mapping[str, Any]) -> None:
    """Store the state, so that a kill at any moment leaves the old one or the new one."""
    document = {"format": FORMAT, **state}
    write_atomic(state_file(out), lambda stream: torch.save(document, stream))


def forget(out: Path) -> None:
    """Remove the state of a finished training."""
    shutil.rmtree(out / FOLDER, ignore_errors=True)


def load_state(out: Path) -> dict[str, Any] | None:
    """The stored state, or ``None``. Tensors, numbers and texts only: nothing in it is executed.

    Raises
    ------
    UserError : the file is damaged or of another version.
    """
    path = state_file(out)
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        format_ = state["format"]
    except Exception as error:  # unpicklers raise anything on damage
        raise UserError(
            f"{path}: is no training state ({type(error).__name__}: {error}). Delete {path.parent} to start anew."
        ) from error
    if format_ != FORMAT:
        raise UserError(
            f"{path}: has format {format_}, this version of mrbench writes {FORMAT}. Delete {path.parent} to start anew."
        )
    return state


def refuse_other(out: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse to resume with other settings than those that the training began with.

    Raises
    ------
    UserError : names each setting that differs.
    """
    changed = [
        f"{key}: {_short(stored.get(key))} then, {_short(wanted.get(key))} now"
        for key in dict.fromkeys([*stored, *wanted])
        if stored.get(key) != wanted.get(key)
    ]
    if changed:
        raise UserError(
            f"--resume {out}: this training began with other settings ({'; '.join(changed)}). "
            "Resume with the same ones, or train into another --out (with --init to begin from these weights)."
        )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
