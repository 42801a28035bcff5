"""Checkpoint folders: what training leaves, and what it can begin from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from mrbench.cards import Checkpoint, MethodCard
from mrbench.errors import UserError
from mrbench.hub.checkpoint import LocalCheckpoint
from mrbench.hub.finding import find
from mrbench.hub.places import CARD, CONFIG, TRAINING, WEIGHTS
from mrbench.hub.resolving import resolve
from mrbench.plugins import Registry
from mrbench.store.files import write_atomic, write_json, write_text


@dataclass(frozen=True)
class LiveCheckpoint(LocalCheckpoint):
    """Weights in memory, as a method's ``load`` gets stored ones. ``file``: where they will be stored; nothing is there yet."""

    weights: Mapping[str, Tensor] = field(default_factory=dict)

    def contents(self, device: str | torch.device = "cpu") -> dict[str, Tensor]:
        """The weights on a device; copies, so that a method may do with them what it likes."""
        return {k: v.to(device, copy=True) for k, v in self.weights.items()}


@dataclass(frozen=True)
class InitialWeights:
    """Weights to begin from. ``sha256`` of their file; ``training``: their ``training.json``, if they have one."""

    name: str
    sha256: str
    tensors: Mapping[str, Tensor]
    training: Mapping[str, Any] | None = None


def live_checkpoint(out: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> LiveCheckpoint:
    """The weights with this ``config.json`` as a checkpoint in memory."""
    record = Checkpoint(
        name=str(config["name"]),
        file=WEIGHTS,
        sha256="",
        tier=config["tier"],
        scale=config["scale"],
        degradation=config["degradation"],
        channels=config["channels"],
        kind=config["kind"],
    )
    return LiveCheckpoint(record, out / WEIGHTS, config, None, weights)


def initial_weights(card: MethodCard, text: str) -> InitialWeights:
    """The weights that ``--init`` names: a checkpoint's name, a checkpoint folder or weights file, or ``hf://...``.

    Raises
    ------
    UserError : no such checkpoint, one of another method, or a damaged file.
    """
    found = find(card, text)
    if found is None:
        raise UserError(f"--init {text}: method {card.name} has no weights.")
    local = resolve(found.record, card.name)
    return InitialWeights(found.record.name, found.record.sha256, local.tensors(), local.training)


def open_checkpoint(registry: Registry, text: str, scale: float) -> LocalCheckpoint:
    """The weights that ``METHOD`` or ``METHOD@CHECKPOINT`` names: a teacher, an autoencoder ...

    Raises
    ------
    UserError : no such method or checkpoint, or a damaged file.
    """
    method, _, name = text.partition("@")
    card = registry.methods.get(method)
    found = find(card, name, scale)
    if found is None:
        raise UserError(f"{text}: method {method} has no weights.")
    return resolve(found.record, method)


def write_weights(file: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors as safetensors, atomically; returns the SHA-256 of the file."""
    content = save({k: v.detach().to("cpu").contiguous().clone() for k, v in tensors.items()}, {"format": "pt"})

    def write(stream: Any) -> None:
        stream.write(content)

    write_atomic(file, write)
    return hashlib.sha256(content).hexdigest()


def read_weights(file: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file (``UserError`` if it is none)."""
    try:
        tensors: dict[str, Tensor] = load_file(file)
    except Exception as error:  # the reader raises its own type for every kind of damage
        raise UserError(f"{file}: is not a complete safetensors file ({error}).") from error
    return tensors


def write_checkpoint(
    folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any], training: Mapping[str, Any], card: str
) -> dict[str, Any]:
    """Write a checkpoint folder, ``training.json`` last: where it is, the folder is complete. Returns what it holds."""
    document = {**training, "sha256": write_weights(folder / WEIGHTS, tensors)}
    write_json(folder / CONFIG, dict(config))
    write_text(folder / CARD, card)
    write_json(folder / TRAINING, document)
    return document
