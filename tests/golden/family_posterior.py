"""Golden values of DPS and DiffPIR: operators, proximal steps, and whole runs with recorded noises.

Runs of DPS are repeated freely. DiffPIR is checked step by step from recorded states, and its data step against a float64 solution:
the published float32 one loses its digits where rho is small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mrbench_methods.networks.adm import ADMUNet
from mrbench_methods.networks.adm_options import ADMConfig
from mrbench_methods.networks.diffpir_options import DiffPIROptions
from mrbench_methods.networks.diffpir_sampler import DiffPIR
from mrbench_methods.networks.dps_options import DPSOptions
from mrbench_methods.networks.dps_sampler import DPS
from mrbench_methods.networks.gaussian_diffusion import GaussianDiffusion, linear_betas
from mrbench_methods.networks.loading import load_strict, selected
from mrbench_methods.networks.posterior_canvas import Problem
from mrbench_methods.networks.prior import Prediction
from safetensors.torch import load_file
from torch import Tensor

from mrbench.degradation.cards import BicubicAAOptions, NoDegradationOptions
from mrbench.degradation.grid import AxisGrid
from mrbench.degradation.image_space import Area, BicubicAA
from mrbench.degradation.measurement import Measurement, NoiseSource
from mrbench.degradation.operators import LinearOperator, Operator
from mrbench.degradation.padding import Crop
from mrbench.degradation.solve import conjugate_gradients

FAMILY = "adm"
Tensors = Mapping[str, Tensor]
SCHEDULE = np.cumprod(1 - linear_betas(1000))


# -- files to networks, measurements and noises --------------------------------------------------------------------
def tensors_of(golden: Any) -> Tensors:
    return load_file(golden.path.with_suffix(".safetensors"))


def close(name: str, value: Tensor, expected: Tensor, tolerance: float) -> None:
    assert value.shape == expected.shape, f"{name}: shape {list(value.shape)}, expected {list(expected.shape)}"
    gap = float((value.double() - expected.double()).abs().max())
    assert gap <= tolerance, f"{name}: differs by {gap:.3g} (tolerance {tolerance:.3g})"


def unet(golden: Any, official: Mapping[str, Any]) -> ADMUNet:
    """The small network of the trajectories."""
    source = golden.weights_from("unet")
    tensors = selected(load_file(golden.path.with_name(source["file"])), (source["prefix"],))
    given = {k: v for k, v in official.items() if k not in ("image_size", "attention_resolutions_downsample_rates")}
    network = ADMUNet(ADMConfig(attention_rates=tuple(official["attention_resolutions_downsample_rates"]), **given))
    load_strict(network, tensors, what=golden.path.name)
    return network.eval().requires_grad_(False)


def predictor(network: ADMUNet) -> Callable[[Tensor, int], Prediction]:
    full = GaussianDiffusion(SCHEDULE)

    def predict(x: Tensor, t: int) -> Prediction:
        eps, v = network(x, torch.full((len(x),), t)).chunk(2, 1)
        return Prediction(full.x0_from_eps(x, t, eps), eps, v)

    return predict


class Recorded(NoiseSource):
    """Noises in the order in which they are asked for."""

    def __init__(self, noises: Iterator[Tensor]) -> None:
        self._noises = noises

    def normal(self, shape: Sequence[int]) -> Tensor:
        return next(self._noises).reshape(1, 1, *shape)


def problem_of(y: Tensor, operator: Operator, noises: Iterator[Tensor]) -> Problem:
    """``y`` in [0, 1]."""
    size, grid = (operator.hr_size[0], operator.hr_size[1]), (operator.grid[0], operator.grid[1])
    canvas = Measurement(y, size, (grid[0].step, grid[1].step), operator, grid, 0.0, ("x",), "golden")
    return Problem(canvas, Crop(size, operator.lr_size), operator, 1, Recorded(noises))


def resizer(size: tuple[int, int], factor: int) -> Operator:
    """The bicubic operator with mirrored borders."""
    return BicubicAA(BicubicAAOptions(border="mirror")).bind(size, (factor, factor))


class CircularBlur(Operator):
    """``H`` of the published data step: circular convolution with any kernel, then every ``factor``-th sample."""

    def __init__(self, otf: Tensor, factor: int) -> None:
        sizes = otf.shape[-2:]
        super().__init__("blur", [AxisGrid.corner(n, factor) for n in sizes])
        self._otf, self._factor = otf, factor

    @classmethod
    def of_kernel(cls, kernel: Tensor, size: tuple[int, int], factor: int) -> CircularBlur:
        placed = torch.zeros(1, 1, *size, dtype=torch.float64)
        placed[..., : kernel.shape[-2], : kernel.shape[-1]] = kernel
        rolled = placed.roll([-(n // 2) for n in kernel.shape[-2:]], (-2, -1))
        return cls(torch.fft.fft2(rolled), factor)

    def forward(self, x: Tensor) -> Tensor:
        blurred: Tensor = torch.fft.ifft2(torch.fft.fft2(x.double()) * self._otf).real
        return blurred[..., :: self._factor, :: self._factor]

    def adjoint(self, y: Tensor) -> Tensor:
        filled = torch.zeros(*y.shape[:2], *self.hr_size, dtype=torch.float64)
        filled[..., :: self._factor, :: self._factor] = y
        adjoint: Tensor = torch.fft.ifft2(torch.fft.fft2(filled) * self._otf.conj()).real
        return adjoint

    def prox(self, z: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        """Conjugate gradients on ``H H^T + rho``."""

        def system(q: Tensor) -> Tensor:
            return self.forward(self.adjoint(q)) + rho * q

        residual = y.double() - self.forward(z)
        return z.double() + self.adjoint(conjugate_gradients(system, residual, lambda r: r, 2, self.name))

    def pinv(self, y: Tensor) -> Tensor:
        return self.prox(torch.zeros(*y.shape[:2], *self.hr_size), y, 0.0)

    def padded(self, multiple: int | Sequence[int]) -> tuple[Operator, Crop]:
        raise NotImplementedError


# -- operators and proximal steps ----------------------------------------------------------------------------------
def check_resizer(golden: Any) -> None:
    """``bicubic_aa`` with mirrored borders is DPS's Resizer, and its adjoint the gradient's."""
    tensors = tensors_of(golden)
    for name, config in golden.document["config"].items():
        height, width = config["in_shape"][2:]
        factor = round(1 / config["scale_factor"])
        operator = resizer((height, width), factor)
        close(f"{name}.y", operator.forward(tensors[f"{name}.x"]), tensors[f"{name}.y"], 2e-6)
        close(f"{name}.adjoint_v", operator.adjoint(tensors[f"{name}.v"]), tensors[f"{name}.adjoint_v"], 2e-6)
        for k, dim in enumerate(config["pass_dims"]):
            weights, places = tensors[f"{name}.pass{k}_weights"], tensors[f"{name}.pass{k}_fov"]
            matrix = torch.zeros(weights.shape[1], config["in_shape"][dim])
            rows = torch.arange(weights.shape[1]).expand_as(places)
            matrix.index_put_((rows, places), weights, accumulate=True)
            line = resizer((config["in_shape"][dim], 8), factor) if dim == 2 else resizer((8, config["in_shape"][dim]), factor)
            basis = torch.eye(matrix.shape[1])[:, :, None] if dim == 2 else torch.eye(matrix.shape[1])[:, None, :]
            image = basis.expand(-1, -1, 8) if dim == 2 else basis.expand(-1, 8, -1)
            column = line.forward(image[:, None])[:, 0]
            close(f"{name}.pass{k}", (column[:, :, 0] if dim == 2 else column[:, 0, :]).mT, matrix, 2e-6)


def check_exact_prox(golden: Any) -> None:
    """``prox`` of the bicubic operator in float64 and float32; its matrices."""
    tensors = tensors_of(golden)
    for name, config in golden.document["config"].items():
        size, factor = (config["H"], config["W"]), config["sf"]
        operator = resizer(size, factor)
        given = LinearOperator("given", operator.grid, [tensors[f"{name}.{m}"].numpy() for m in "AB"])
        z, y = tensors[f"{name}.x0"], tensors[f"{name}.y"]
        close(f"{name}.Hx", operator.forward(z), tensors[f"{name}.Hx"], 2e-6)
        for k, rho in enumerate(config["rhos"]):
            expected = tensors[f"{name}.prox{k}"]
            close(f"{name}.prox{k}", given.prox(z.double(), y.double(), rho), expected, 1e-12)
            for op in (given, operator):  # the published matrices are rounded to float32
                close(f"{name}.prox{k} float32", op.prox(z, y, rho), expected, 1e-5)


def check_data_step(golden: Any) -> None:
    """The published closed form is ``z + H^T (H H^T + rho)^-1 (y - H z)``, as far as its float32 goes; pooling in closed form."""
    tensors = tensors_of(golden)
    for name, config in golden.document["config"].items():
        x, y = tensors[f"{name}.x"], tensors[f"{name}.y"]
        operator = CircularBlur.of_kernel(tensors[f"{name}.kernel"].double(), (x.shape[2], x.shape[3]), config["sf"])
        close(f"{name}.Hx", operator.forward(x), tensors[f"{name}.Hx"], 2e-6)
        pooling = Area(NoDegradationOptions()).bind((x.shape[2], x.shape[3]), (config["sf"],) * 2)
        for k, rho in enumerate(config["taus"]):
            out = tensors[f"{name}.out{k}"]
            allowed = max(2e-6, 5e-8 / rho)  # its float32 loses digits in proportion
            close(f"{name}.out{k}", operator.prox(x, y, rho), out, allowed)
            if f"{name}.closed_form{k}" in tensors:
                close(f"{name}.closed_form{k}", pooling.prox(x, y, rho), tensors[f"{name}.closed_form{k}"], 2e-6)
                close(f"{name}.out{k} pooling", pooling.prox(x, y, rho), out, allowed)


# -- runs ----------------------------------------------------------------------------------------------------------
def check_dps(golden: Any) -> None:
    """A free run from the recorded noise: every state, estimate and distance."""
    tensors, config = tensors_of(golden), golden.document["config"]
    options = DPSOptions(
        variant="official",
        steps=config["timestep_respacing"],
        sampler="ddpm" if config["ddim_eta"] is None else "ddim",
        eta=config["ddim_eta"],
        zeta=config["ps_scale"],
    )
    process = DPS(SCHEDULE, options.settings())
    assert process.diffusion.timestep_map.tolist() == tensors["timestep_map"].tolist()
    operator = resizer((config["image"],) * 2, config["scale_factor"])
    drawn = [tensors["x_T"], *(tensors["noise_x"] if process.settings.sampler == "ddpm" else ())]
    problem = problem_of((tensors["y"] + 1) / 2, operator, iter(drawn))
    for k, step in enumerate(process.trajectory(predictor(unet(golden, config["unet"])), problem)):
        assert step.t == int(tensors["timestep_map"].flip(0)[k])
        close(f"step {k} x_in", step.x, tensors["x_in"][k], 1e-5)
        noise = math.sqrt(1 / SCHEDULE[step.t] - 1)  # multiplies what the network returns
        close(f"step {k} x0_hat", step.x0, tensors["x0_hat"][k], 5e-6 * max(1.0, noise))
        close(f"step {k} x_uncond", step.free, tensors["x_uncond"][k], 1e-5)
        close(f"step {k} norm", step.distance, tensors["norm"][k : k + 1], 1e-5 * float(tensors["norm"][k]))
        close(f"step {k} x_out", step.x_next, tensors["x_out"][k], 1e-5)
    close("final", step.x_next, tensors["final"], 1e-5)
    assert k + 1 == process.calls


def check_diffpir(golden: Any) -> None:
    """Every step from its recorded state."""
    tensors, config = tensors_of(golden), golden.document["config"]
    options = DiffPIROptions(
        variant="official",
        steps=config["iter_num"],
        skip=config["skip_type"],
        lam=config["lambda_"],
        zeta=config["zeta"],
        eta=config["eta"],
        guidance=config["guidance_scale"],
        start=config["t_start"],
    )
    process = DiffPIR(SCHEDULE, options.settings())
    visited = tensors["t_visited"].tolist()
    assert list(process.timesteps) == visited
    assert process.calls == len(visited) - 1
    operator = CircularBlur.of_kernel(tensors["kernel"].double(), (config["image"],) * 2, config["sf"])
    calls = tensors["rand_calls"]
    predict = predictor(unet(golden, NETWORK))
    start = problem_of(tensors["y"], resizer((config["image"],) * 2, config["sf"]), iter([calls[0]]))
    close("x_in 0", process.first(start), tensors["x_in"][0], 1e-5)
    with torch.inference_mode():
        for k, t in enumerate(visited):
            x = tensors["x_in"][k]
            np.testing.assert_allclose(process.sigma(t), float(tensors["sigma_eval"][k]), rtol=1e-6)
            allowed = 3e-4 if t == 999 else 3e-6 * max(1.0, process.sigma(t))
            close(f"x0_prior {k}", predict(x, t).x0.clamp(-1, 1), tensors["x0_prior"][k], allowed)
            if k == process.calls:
                break
            noises = [calls[3 * k + 2]] * (config["eta"] > 0) + [calls[3 * k + 3]] * (config["zeta"] > 0)
            problem = problem_of(tensors["y"], operator, iter(noises))
            rho = process.rho(t, config["noise_level_img"], problem.gain)
            np.testing.assert_allclose(rho, float(tensors["tau"][k]), rtol=1e-6)
            state = problem.state(tensors["data_in"][k])
            close(f"data_in {k}", state, tensors["x0_prior"][k], 1e-6)
            close(f"data step {k}", problem.image(problem.prox(state, rho)), tensors["data_out_exact64"][k], 1e-6)
            if rho >= 1e-3:
                close(f"data_out {k}", problem.image(problem.prox(state, rho)), tensors["data_out"][k], 2e-5)
            following = process.next(x, problem.state(tensors["data_out"][k]), t, visited[k + 1], problem)
            expected = tensors["x_in"][k + 1]
            close(f"x_in {k + 1}", following, expected, 2e-6 * max(1.0, float(expected.abs().max())))
    close("result", tensors["x_in"][-1] / 2 + 0.5, tensors["x_final_01"], 1e-6)


NETWORK: Mapping[str, Any] = {
    "image_size": 32, "in_channels": 3, "model_channels": 32, "out_channels": 6, "num_res_blocks": 1,
    "attention_resolutions_downsample_rates": [2], "channel_mult": [1, 1], "num_heads": 4, "num_head_channels": 16,
    "resblock_updown": True, "use_scale_shift_norm": True, "dropout": 0.0,
}  # fmt: skip

HANDLERS = {
    "dps_resizer": check_resizer,
    "dps_traj_": check_dps,
    "diffpir_datastep": check_data_step,
    "diffpir_traj_": check_diffpir,
    "prox_exact_": check_exact_prox,
}
