"""Seconds per network call and per slice of the samplers, against a plain order of operations, side by side in one run.

    python benchmarks/sampling.py [--size 256] [--repeats 5] [--threads 2] [--wide] [--no-compile] [--json FILE]

``plain`` is the same network computed step by step: separate window attention with a materialised mask, NCHW, nothing fused
(``plain_order.py``). Times are medians; variants take turns, so that a busy machine disturbs all of them alike. ``difference`` is the
largest absolute one from ``plain`` at float32, PSNR that of whole restored slices of the data set ``sample``.
``--wide`` adds a network of the published width (random weights, one call only).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mrbench_methods.res_srdiff
import torch
from mrbench_methods.networks.swin_unet import SwinUNet
from mrbench_methods.networks.swin_unet_options import SwinUNetConfig
from mrbench_methods.res_srdiff.method import ResSRDiff
from plain_order import plain_swin
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from mrbench.data.items import SliceReader
from mrbench.degradation.measurement import Measurement, degrade
from mrbench.engine.entries import Settings, parse_dataset
from mrbench.engine.task import open_task
from mrbench.hub import find, resolve
from mrbench.plugins import discover
from mrbench.protocol import find_protocol
from mrbench.protocol import resolve as resolve_protocol


@dataclass(frozen=True)
class Variant:
    """One way to compute a network. ``precision``: of autocast."""

    name: str
    network: Callable[..., Tensor]
    precision: str = "fp32"

    def cast(self) -> Any:
        """The autocast context."""
        return torch.autocast("cpu", torch.bfloat16) if self.precision == "bf16" else nullcontext()


def variants(network: nn.Module, compiled: bool) -> list[Variant]:
    """The plain order first."""
    own = network.to(memory_format=torch.channels_last).eval()
    found = [
        Variant("plain fp32", plain_swin(network).eval()),
        Variant("fp32", own),
        Variant("bf16", own, "bf16"),
    ]
    if compiled:
        fast = torch.compile(own, dynamic=False)
        found += [Variant("fp32 compiled", fast), Variant("bf16 compiled", fast, "bf16")]
    return found


def call_times(ways: list[Variant], arguments: tuple[Tensor, ...], repeats: int) -> dict[str, dict[str, float]]:
    """Median seconds of a call and the largest difference from the first way."""
    outputs, seconds = {}, {way.name: [] for way in ways}
    with torch.inference_mode():
        for way in ways:
            with way.cast():
                outputs[way.name] = way.network(*arguments).float()
        for _ in range(repeats):
            for way in ways:
                begin = time.perf_counter()
                with way.cast():
                    way.network(*arguments)
                seconds[way.name].append(time.perf_counter() - begin)
    reference = outputs[ways[0].name]
    return {
        way.name: {
            "call_s": statistics.median(seconds[way.name]),
            "difference": float((outputs[way.name] - reference).abs().max()),
        }
        for way in ways
    }


def sample_slices(count: int) -> list[tuple[Tensor, Measurement]]:
    """Ground truths and measurements at 4x."""
    registry = discover()
    protocol = find_protocol("uniform-x4")
    task = open_task(parse_dataset("sample", Settings(), registry), protocol, registry)
    rules = resolve_protocol(protocol, registry)
    degradation = rules.degradation.load()(rules.degradation_options)
    reader = SliceReader()
    step = max(1, len(task.items) // count)
    found = []
    for item in list(task.items)[::step][:count]:
        hr = torch.from_numpy(reader.load(item).image)[None]
        found.append((hr, degrade(hr, [item.item_id], degradation, protocol.scales, seed_key=rules.hash)))
    return found


def slice_times(
    method: ResSRDiff, ways: list[Variant], slices: list[tuple[Tensor, Measurement]]
) -> dict[str, dict[str, float]]:
    """Median seconds of a restored slice, and its mean PSNR."""
    seconds, quality = {way.name: [] for way in ways}, {way.name: [] for way in ways}
    with torch.inference_mode():
        for hr, measurement in slices:
            for way in ways:
                method._model.unet = way.network
                with way.cast():
                    method.restore(measurement, 1)  # compiles, if it must
                    begin = time.perf_counter()
                    restored = method.restore(measurement, 1)
                seconds[way.name].append(time.perf_counter() - begin)
                error = (restored[:, 0].float().clamp(0, 1) - hr).square().mean()
                quality[way.name].append(float(-10 * torch.log10(error)))
    return {w.name: {"slice_s": statistics.median(seconds[w.name]), "psnr": statistics.fmean(quality[w.name])} for w in ways}


def show(title: str, found: dict[str, dict[str, float]]) -> None:
    """A table; ratios against the first row."""
    table = Table(title=title)
    columns = list(next(iter(found.values())))
    for name in ("variant", *columns, "faster (call)"):
        table.add_column(name, justify="right" if name != "variant" else "left")
    first = next(iter(found.values()))["call_s"]
    for name, values in found.items():
        table.add_row(name, *(f"{values[c]:.4g}" for c in columns), f"{first / values['call_s']:.2f}x")
    Console().print(table)


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--slices", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--wide", action="store_true")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)

    (card,) = mrbench_methods.res_srdiff.mrbench_methods()
    found = find(card, scale=4)
    assert found is not None
    method = ResSRDiff(card.parse({}))
    method.load(resolve(found.record, card.name), "cpu")
    ways = variants(method._model.unet, not asked.no_compile)
    x = torch.randn(1, 1, asked.size, asked.size)
    calls = call_times(ways, (x, torch.tensor([3]), torch.rand_like(x)), asked.repeats)
    slices = slice_times(method, ways, sample_slices(asked.slices))
    results = {"shipped res_srdiff": {name: {**calls[name], **slices[name]} for name in calls}}
    show(f"shipped res_srdiff, {asked.size}x{asked.size}, {asked.threads} threads", results["shipped res_srdiff"])
    if asked.wide:
        config = SwinUNetConfig(
            image_size=64, in_channels=1, out_channels=1, lq_channels=1, model_channels=160, channel_mult=(1, 2, 4, 8)[:3],
            num_res_blocks=(2, 2, 2), attention_resolutions=(64, 32, 16), swin_embed_dim=96, mlp_ratio=2.0, use_scale_shift_norm=False,
        )  # fmt: skip
        wide = SwinUNet(config)
        for p in wide.parameters():
            if not p.any():
                torch.nn.init.normal_(p, std=0.02)
        y = torch.randn(1, 1, 64, 64)
        results["width 160"] = call_times(variants(wide, not asked.no_compile), (y, torch.tensor([3]), y), asked.repeats)
        show("width 160, three levels, random weights, 64x64", results["width 160"])
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
