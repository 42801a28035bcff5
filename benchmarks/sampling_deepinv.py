"""DiffPIR and DPS beside those of deepinv, on the same network with the same number of calls.

Run with deepinv 0.5.0 (an optional package: ``pip install deepinv``). Each library
measures the same image with its own bicubic operator (deepinv's is periodic, which gives its DiffPIR a closed form) and noise of the
same level, and calls the network in float32. What is compared is time and memory, not quality: schedules and units of the step sizes differ.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mrbench_methods.diffpir
import mrbench_methods.dps
import mrbench_methods.networks
import torch
import yaml
from mrbench_methods.networks.adm import ADMUNet
from mrbench_methods.networks.adm_options import ADMConfig
from mrbench_methods.networks.prior import Prior
from safetensors.torch import save_file
from sampling_timing import CLOCKS, Rows, Timing, in_turns, show
from torch import Tensor, nn

from mrbench.cards import Checkpoint, MethodCard
from mrbench.degradation.measurement import Measurement, degrade
from mrbench.engine.probe import phantom
from mrbench.hub import LocalCheckpoint, find, read_folder, resolve
from mrbench.plugins import discover

SAMPLERS = ("diffpir", "dps")
SCALE, SIGMA, SEED = 4, 0.02, "benchmark"
CARDS: dict[str, MethodCard] = {
    card.name: card for module in (mrbench_methods.diffpir, mrbench_methods.dps) for card in module.mrbench_methods()
}
Work = Callable[[], Any]


# -- the prior -----------------------------------------------------------------------------------------------------
def prior_checkpoint(folder: Path) -> tuple[LocalCheckpoint, str]:
    """The prior that ships with DiffPIR, else random weights in the layout of the prior's demo preset, and what it is."""
    card = CARDS["diffpir"]
    found = find(card) if any(record.kind == "prior" for record in card.checkpoints) else None
    if found is not None:
        record: Checkpoint = found.record
        return resolve(record, card.name), f"diffpir@{record.name}"
    return random_prior(folder), "random weights, layout of the demo preset"


def random_prior(folder: Path) -> LocalCheckpoint:
    """A checkpoint folder with random weights, none of them zero."""
    preset = yaml.safe_load((Path(mrbench_methods.networks.__file__).parent / "prior_presets" / "demo.yaml").read_text())
    network, diffusion = preset["network"], preset["diffusion"]
    unet = ADMUNet(ADMConfig(**network))
    for parameter in unet.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    save_file({key: value.contiguous() for key, value in unet.state_dict().items()}, folder / "model.safetensors")
    document = {
        "format": 1, "method": "diffpir", "name": "random", "tier": "demo", "kind": "prior", "scale": None, "degradation": "",
        "channels": 1, "method_options": {}, "architecture": {"family": "adm", "network": network, "diffusion": diffusion},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(document))
    return read_folder(folder)


def loaded(name: str, checkpoint: LocalCheckpoint, steps: int) -> Any:
    """A method of mrbench with the prior."""
    card = CARDS[name]
    method = card.load()(card.parse({"steps": steps}))
    method.load(checkpoint, "cpu")
    return method


# -- what is timed -------------------------------------------------------------------------------------------------
def measured(size: int) -> Measurement:
    """A phantom of ``size x size`` pixels, measured at 4x with Gaussian noise."""
    card = discover().degradations.get("bicubic_aa")
    degradation = card.load()(card.parse({}))
    image = phantom("a", 0, (size, size), 1)[None]
    return degrade(image, ["phantom"], degradation, (SCALE, SCALE), noise_kind="gaussian", sigma=SIGMA, seed_key=SEED)


def of_mrbench(name: str, checkpoint: LocalCheckpoint, size: int, steps: int) -> tuple[Work, nn.Module]:
    """One slice through mrbench, and the network that it calls."""
    method = loaded(name, checkpoint, steps)
    measurement = measured(size)
    return lambda: method.restore(measurement, 1), method._prior.prior.network


def of_deepinv(name: str, checkpoint: LocalCheckpoint, size: int, steps: int) -> tuple[Work, nn.Module]:
    """One slice through deepinv, and the network that it calls."""
    deepinv = import_module("deepinv")
    prior = loaded(name, checkpoint, steps)._prior.prior
    denoiser = denoiser_of(deepinv, prior)
    noise = deepinv.physics.GaussianNoise(sigma=SIGMA)
    physics = deepinv.physics.Downsampling(
        img_size=(1, size, size), filter="bicubic", factor=SCALE, padding="circular", noise_model=noise
    )
    y = physics(phantom("a", 0, (size, size), 1)[None])
    if name == "diffpir":
        sampler = deepinv.sampling.DiffPIR(denoiser, deepinv.optim.L2(), sigma=SIGMA, max_iter=steps, zeta=1.0, device="cpu")
    else:  # the last of its time points, t = 0, needs no call
        sampler = deepinv.sampling.DPS(denoiser, num_steps=steps + 1, device="cpu")
    return lambda: sampler(y, physics, seed=1), prior.network


def denoiser_of(deepinv: Any, prior: Prior) -> nn.Module:
    """A prior as deepinv's samplers want it: images in [0, 1], ``sigma`` in the same unit."""

    class PriorDenoiser(deepinv.models.Denoiser):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = prior.network  # so that it is found where parameters are looked for

        def forward(self, x: Tensor, sigma: float | Tensor, **kwargs: Any) -> Tensor:
            level = 2 * torch.as_tensor(sigma, dtype=torch.float32).flatten().expand(len(x))
            image: Tensor = (prior.denoise(2 * x - 1, level) + 1) / 2
            return image

    return PriorDenoiser()


MAKERS = {"mrbench": of_mrbench, "deepinv": of_deepinv}


@contextlib.contextmanager
def watched(network: nn.Module, now: Callable[[], float]) -> Iterator[dict[str, float]]:
    """Counts calls of a network, and the seconds inside (forward passes only) on the clock ``now``."""
    seen = {"calls": 0.0, "seconds": 0.0}
    begun: list[float] = []

    def enter(*_: Any) -> None:
        begun.append(now())

    def leave(*_: Any) -> None:
        seen["calls"] += 1
        seen["seconds"] += now() - begun.pop()

    handles = (network.register_forward_pre_hook(enter), network.register_forward_hook(leave))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


# -- memory --------------------------------------------------------------------------------------------------------
def peak_mib(library: str, name: str, folder: str, size: int, steps: int, threads: int) -> float:
    """Peak resident memory of one slice above what is resident before it, in this process; NaN where the system does not tell."""
    torch.set_num_threads(threads)
    work, _ = MAKERS[library](name, read_folder(Path(folder)), size, steps)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins here (Linux)
        before = _resident("VmRSS")
        with torch.no_grad():
            work()
        return (_resident("VmHWM") - before) / 1024
    except OSError:
        return float("nan")


def _resident(field: str) -> float:
    """KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(field)).split()[1])


def in_fresh_process(*arguments: Any) -> float:
    """:func:`peak_mib` in a process of its own."""
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(peak_mib, *arguments).result()


# -- the comparison ------------------------------------------------------------------------------------------------
def deepinv_comparison(size: int, steps: int, timing: Timing) -> dict[str, Rows]:
    """Calls of the network, seconds per slice, the part of them outside of its forward passes, and peak memory, for both samplers.

    What is outside includes the backward passes of DPS. ``x`` : times faster than deepinv.
    """
    libraries = ["mrbench"]
    if find_spec("deepinv") is None:
        caption = "deepinv is not installed (pip install deepinv): mrbench alone"
    else:
        libraries.append("deepinv")
        caption = f"deepinv {metadata.version('deepinv')}"
    results: dict[str, Rows] = {}
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint, what = prior_checkpoint(Path(scratch))
        for name in SAMPLERS:
            ready = {library: MAKERS[library](name, checkpoint, size, steps) for library in libraries}
            outside: dict[str, tuple[float, float]] = {}
            with torch.no_grad():
                for library, (work, network) in ready.items():
                    work()  # allocates
                    with watched(network, CLOCKS[timing.clock]) as seen:
                        seconds = timing.seconds(work)
                    outside[library] = (seen["calls"], 1 - seen["seconds"] / seconds)
                medians = in_turns({library: work for library, (work, _) in ready.items()}, timing)
            folder, threads = str(checkpoint.file.parent), torch.get_num_threads()
            rows: Rows = {}
            for library, (calls, share) in outside.items():
                rows[library] = {
                    "calls": calls,
                    "slice_s": medians[library],
                    "slice x": medians.get("deepinv", float("nan")) / medians[library],
                    "call_s": medians[library] / calls,
                    "outside": share,
                    "peak_mib": in_fresh_process(library, name, folder, size, steps, threads),
                }
            results[name] = rows
            show(f"{name}, {steps} steps, {size}x{size}, {what}", rows, caption)
    return results
