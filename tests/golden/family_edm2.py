"""Golden values of EDM2: building blocks, networks, Heun's sampler, loss and gradients, averages, key lists.

Recorded noises are fed in order. The recorded networks ran in float32: tensors agree within 1e-5 of their largest value (at
least of 1), samples, which are many calls away from the noise, within 3e-5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mrbench_methods.networks import edm2_layers
from mrbench_methods.networks.edm2 import EDM2Precond
from mrbench_methods.networks.edm2_options import EDM2Config
from mrbench_methods.networks.edm2_sampling import edm_sigmas, heun
from mrbench_methods.networks.edm2_training import edm2_loss, noise_levels, posthoc_coefficients, power_std
from mrbench_methods.networks.loading import load_strict
from safetensors.torch import load_file
from torch import Tensor

from mrbench.train.ema import ema_rate, power_exponent
from mrbench.train.schedules import learning_rate
from mrbench.train.settings import EmaSpec, ScheduleSpec

FAMILY = "adm"
RELATIVE, SAMPLE_RELATIVE = 1e-5, 3e-5
NOT_OURS = {"use_fp16", "use_fp16_note", "sampler", "loss"}  # of the recorded configurations
BETAS = "beta_std0.05_0.10_batch64_at_nimg_64_128_192_6400_1e6"


class Comparison:
    """Compares tensors; :meth:`finish` shows all that differ, and recorded ones that were not looked at."""

    def __init__(self, recorded: Mapping[str, Tensor]) -> None:
        self._recorded = recorded
        self._faults: list[str] = []
        self._seen: set[str] = set()

    def used(self, *names: str) -> list[Tensor]:
        """Recorded inputs."""
        self._seen.update(names)
        return [self._recorded[n] for n in names]

    def close(self, name: str, value: Tensor | np.ndarray[Any, Any], relative: float = RELATIVE) -> None:
        self._seen.add(name)
        expected = self._recorded[name].double()
        found = torch.as_tensor(value).detach().double()
        if found.shape != expected.shape:
            self._faults.append(f"{name}: shape {list(found.shape)}, expected {list(expected.shape)}")
            return
        gap, allowed = float((found - expected).abs().max()), relative * max(1.0, float(expected.abs().max()))
        if not gap <= allowed:
            self._faults.append(f"{name}: differs by {gap:.3g} (tolerance {allowed:.3g})")

    def finish(self) -> None:
        left = sorted(k for k in self._recorded if k not in self._seen and not k.startswith("sd."))
        assert not left, f"not compared: {', '.join(left)}"
        assert not self._faults, "\n".join(self._faults)
        assert self._seen, "nothing was compared"


def network_of(golden: Any) -> EDM2Precond:
    """The network with the recorded weights, in eval mode."""
    source = golden.weights_from("net")
    tensors = load_file(golden.path.with_name(source["file"]))
    network = EDM2Precond(EDM2Config(**{k: v for k, v in golden.document["config"].items() if k not in NOT_OURS}))
    load_strict(network, {k: v for k, v in tensors.items() if k.startswith(source["prefix"])}, prefixes=(source["prefix"],))
    assert sum(p.numel() for p in network.parameters()) == golden.document["num_parameters"]
    return network.eval()


def check_network(golden: Any) -> None:
    """Denoiser, sampler, and one step of training."""
    recorded = load_file(golden.path.with_suffix(".safetensors"))
    compare = Comparison(recorded)
    network = network_of(golden)
    labels = compare.used("labels")[0] if "labels" in recorded else None
    with torch.no_grad():
        _check_denoiser(compare, network, recorded, labels)
        _check_sampler(compare, network, golden.document["config"]["sampler"], labels)
    _check_training(compare, network, recorded, golden.document["config"]["loss"], labels)
    compare.finish()


def _check_denoiser(compare: Comparison, network: EDM2Precond, recorded: Mapping[str, Tensor], labels: Tensor | None) -> None:
    heads: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _, __, out, name=name: heads.__setitem__(name, out.flatten(1)[:, :16]))
        for name, module in network.named_modules()
        if f"act_head.{name}" in recorded
    ]
    x, sigma = compare.used("x", "sigma")
    compare.close("D", network(x, sigma, class_labels=labels))
    for hook in hooks:
        hook.remove()
    for name, head in heads.items():
        compare.close(f"act_head.{name}", head)
    compare.close("logvar", network.logvar(sigma))
    if labels is not None:
        compare.close("D_nolabel", network(x, sigma))
    else:
        compare.close("D_nolabel", network(x, torch.tensor(2.5)))


def _check_sampler(compare: Comparison, network: EDM2Precond, s: Mapping[str, Any], labels: Tensor | None) -> None:
    (noise,) = compare.used("noise")
    sigmas = edm_sigmas(s["num_steps"], s["sigma_min"], s["sigma_max"], s["rho"])
    fresh = iter(compare.used("churn_noise")[0] if s["S_churn"] else ())
    calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        out = network(x, sigma, class_labels=labels)
        calls.append((x, sigma, out))
        return out

    churn = {"churn": s["S_churn"], "churn_min": s["S_min"], "churn_max": s["S_max"], "churn_noise": s["S_noise"]}
    if s["S_churn"]:
        compare.close("sample", heun(denoise, noise, sigmas, **churn, draw=lambda: next(fresh)), SAMPLE_RELATIVE)
    else:
        compare.close("sample", heun(denoise, noise, sigmas), SAMPLE_RELATIVE)
    for name, values in zip(("eval_x", "eval_sigma", "eval_D"), zip(*calls, strict=True), strict=True):
        compare.close(name, torch.stack(values), SAMPLE_RELATIVE)
    compare.close("sample_nochurn", heun(denoise, noise, sigmas), SAMPLE_RELATIVE)
    compare.close("sample_float64", heun(denoise, noise.double(), sigmas), SAMPLE_RELATIVE)


def _check_training(
    compare: Comparison, network: EDM2Precond, recorded: Mapping[str, Tensor], told: Mapping[str, float], labels: Tensor | None
) -> None:
    assert told["sigma_data"] == network.config.sigma_data
    images, normal, noise = compare.used("train_images", "train_rnd_normal", "train_noise")
    network.train()
    sigma = noise_levels(normal.flatten(), told["P_mean"], told["P_std"])
    loss = edm2_loss(network, images, sigma, noise, class_labels=labels)
    compare.close("train_loss", loss)
    (loss.sum() / len(images)).backward()
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01, betas=(0.9, 0.99), eps=1e-8)
    parameters = dict(network.named_parameters())
    for name, parameter in parameters.items():
        if f"grad.{name}" in recorded:
            compare.close(f"after_forward.{name}", parameter.detach())
            compare.close(f"grad.{name}", parameter.grad)
    optimiser.step()
    for name, parameter in parameters.items():
        if f"after_adam.{name}" in recorded:
            compare.close(f"after_adam.{name}", parameter.detach())
    network.eval()
    with torch.no_grad():
        x, levels = compare.used("x", "sigma")
        compare.close("D_after_adam", network(x, levels, class_labels=labels))


def check_blocks(golden: Any) -> None:
    """Layers, power-function averages, learning rate, noise levels."""
    recorded = load_file(golden.path.with_suffix(".safetensors"))
    compare = Comparison(recorded)
    a, b, c = compare.used("a", "b", "c")
    compare.close("normalize_all", edm2_layers.normalize(a))
    compare.close("normalize_dim1", edm2_layers.normalize(a, [1]))
    compare.close("down11", edm2_layers.resample_down(a))
    compare.close("up11", edm2_layers.resample_up(a))
    wide = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8  # the same operations with a longer filter, which no network uses
    kernel = torch.outer(wide, wide).expand(6, 1, 4, 4)
    compare.close("down1331", torch.nn.functional.conv2d(a, kernel, stride=2, padding=1, groups=6))
    compare.close("up1331", torch.nn.functional.conv_transpose2d(a, 4 * kernel, stride=2, padding=1, groups=6))
    compare.close("mp_silu", edm2_layers.mp_silu(a))
    compare.close("mp_sum_03", edm2_layers.mp_sum(a, b, 0.3))
    compare.close("mp_cat_05", edm2_layers.mp_cat(a, c, 0.5))
    compare.close("mp_cat_02", edm2_layers.mp_cat(a, c, 0.2))
    fourier = edm2_layers.MPFourier(10)
    fourier.freqs, fourier.phases, x = compare.used("fourier_freqs", "fourier_phases", "fourier_x")
    compare.close("fourier_y", fourier(x))

    (std,) = compare.used("std")
    exponents = np.array([power_exponent(float(s)) for s in std])
    compare.close("exp", exponents, 1e-9)
    compare.close("exp_to_std", power_std(exponents), 1e-9)
    compare.close(BETAS, _rates((0.05, 0.10), 64, (64, 128, 192, 6400, 10**6)), 1e-9)
    times, stored, wanted = (t.numpy() for t in compare.used("posthoc_in_ofs", "posthoc_in_std", "posthoc_out_std"))
    stored_exponents, wanted_exponents = ([power_exponent(float(s)) for s in group] for group in (stored, wanted))
    weights = posthoc_coefficients(times, stored_exponents, [256000.0] * len(wanted), wanted_exponents)
    compare.close("posthoc_coeff", weights, 1e-7)

    (images,) = compare.used("lr_nimg")
    unit = 20000  # images per step: then ramp-up (10 million images) and decay (70000 batches of 2048) are whole steps
    assert all(float(n) % unit == 0 for n in images)
    spec = ScheduleSpec(kind="inverse_sqrt", warmup=10**7 // unit, decay=70000 * 2048 // unit)
    compare.close("lr", np.array([learning_rate(spec, 0.012, int(n) // unit, 10**9) for n in images]), 1e-9)
    for steps in (8, 32):
        compare.close(f"t_steps_{steps}", torch.cat([edm_sigmas(steps, 0.002, 80), torch.zeros(1, dtype=torch.float64)]))
    compare.finish()


def _rates(widths: tuple[float, ...], batch: int, images: tuple[int, ...]) -> np.ndarray[Any, Any]:
    rate: Any = ema_rate  # takes any number of updates
    return np.array([[rate(EmaSpec(kind="power", std=std), n / batch) for n in images] for std in widths])


def check_full_networks(golden: Any) -> None:
    """Parameter counts, and keys and shapes in order, of the published sizes (no memory is taken)."""
    for name, expected in golden.document["models"].items():
        config = EDM2Config(
            img_resolution=expected["img_resolution"],
            img_channels=expected["img_channels"],
            label_dim=expected["label_dim"],
            model_channels=expected["model_channels"],
        )
        with torch.device("meta"):
            network = EDM2Precond(config)
        assert sum(p.numel() for p in network.parameters()) == expected["num_parameters"], name
        assert sum(b.numel() for b in network.buffers()) == expected["num_buffer_elements"], name
        if expected["state_dict"] is not None:
            found = [[key, list(value.shape)] for key, value in network.state_dict().items()]
            assert found == expected["state_dict"], name


HANDLERS = {
    "edm2_uncond": check_network,
    "edm2_labels": check_network,
    "edm2_blocks": check_blocks,
    "full_state_dicts_edm2": check_full_networks,
}
