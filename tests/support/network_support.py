"""For tests of methods with networks: checkpoint folders, measurements, conformance, and trainings through the command."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from tests_support import Done, write_plugin
from torch import Tensor

from mrbench.cards import MethodCard
from mrbench.degradation.measurement import Measurement, degrade
from mrbench.engine.conformance import CheckResult, check_method, conforms
from mrbench.engine.probe import phantom
from mrbench.hub import LocalCheckpoint, read_folder
from mrbench.plugins import Registry, discover

CPU = torch.device("cpu")


def write_checkpoint(
    folder: Path,
    method: str,
    tensors: Mapping[str, Tensor],
    architecture: Mapping[str, Any],
    options: Mapping[str, Any],
    **config: Any,
) -> LocalCheckpoint:
    """A checkpoint folder with these tensors."""
    folder.mkdir(parents=True)
    save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, folder / "model.safetensors")
    document = {
        "format": 1, "method": method, "name": folder.name, "tier": "demo", "kind": "network", "scale": None, "degradation": "",
        "channels": 1, "architecture": architecture, "method_options": options, **config,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(document))
    return read_folder(folder)


def measured(
    registry: Registry,
    size: tuple[int, int],
    scale: float = 4,
    items: int = 2,
    channels: int = 1,
    degradation: str = "bicubic_aa",
) -> Measurement:
    """Phantoms, measured."""
    card = registry.degradations.get(degradation)
    hr = torch.stack([phantom("ab"[i % 2], i // 2, size, channels) for i in range(items)])
    return degrade(hr, [f"d/{i}/v/0" for i in range(items)], card.load()(card.parse({})), (scale, scale), seed_key="test")


def loaded(card: MethodCard, checkpoint: LocalCheckpoint | None, **options: Any) -> Any:
    """The method with these weights."""
    method = card.load()(card.parse(options))
    method.load(checkpoint, CPU)
    return method


def conformance(card: MethodCard, checkpoint: LocalCheckpoint, scales: tuple[int, ...] | None = None) -> list[CheckResult]:
    """Results of the suite that are no pass; ``scales``: those that the weights are for."""
    base: Any = card.load()

    class Loaded(base):  # type: ignore[misc]
        def load(self, _: object, device: torch.device) -> None:
            super().load(checkpoint, device)

    results = check_method(replace(card, implementation=Loaded, checkpoints=(), scales=scales or card.scales), discover())
    assert results
    return [] if conforms(results) else [r for r in results if r.status not in ("pass", "skip")]


@torch.inference_mode()
def restored(method: Any, measurement: Measurement, draws: int = 1) -> Tensor:
    """The method's images, checked for their shape."""
    images: Tensor = method.restore(measurement, draws)
    assert images.shape == (len(measurement.ids), draws, measurement.y.shape[1], *measurement.size)
    assert bool(torch.isfinite(images).all())
    return images


def restored_image(method: Any, measurement: Measurement, draws: int = 1) -> Tensor:
    """As ``restored``, checked to be in [0, 1] as well, for methods that promise it."""
    images = restored(method, measurement, draws)
    assert 0 <= float(images.min()) <= float(images.max()) <= 1
    return images


def write_images(folder: Path, size: tuple[int, int] = (48, 56)) -> Path:
    """Three subjects, two of them to train on."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: size[0], : size[1]]
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "subject", "volume", "slice_index", "split"])
        for subject, split in (("ann", "train"), ("bob", "train"), ("cem", "val")):
            disc = 120.0 * (((y - size[0] / 2) / (0.46 * size[0])) ** 2 + ((x - size[1] / 2) / (0.46 * size[1])) ** 2 < 1)
            image = disc * (1 + 0.5 * np.sin(x / rng.uniform(2, 5)) * np.cos(y / rng.uniform(2, 5)))
            Image.fromarray(image.astype(np.uint8)).save(folder / f"{subject}.png")
            writer.writerow([f"{subject}.png", subject, f"{subject}_v", 0, split])
    return folder


def train_tiny(
    mrbench: Callable[..., Done], method: str, images: Path, out: Path, changes: Mapping[str, Any], *arguments: object,
    preset: str = "demo", scale: int = 2, steps: int = 3, patch: int = 32, stage: str = "main",
) -> Done:  # fmt: skip
    """``mrbench train METHOD`` with few steps on small patches; ``changes`` are options of the recipe."""
    if method not in discover().methods.names():
        out.parent.mkdir(parents=True, exist_ok=True)
        plugin = write_plugin(out.parent, f"{method}_plugin", f"from mrbench_methods.{method} import mrbench_methods")
        arguments = ("--plugin", plugin, *arguments)
    small = {"steps": steps, "batch": 2, "patch": patch, "min_foreground": 0.0, "precision": "fp32", "accumulate": 1,
             "validation.every": 0, "validation.items": 1}  # fmt: skip
    whole = {f"stages.{stage}.{k}": v for k, v in small.items()} | dict(changes)
    given = [part for k, v in whole.items() for part in ("--set", f"{method}.{k}={json.dumps(v)}")]
    return mrbench(
        "train", method, "--preset", preset, "--scale", scale, "--device", "cpu", "--threads", 1, "--dataset", "faces=folder",
        "--set", f"faces.path={images}", "--out", out, *given, *arguments,
    )  # fmt: skip
