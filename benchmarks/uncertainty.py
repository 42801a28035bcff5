"""Speed of mrbench's metrics of several draws beside the pairwise form, torch.sort and scoringrules (if installed).

All implementations run interleaved in one process, several rounds, on the same draws; the number is the median of images per
second of CPU time (`time.process_time`), which other processes on the machine disturb less than wall time. Run with

    python benchmarks/uncertainty.py [--batch 4] [--draws 10] [--size 320] [--threads 1] [--repeats 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mrbench.metrics.uncertainty import ensembles
from mrbench.metrics.uncertainty_cards import uncertainty_cards

CARDS = {card.name: card for card in uncertainty_cards()}
THREE = ("crps", "nll", "coverage")
Evaluation = Callable[[], Tensor]  # [B], or [B, levels]


def draws_of(batch: int, k: int, size: int) -> tuple[Tensor, Tensor]:
    """Blobs on black with noise that grows with the intensity: draws ``[B, K, 1, H, W]`` and ground truth ``[B, 1, H, W]``."""
    generator = torch.Generator().manual_seed(0)
    smooth = F.avg_pool2d(F.avg_pool2d(torch.randn(batch, 1, size, size, generator=generator), 15, 1, 7), 9, 1, 4)
    centre = (smooth / smooth.std() / 3).clamp(0, 1)
    noise = torch.randn(batch, k + 1, 1, size, size, generator=generator)
    x = (centre[:, None] * (1 + 0.1 * noise)).clamp(0, 1)
    return x[:, 1:].contiguous(), x[:, 0].contiguous()


def ours(names: tuple[str, ...], x: Tensor, y: Tensor) -> Tensor:
    """The first column of each metric, through the same calls as a run: ``[B, len(names)]``."""
    metrics = [CARDS[n].load()(CARDS[n].parse({})) for n in names]
    rows = []
    for some in ensembles(x, y, None):
        rows.append(torch.stack([next(iter(m(some).values())) for m in metrics], 1))
    return torch.cat(rows)


def pairwise(x: Tensor, y: Tensor) -> Tensor:
    """Fair CRPS from all K x K differences."""
    k = x.shape[1]
    values = []
    for draws, truth in zip(x[:, :, 0], y[:, 0], strict=True):
        spread = (draws[:, None] - draws[None]).abs().sum((0, 1)) / (2 * k * (k - 1))
        values.append(((draws - truth).abs().mean(0) - spread).double().mean())
    return torch.stack(values)


def torch_sorted(x: Tensor, y: Tensor) -> Tensor:
    """Fair CRPS from `torch.sort`."""
    k = x.shape[1]
    weights = (2.0 * torch.arange(1, k + 1) - k - 1).view(k, 1, 1)
    values = []
    for draws, truth in zip(x[:, :, 0], y[:, 0], strict=True):
        spread = (weights * draws.sort(0).values).sum(0) / (k * (k - 1))
        values.append(((draws - truth).abs().mean(0) - spread).double().mean())
    return torch.stack(values)


def plain_nll(x: Tensor, y: Tensor) -> Tensor:
    """Histogram NLL from 256 indicator comparisons at once, as one writes it down."""
    bins = [(255.999 * t).long() for t in (x[:, :, 0], y[:, 0])]
    p = (bins[0] == bins[1][:, None]).double().mean(1)
    return -p.clamp_min(1e-12).log().mean((1, 2))


def plain_coverage(x: Tensor, y: Tensor) -> Tensor:
    """Coverage at 50, 80 and 90 % from `torch.quantile` (linear)."""
    values = []
    for draws, truth in zip(x[:, :, 0], y[:, 0], strict=True):
        low = torch.quantile(draws, torch.tensor([0.25, 0.1, 0.05]), 0)
        high = torch.quantile(draws, torch.tensor([0.75, 0.9, 0.95]), 0)
        values.append(((low <= truth) & (truth <= high)).double().mean((1, 2)))
    return torch.stack(values)


def through_scoringrules(x: Tensor, y: Tensor) -> Tensor:
    """Fair CRPS of scoringrules, or an ``ImportError``."""
    library: Any = importlib.import_module("scoringrules")
    maps = library.crps_ensemble(y[:, 0].numpy(), x[:, :, 0].numpy(), m_axis=1, estimator="fair")
    return torch.from_numpy(np.asarray(maps, dtype=np.float64).mean((1, 2)))


def interleaved(work: Mapping[str, Evaluation], repeats: int) -> dict[str, float]:
    """Median CPU seconds of each piece of work, in a random order each round, after one to warm up."""
    times: dict[str, list[float]] = {key: [] for key in work}
    order, chance = list(work), random.Random(0)
    for round_ in range(repeats + 1):
        chance.shuffle(order)
        for key in order:
            start = time.process_time()
            work[key]()
            if round_:
                times[key].append(time.process_time() - start)
    return {key: statistics.median(t) for key, t in times.items()}


def compare(batch: int, k: int, size: int, repeats: int) -> dict[str, Any]:
    """All rates, and how far the CRPS of each implementation is from the one in float64."""
    x, y = draws_of(batch, k, size)
    work: dict[str, Evaluation] = {
        "crps: mrbench": partial(ours, ("crps",), x, y),
        "crps: pairwise K x K": partial(pairwise, x, y),
        "crps: torch.sort": partial(torch_sorted, x, y),
        "nll: mrbench": partial(ours, ("nll",), x, y),
        "nll: plain torch": partial(plain_nll, x, y),
        "coverage: mrbench": partial(ours, ("coverage",), x, y),
        "coverage: torch.quantile": partial(plain_coverage, x, y),
        "crps + nll + coverage: mrbench": partial(ours, THREE, x, y),
        **{f"{name}: mrbench": partial(ours, (name,), x, y) for name in CARDS if name not in THREE},
        f"all {len(CARDS)}: mrbench": partial(ours, tuple(CARDS), x, y),
    }
    missing = []
    try:
        through_scoringrules(x[:1], y[:1])
        work["crps: scoringrules"] = partial(through_scoringrules, x, y)
    except ImportError:
        missing.append("scoringrules is not installed")
    seconds = interleaved(work, repeats)
    exact = ours(("crps",), x.double(), y.double())[:, 0]
    return {
        "images_per_cpu_second": {key: batch / s for key, s in seconds.items()},
        "crps_over_pairwise": seconds["crps: pairwise K x K"] / seconds["crps: mrbench"],
        "largest_difference_to_float64": {
            key: float((evaluation().flatten() - exact).abs().max())
            for key, evaluation in work.items()
            if key.startswith("crps: ")
        },
        "left_out": missing,
    }


def main() -> None:
    """Measure, print a table, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with torch.inference_mode():
        found = compare(given.batch, given.draws, given.size, given.repeats)
    print(
        f"{given.batch} images of {given.size}x{given.size}, K = {given.draws}, {given.threads} thread(s); images per CPU second"
    )
    for key, rate in found["images_per_cpu_second"].items():
        gap = found["largest_difference_to_float64"].get(key)
        print(f"  {key:34s} {rate:9.1f}" + ("" if gap is None else f"   CRPS off by {gap:.1e}"))
    print(f"  CRPS over the pairwise form: {found['crps_over_pairwise']:.1f}x")
    print("".join(f"  {line}\n" for line in found["left_out"]), end="")
    if given.json is not None:
        settings = {k: v for k, v in vars(given).items() if k != "json"}
        machine = {"processor": platform.processor() or platform.machine(), "torch": torch.__version__}
        given.json.write_text(json.dumps({"settings": settings, "machine": machine, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
