"""Golden values of ResShift, SinSR and Res-SRDiff: networks, schedules, trajectories, losses, tiling.

Recorded noises are fed in order. Unless a network's JSON suggests a tolerance of its own, tensors agree within 1e-4 of their
largest value (at least of 1): float32 sums depend on the platform.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mrbench_methods.networks.reading import read_swin_unet, read_vq
from mrbench_methods.networks.residual_losses import diffusion_loss, distillation_loss
from mrbench_methods.networks.swin_unet import SwinUNet
from mrbench_methods.networks.tiling import Average, Tile, tile_starts, tiles
from mrbench_methods.networks.vq import VQAutoencoder
from mrbench_methods.networks.vq_options import VQConfig
from resshift_golden import (
    RELATIVE,
    Comparison,
    autoencoder,
    bind,
    inference,
    process_of,
    recorded,
    replay,
    tensors_of,
    torch_bicubic,
    unet,
    unet_config,
    vq_config,
    weights,
)
from torch import Tensor
from torch.nn.functional import interpolate

from mrbench.degradation.cards import SitkResampleOptions
from mrbench.degradation.grid import AxisGrid
from mrbench.degradation.kernels import bspline_matrix
from mrbench.degradation.sitk_resample import SitkResample
from mrbench.train.schedules import learning_rate
from mrbench.train.settings import ScheduleSpec

FAMILY = "resshift"


def check_layouts(golden: Any) -> None:
    """Keys, order, shapes, types, kinds and counts of the published state dictionaries."""
    for name, layout in golden.document.items():
        shapes = {key: shape for key, shape, *_ in layout["keys"]}
        with torch.device("meta"):
            if "ddconfig" in layout["config"]:
                config = vq_config(layout["config"])
                network: torch.nn.Module = VQAutoencoder(config)
            else:
                config = unet_config(layout["config"], shapes)
                network = SwinUNet(config, published_buffers=True)
            empty = {key: torch.empty(shape) for key, shape in shapes.items()}
        parameters = dict(network.named_parameters())
        own = [
            [key, list(v.shape), str(v.dtype).removeprefix("torch."), "param" if key in parameters else "buffer"]
            for key, v in network.state_dict().items()
        ]
        assert len(own) == layout["n_keys"], name
        for found, expected in zip(own, layout["keys"], strict=True):
            assert found == expected, f"{name}: {found}, expected {expected}"
        assert sum(p.numel() for p in parameters.values()) == layout["n_parameters"], name
        assert sum(v.numel() for k, v in network.state_dict().items() if k not in parameters) == layout["n_buffer_elements"], (
            name
        )
        read = (
            read_vq(empty) if isinstance(config, VQConfig) else read_swin_unet(empty)
        )  # the configuration read off the shapes
        with torch.device("meta"):
            again = VQAutoencoder(read) if isinstance(read, VQConfig) else SwinUNet(read, published_buffers=True)
        assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in network.state_dict().items()}, (
            name
        )


@inference
def check_unet(golden: Any) -> None:
    """Forward passes, and published buffers equal to those made from the configuration."""
    document, io = golden.document, tensors_of(golden, ".io")
    network = unet(golden, official=document["config"])
    assert sum(p.numel() for p in network.parameters()) == document["n_parameters"]
    compared = Comparison(document["suggested_atol"])
    for suffix in sorted(key.removeprefix("out") for key in io if key.startswith("out")):
        inputs = [io[f"{part}{suffix}"] for part in ("x", "timesteps", "lq")]
        inputs += [io[f"mask{suffix}"]] if f"mask{suffix}" in io else []
        compared.close(f"out{suffix}", network(*inputs), io[f"out{suffix}"])
        compared.seen |= {f"{part}{suffix}" for part in ("x", "timesteps", "lq", "mask")}
    compared.finish(io)
    own = SwinUNet(network.config, published_buffers=True).state_dict()
    for key, value in weights(golden, "unet").items():
        if key.endswith(SwinUNet.derived_buffers):
            assert torch.equal(own[key], value), key


@inference
def check_vq(golden: Any) -> None:
    """Encode, quantise, decode."""
    document, io = golden.document, tensors_of(golden, ".io")
    network = autoencoder(golden, document["config"])
    assert sum(p.numel() for p in network.parameters()) == document["n_parameters"]
    compared = Comparison()
    for suffix in sorted(key.removeprefix("image") for key in io if key.startswith("image")):
        z = io[f"z{suffix}"]
        compared.close(f"z{suffix}", network.encode(io[f"image{suffix}"]), z)
        compared.close(f"decoded{suffix}", network.decode(z), io[f"decoded{suffix}"])
        compared.seen.add(f"image{suffix}")
    compared.close("indices", network.quantize.indices(io["z"]), io["indices"], 0)
    compared.close("z_q", network.quantize(io["z"]), io["z_q"])
    compared.close("quant_loss", network.quantize.loss(io["z"]), io["quant_loss"], 1e-6)
    compared.close("decoded_no_quant", network.decode(io["z"], quantise=False), io["decoded_no_quant"])
    compared.finish(io)


def check_schedules(golden: Any) -> None:
    """Every array of every named configuration, to the last digits of float64."""
    arrays = tensors_of(golden)
    compared = Comparison()
    for name, settings in golden.document["configs"].items():
        schedule = process_of(settings).schedule
        own = {
            **{
                part: getattr(schedule, part)
                for part in (
                    "sqrt_etas", "etas", "etas_prev", "alpha", "posterior_mean_coef1", "posterior_mean_coef2",
                    "posterior_variance", "posterior_variance_clipped", "posterior_log_variance_clipped", "timestep_map",
                )
            },
            "weight_loss_mse": schedule.loss_weights(settings.get("predict_type", "xstart")),
        }  # fmt: skip
        for part, value in own.items():
            expected = arrays[f"{name}.{part}"]
            compared.close(f"{name}.{part}", torch.from_numpy(value), expected, 1e-13 * max(1.0, float(expected.abs().max())))
    compared.finish(arrays)


@inference
def check_latent_trajectory(golden: Any) -> None:
    """LR image -> bicubic -> encode -> prior sample -> steps -> decode, with recorded noises."""
    document, io = golden.document, tensors_of(golden)
    settings = document["diffusion"]
    process, vq = process_of(settings), autoencoder(golden, document.get("autoencoder_config"))
    compared = Comparison()
    y = io["y"]
    upsampled = torch_bicubic(y, settings["sf"])
    torch.testing.assert_close(upsampled, interpolate(y, scale_factor=settings["sf"], mode="bicubic"), atol=1e-5, rtol=0)
    if "y_up" in io:
        compared.close("y_up", upsampled, io["y_up"])
    compared.close("z_y", vq.encode(upsampled), io["z_y"])
    compared.close("x_T", process.prior(io["z_y"], io["noise_prior"]), io["x_T"])
    noise = recorded(io, ["noise_prior", *(f"step{k}.noise" for k in range(process.steps))])
    steps = process.trajectory(bind(unet(golden), y), io["z_y"], noise, clip=settings["clip_denoised"])
    last = replay(steps, io, compared)
    if "decoded" in io:
        final = io[f"step{process.steps - 1}.sample"]
        compared.close("decoded", vq.decode(final), io["decoded"])
        moved = (vq.decode(last.sample) - io["decoded"]).abs() > RELATIVE * float(io["decoded"].abs().max())
        assert float(moved.float().mean()) < 0.02  # another code here and there, where two are equally near
    compared.seen |= {"y", *(key for key in io if "noise" in key)}
    compared.finish(io)


@inference
def check_pixel_trajectory(golden: Any) -> None:
    """Res-SRDiff: estimates clipped at every step, with recorded noises."""
    document, io = golden.document, tensors_of(golden)
    process = process_of(document["diffusion"])
    compared = Comparison()
    noise = recorded(io, ["noise_prior", *(f"step{k}.noise" for k in range(process.steps))])
    y = io["y"]
    steps = list(process.trajectory(bind(unet(golden), y), y, noise, clip=document["diffusion"]["clip_denoised"]))
    last = replay(iter(steps), io, compared)
    clipped = [float((step.model_out.abs() > 1).float().mean()) for step in steps]
    np.testing.assert_allclose(clipped, document["fraction_of_model_out_clipped_per_step"], atol=2e-3)
    compared.close("result_01", last.sample.clamp(-1, 1) * 0.5 + 0.5, io["result_01"])
    compared.seen |= {"y", *(key for key in io if "noise" in key)}
    compared.finish(io)


SCHEDULE_IN_WORDS = re.compile(
    r"schedule (?P<steps>\d+) ?(?:steps)? ?/ ?(?P<min_noise_level>[0-9.]+) ?/ ?(?P<etas_end>[0-9.]+) ?/ ?kappa (?P<kappa>[0-9.]+)"
    r" ?/ ?p (?P<power>[0-9.]+)"
)


def schedule_in_words(golden: Any) -> dict[str, Any]:
    """The diffusion of a JSON that names it, or tells it under "what"."""
    if "diffusion" in golden.document:
        return dict(golden.document["diffusion"])
    found = SCHEDULE_IN_WORDS.search(golden.document["what"])
    assert found, f"{golden.path.name} does not say which schedule"
    return {key: int(value) if key == "steps" else float(value) for key, value in found.groupdict().items()}


@inference
def check_latent_losses(golden: Any) -> None:
    """q_sample, estimates of x_0 and losses of the four prediction types, plain and weighted."""
    io, vq, network = tensors_of(golden), autoencoder(golden), unet(golden)
    settings = schedule_in_words(golden) | {"normalize_input": True, "latent_flag": True}
    truth, y = io["gt"], io["lq"]
    z0, z_y = vq.encode(truth), vq.encode(torch_bicubic(y, truth.shape[-1] // y.shape[-1]))
    compared = Comparison()
    kinds = sorted({key.split(".")[0] for key in io if key.endswith(".mse")})
    for kind in kinds:
        process = process_of(settings | {"predict_type": kind})
        for weighting in ("plain", "weighted"):
            loss = diffusion_loss(process, bind(network, y), z0, z_y, io["t"], io["noise"], weighted=weighting == "weighted")
            compared.close(f"{kind}.{weighting}.mse", loss.mse, io[f"{kind}.{weighting}.mse"])
        compared.close(f"{kind}.plain.pred_zstart", loss.x0, io[f"{kind}.plain.pred_zstart"])
        compared.close("z_t", loss.state, io["z_t"])
    compared.seen |= {"gt", "lq", "t", "noise"}
    compared.finish(io)


@inference
def check_pixel_losses(golden: Any) -> None:
    """Res-SRDiff's squared error per sample."""
    io, network = tensors_of(golden), unet(golden)
    process = process_of(schedule_in_words(golden))
    compared = Comparison()
    for weighting in ("plain", "weighted"):
        loss = diffusion_loss(
            process, bind(network, io["lq"]), io["gt"], io["lq"], io["t"], io["noise"], weighted=weighting == "weighted"
        )
        compared.close(f"mse.{weighting}", loss.mse, io[f"mse.{weighting}"])
        compared.close("x_t", loss.state, io["x_t"])
        compared.close("pred_xstart", loss.x0, io["pred_xstart"])
    compared.seen |= {"gt", "lq", "t", "noise"}
    compared.finish(io)


@inference
def check_one_step(golden: Any) -> None:
    """SinSR in one step; the deterministic sampler of its teacher, its coefficients and its inversion."""
    document, io = golden.document, tensors_of(golden)
    vq = autoencoder(golden, document.get("autoencoder_config"))
    network = unet(golden, official=document["network_config_sinsr"])
    process = process_of(document["diffusion"], start_cap=True)
    y, z_y = io["y"], io["z_y"]
    bound = bind(network, y)
    compared = Comparison()
    compared.close("z_y", vq.encode(torch_bicubic(y, document["diffusion"]["sf"])), z_y)
    compared.close("x_T", process.prior(z_y, io["noise_prior"]), io["x_T"])
    compared.close("pred_xstart", process.one_step(bound, z_y, lambda: io["noise_prior"]), io["pred_xstart"])
    compared.close("decoded", vq.decode(io["pred_xstart"]), io["decoded"])
    for name, value in zip("kmj", process.schedule.deterministic, strict=True):
        compared.close(f"ddim.{name}", torch.from_numpy(value), io[f"ddim.{name}"], 1e-6)
    replay(process.deterministic_trajectory(bound, z_y, io["x_T"]), io, compared, "ddim.step")
    inverse = io["ddim_inverse.final"]  # the inversion divides by m < 1 at every step, which enlarges differences
    allowed = 20 * RELATIVE * max(1.0, float(inverse.abs().max()))
    compared.close("ddim_inverse.final", process.invert(bound, z_y, vq.encode(io["gt"])), inverse, allowed)
    compared.seen |= {"y", "gt", "noise_prior"}
    compared.finish(io)


VARIANT_KEYS = {"learn_xT", "finetune_use_gt", "distill_ddpm", "noise_draws"}


@inference
def check_distillation(golden: Any) -> None:
    """The terms of SinSR's loss, for a teacher and a student; images and settings are those of ``sinsr_onestep``."""
    io = tensors_of(golden)
    beside = type(golden)(golden.path.with_name(golden.path.name.replace("distill", "onestep")))
    images, settings = tensors_of(beside), beside.document["diffusion"]
    process, vq = process_of(settings, start_cap=True), autoencoder(golden)
    y = images["y"]
    z_y, z_gt = vq.encode(torch_bicubic(y, settings["sf"])), vq.encode(images["gt"])
    teacher, student = (bind(unet(golden, role), y) for role in ("teacher", "student"))
    compared = Comparison()
    for name, variant in golden.document["variants"].items():
        assert set(variant) <= VARIANT_KEYS, f"{name}: unknown settings {sorted(set(variant) - VARIANT_KEYS)}"
        stochastic = variant.get("distill_ddpm", False)
        draws = [f"{name}.noise{k}" for k in range(variant["noise_draws"])]
        loss = distillation_loss(
            process, student, teacher, z_y, io["noise"], z_gt,
            learn_inverse=variant.get("learn_xT", False),
            truth_weight=variant.get("finetune_use_gt", 0.0),
            teacher_noise=recorded(io, draws) if stochastic else None,
        )  # fmt: skip
        compared.seen |= set(draws)
        for term, value in (("mse", loss.distill), ("mse_xT", loss.inverse), ("mse_gt", loss.truth), ("loss", loss.total)):
            assert (value is not None) == (f"{name}.{term}" in io), f"{name}.{term}"
            if value is not None:
                compared.close(f"{name}.{term}", value, io[f"{name}.{term}"])
        compared.close("z_T", loss.start, io["z_T"])
        compared.close("student_pred_x0", loss.student, io["student_pred_x0"])
    compared.seen.add("noise")
    compared.finish(io)


@inference
def check_lq_sizes(golden: Any) -> None:
    """SinSR's network with a condition of another size than the state."""
    io = tensors_of(golden)
    compared = Comparison()
    for tag, official in golden.document["configs"].items():
        network = unet(golden, official=official)
        out = network(*(io[f"{tag}.{part}"] for part in ("x", "timesteps", "lq")))
        compared.close(f"{tag}.out", out, io[f"{tag}.out"])
        compared.seen |= {key for key in io if key.startswith((f"{tag}.state.", f"{tag}.x", f"{tag}.timesteps", f"{tag}.lq"))}
    compared.finish(io)


def check_tiling(golden: Any) -> None:
    """Starts, order and plain average of overlaps; the network is nearest upsampling plus a tenth of the tile's number."""
    io = tensors_of(golden)
    compared = Comparison()
    for k, case in enumerate(golden.document["cases"]):
        image, sf = io[f"case{k}.im"], case["sf"]
        height, width = case["h"], case["w"]
        for axis, length in (("h", height), ("w", width)):
            starts = torch.tensor(tile_starts(length, case["patch"], case["stride"]))
            compared.close(f"case{k}.{axis}_starts", starts, io[f"case{k}.{axis}_starts"], 0)
        average = Average(height * sf, width * sf)
        places: list[Tile] = list(tiles(height, width, case["patch"], case["stride"]))
        assert len(places) == case["n_patches"]
        for number, tile in enumerate(places):
            value = interpolate(tile.of(image), scale_factor=sf, mode="nearest") + 0.1 * number
            average.add(tile.scaled(sf), value)
        compared.close(f"case{k}.result", average.result(), io[f"case{k}.result"])
        compared.seen.add(f"case{k}.im")
    compared.finish(io)


def check_learning_rates(golden: Any) -> None:
    """Warm-up set after each step, then half a cosine."""
    document, used = golden.document, tensors_of(golden)["lr_used"].numpy()
    spec = ScheduleSpec(kind="cosine", warmup=document["warmup"], final=document["lr_min"], warmup_after_step=True)
    steps = document["iterations"]
    own = [learning_rate(spec, document["base_lr"], step, steps) for step in range(steps)]
    np.testing.assert_allclose(own, used, rtol=1e-12)


def check_degradation(golden: Any) -> None:
    """SimpleITK's linear resample to ``spacing * f`` and B-spline back onto the grid (0 outside), then min-max of one slice.

    For int16 images SimpleITK truncates, also values that should be whole but for the rounding of positions: the result may
    be off by a few grey levels.
    """
    io = tensors_of(golden)
    compared = Comparison()
    volume = io["volume"].double()
    peak = float(volume.abs().max())
    enlarged = {}
    for name in sorted(key for key in io if key.startswith("down")):
        factor = int(name.removeprefix("down"))
        operator = SitkResample(SitkResampleOptions()).bind(tuple(volume.shape), (factor,) * 3)
        low = operator.forward(volume[None, None])
        compared.close(name, low[0, 0], io[name], 1e-6 * peak)
        enlarged[factor] = onto_the_grid(low[0, 0], operator.grid)
        compared.close(f"up{factor}", enlarged[factor], io[f"up{factor}"], 1e-6 * peak)
        whole = onto_the_grid(operator.forward(volume.trunc()[None, None])[0, 0], operator.grid)
        compared.close(f"int16.up{factor}", whole.trunc(), io[f"int16.up{factor}"], 3)
    number = re.search(r"slice z=(\d+)", golden.document["tensors"]["slice_minmax_*"])
    assert number
    position = int(number[1])
    compared.close("slice_minmax_hr", extremes_to_one(volume[position]), io["slice_minmax_hr"], 1e-5)
    compared.close("slice_minmax_lr", extremes_to_one(enlarged[max(enlarged)][position]), io["slice_minmax_lr"], 1e-5)
    compared.seen.add("volume")
    compared.finish(io)


def onto_the_grid(low: Tensor, grids: Sequence[AxisGrid]) -> Tensor:
    """B-spline interpolation at the HR positions; 0 beyond half an LR voxel after the last centre."""
    for axis, grid in enumerate(grids):
        positions = grid.coordinates()
        inside = positions < grid.n_lr - 0.5 - 1e-9
        matrix = torch.from_numpy(np.where(inside[:, None], bspline_matrix(positions, grid.n_lr), 0.0))
        low = torch.tensordot(matrix, low, dims=([1], [axis])).movedim(0, axis)
    return low


def extremes_to_one(image: Tensor) -> Tensor:
    """Minimum to -1, maximum to 1."""
    return 2 * (image - image.min()) / (image.max() - image.min()) - 1


HANDLERS = {
    "official_state_dict_layouts": check_layouts,
    "unet_": check_unet,
    "ressrdiff_unet": check_unet,
    "vq": check_vq,
    "schedules": check_schedules,
    "traj_latent_": check_latent_trajectory,
    "ressrdiff_traj_": check_pixel_trajectory,
    "train_loss_latent": check_latent_losses,
    "ressrdiff_train_loss": check_pixel_losses,
    "sinsr_onestep": check_one_step,
    "sinsr_distill": check_distillation,
    "sinsr_lq_sizes": check_lq_sizes,
    "tiling": check_tiling,
    "lr_schedule": check_learning_rates,
    "ressrdiff_degradation": check_degradation,
}
