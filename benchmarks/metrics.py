"""Speed of mrbench's image metrics beside piq, torchmetrics, scikit-image and lpips, at equal values.

All implementations run interleaved in one process, several rounds; the number is the median of images per second of CPU time
(`time.process_time`), which other processes on the machine disturb less than wall time. Run with

    python benchmarks/metrics.py [--batch 64] [--size 320] [--threads 1] [--repeats 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lpips
import numpy as np
import piq
import skimage.metrics
import torch
import torchmetrics.functional.image as tm
from torch import Tensor
from torch.nn import functional as F

from mrbench.metrics.cards import cards
from mrbench.metrics.lpips_network import BACKBONES, LpipsNetwork, blank_layers
from mrbench.metrics.lpips_weights import SQUEEZE_FILE, load_network, packaged_heads

CPU = torch.device("cpu")
FOUR = ("psnr", "ssim", "gmsd", "nmse")
CARDS = {card.name: card for card in cards()}
Evaluation = Callable[[], Any]  # values of all images


def images(batch: int, size: int) -> tuple[Tensor, Tensor]:
    """Bright blobs on black, and the same blurred, noisy and clipped: ``[batch, 1, size, size]`` each."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, batch, 1, size, size, generator=generator)
    smooth = F.avg_pool2d(F.avg_pool2d(noise[0], 15, 1, 7), 9, 1, 4)
    truth = (smooth / smooth.std() / 3).clamp(0, 1)
    return truth, (F.avg_pool2d(truth, 5, 1, 2) + 0.03 * noise[1]).clamp(0, 1)


def loaded(name: str, compile: bool = False, **more: Any) -> Any:
    """A metric of mrbench, ready to use."""
    card = CARDS[name]
    metric = card.load()(card.parse({}), **more)
    metric.prepare(CPU, compile)
    return metric


def ours(x: Tensor, y: Tensor, compile: bool) -> dict[str, Evaluation]:
    """The four metrics of mrbench, the ground truth's share included."""

    def evaluate(metric: Any) -> Tensor:
        values: Tensor = metric(y, metric.reference(x, None))[""]
        return values

    return {name: partial(evaluate, loaded(name, compile)) for name in FOUR}


def through_piq(x: Tensor, y: Tensor) -> dict[str, Evaluation]:
    """piq with mrbench's conventions; NMSE, which it lacks, in plain torch."""
    return {
        "psnr": lambda: piq.psnr(y, x, reduction="none"),
        "ssim": lambda: piq.ssim(y, x, downsample=False, reduction="none"),
        "gmsd": lambda: piq.gmsd(y, x, reduction="none"),
        "nmse": lambda: (y - x).square().sum((1, 2, 3)) / x.square().sum((1, 2, 3)),
    }


def one_by_one(x: Tensor, y: Tensor) -> dict[str, Evaluation]:
    """piq, called for each image alone."""
    single = [through_piq(x[i : i + 1], y[i : i + 1]) for i in range(len(x))]

    def evaluate(name: str) -> Tensor:
        return torch.cat([image[name]() for image in single])

    return {name: partial(evaluate, name) for name in FOUR}


def through_torchmetrics(x: Tensor, y: Tensor) -> dict[str, Evaluation]:
    """torchmetrics; its SSIM counts windows across the border, so its values are others."""
    return {
        "psnr": lambda: tm.peak_signal_noise_ratio(y, x, data_range=1.0, dim=(1, 2, 3), reduction="none"),
        "ssim": lambda: tm.structural_similarity_index_measure(y, x, data_range=1.0, reduction="none"),
    }


def through_skimage(x: Tensor, y: Tensor) -> dict[str, Evaluation]:
    """scikit-image, image by image."""
    pairs = list(zip(x[:, 0].numpy(), y[:, 0].numpy(), strict=True))
    gauss = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    sk: Any = skimage.metrics
    return {
        "psnr": lambda: np.array([sk.peak_signal_noise_ratio(a, b, data_range=1.0) for a, b in pairs]),
        "ssim": lambda: np.array([sk.structural_similarity(a, b, **gauss) for a, b in pairs]),
        "nmse": lambda: np.array([sk.normalized_root_mse(a, b) ** 2 for a, b in pairs]),
    }


def interleaved(work: Mapping[Any, Evaluation], repeats: int) -> dict[Any, float]:
    """Median CPU seconds of each piece of work, in a random order each round, after one to warm up."""
    times: dict[Any, list[float]] = {key: [] for key in work}
    order, chance = list(work), random.Random(0)
    for round_ in range(repeats + 1):
        chance.shuffle(order)  # nobody always follows the same neighbour
        for key in order:
            start = time.process_time()
            work[key]()
            if round_:
                times[key].append(time.process_time() - start)
    return {key: statistics.median(t) for key, t in times.items()}


def compare_fidelity(batch: int, size: int, repeats: int) -> dict[str, Any]:
    """PSNR, SSIM, GMSD and NMSE of all implementations."""
    x, y = images(batch, size)
    start = time.perf_counter()
    compiled = ours(x, y, compile=True)
    prepared = time.perf_counter() - start
    columns = {
        "mrbench compiled": compiled,
        "mrbench": ours(x, y, compile=False),
        "piq": through_piq(x, y),
        "piq, one by one": one_by_one(x, y),
        "torchmetrics": through_torchmetrics(x, y),
        "scikit-image": through_skimage(x, y),
    }
    work = {(who, name): evaluation for who, table in columns.items() for name, evaluation in table.items()}
    seconds = interleaved(work, repeats)
    exact = {name: e() for name, e in ours(x.double(), y.double(), compile=False).items()}
    result: dict[str, Any] = {"compile_wall_seconds": prepared, "implementations": {}}
    for who, table in columns.items():
        entry: dict[str, Any] = {"images_per_cpu_second": {}, "largest_difference_to_float64": {}}
        for name in table:
            values = torch.as_tensor(np.asarray(table[name]()), dtype=torch.float64).flatten()
            entry["images_per_cpu_second"][name] = batch / seconds[who, name]
            entry["largest_difference_to_float64"][name] = float((values - exact[name]).abs().max())
        if set(table) == set(FOUR):
            entry["four_together"] = batch / sum(seconds[who, name] for name in FOUR)
        result["implementations"][who] = entry
    return result


def random_arrays(net: str) -> dict[str, Tensor]:
    """A backbone of random numbers that keeps the scale of its input."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(p.shape, generator=generator) * ((2 / p[0].numel()) ** 0.5 if p.ndim > 1 else 0.1)
        for name, p in blank_layers(net).state_dict().items()
    }


def package_network(network: LpipsNetwork) -> Any:
    """The lpips package's network with the same weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = lpips.LPIPS(net=network.net, pnet_rand=True, verbose=False)
    state = network.layers.state_dict()
    for name, module in reference.net.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            module.load_state_dict({part: state[f"{name.partition('.')[2]}.{part}"] for part in ("weight", "bias")})
    return reference


def compare_lpips(net: str, batch: int, size: int, methods: int, repeats: int) -> dict[str, Any]:
    """LPIPS of ``methods`` estimates of one batch."""
    pretrained = net == "squeeze" and bool(os.environ.get(SQUEEZE_FILE))
    network = load_network(net) if pretrained else LpipsNetwork.from_arrays(net, random_arrays(net), packaged_heads(net))
    reference, metric = package_network(network), loaded(f"lpips_{net}", network=network)
    x, y = images(batch, size)

    def known_once() -> Tensor:
        known = metric.reference(x, None)
        return torch.stack([metric(y, known)[""] for _ in range(methods)])

    def known_never() -> Tensor:
        return torch.stack([metric(y, metric.reference(x, None))[""] for _ in range(methods)])

    def package(step: int) -> Tensor:
        a, b = ((2 * t - 1).expand(-1, 3, -1, -1) for t in (x, y))
        with torch.no_grad():
            return torch.stack(
                [
                    torch.cat([reference(a[i : i + step], b[i : i + step]).flatten() for i in range(0, batch, step)])
                    for _ in range(methods)
                ]
            )

    work = {
        "mrbench, truth once": known_once,
        "mrbench, truth each time": known_never,
        "lpips": lambda: package(batch),
        "lpips, one by one": lambda: package(1),
    }
    seconds = interleaved(work, repeats)
    expected = package(batch).double()
    return {
        "net": net,
        "weights": "pretrained" if pretrained else "random",
        "methods": methods,
        "batch": batch,
        "pairs_per_cpu_second": {who: batch * methods / s for who, s in seconds.items()},
        "mean_value": float(expected.mean()),
        "largest_difference_to_lpips": float((known_once() - expected).abs().max()),
    }


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns."""
    widths = [max(len(row[k]) for row in [head, *rows]) for k in range(len(head))]
    for first, *others in [head, *rows]:
        print("  ".join([first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(others, widths[1:], strict=True))]))


def show_fidelity(result: Mapping[str, Any]) -> None:
    """Print the comparison of the four metrics."""
    found = result["implementations"]
    base = found["piq"]["four_together"]
    rows = []
    for who, entry in found.items():
        speed = entry["images_per_cpu_second"]
        together = entry.get("four_together")
        cells = [f"{speed[name]:.0f}" if name in speed else "-" for name in FOUR]
        rows.append([who, *cells, f"{together:.0f}" if together else "-", f"{together / base:.1f}x" if together else "-"])
    print("\nimages per CPU-second")
    table(["", *(CARDS[name].title for name in FOUR), "all four", "to piq"], rows)
    print("\nlargest difference to mrbench in float64")
    rows = []
    for who, entry in found.items():
        gaps = entry["largest_difference_to_float64"]
        rows.append([who, *(f"{gaps[name]:.1e}" if name in gaps else "-" for name in FOUR)])
    table(["", *(CARDS[name].title for name in FOUR)], rows)
    print("(torchmetrics' SSIM counts border windows: another convention; piq's PSNR adds 1e-8 to the MSE)")
    print(f"compiling took {result['compile_wall_seconds']:.1f} s (once; less with a warm cache)")


def show_lpips(result: Mapping[str, Any]) -> None:
    """Print the comparison of LPIPS."""
    speeds = result["pairs_per_cpu_second"]
    title = BACKBONES[result["net"]].title
    print(f"\nLPIPS, {title} ({result['weights']} weights), {result['methods']} estimates of {result['batch']} images:")
    base = speeds["lpips"]
    table(["", "pairs per CPU-second", "to lpips"], [[who, f"{s:.1f}", f"{s / base:.1f}x"] for who, s in speeds.items()])
    print(f"largest difference {result['largest_difference_to_lpips']:.1e} at a mean of {result['mean_value']:.4f}")


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64, help="images per batch (64)")
    parser.add_argument("--size", type=int, default=320, help="pixels per side (320)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch (1)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds; the median counts (5)")
    parser.add_argument("--lpips-batch", type=int, default=8, help="images per batch for LPIPS (8); 0 leaves it out")
    parser.add_argument("--lpips-net", choices=sorted(BACKBONES), default="squeeze", help="backbone (squeeze)")
    parser.add_argument("--methods", type=int, default=7, help="estimates per ground truth for LPIPS (7)")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    setting = {
        "batch": chosen.batch,
        "size": chosen.size,
        "threads": chosen.threads,
        "repeats": chosen.repeats,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
    }
    print(", ".join(f"{key} {value}" for key, value in setting.items()))
    fidelity = compare_fidelity(chosen.batch, chosen.size, chosen.repeats)
    show_fidelity(fidelity)
    result: dict[str, Any] = {"setting": setting, "fidelity": fidelity}
    if chosen.lpips_batch:
        result["lpips"] = compare_lpips(
            chosen.lpips_net, chosen.lpips_batch, chosen.size, chosen.methods, max(1, chosen.repeats // 2)
        )
        show_lpips(result["lpips"])
    if chosen.json:
        chosen.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
