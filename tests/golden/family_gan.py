"""Golden values of pix2pix, CycleGAN, SPSR and TM-DDPM, and the key lists of their full-size networks."""

from __future__ import annotations

import json
import re
import sys
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from mrbench_methods.networks.gan_losses import relativistic_loss
from mrbench_methods.networks.gan_options import PatchGANConfig, ResnetGeneratorConfig, UNetGeneratorConfig
from mrbench_methods.networks.gan_reading import read_resnet_generator, read_unet_generator
from mrbench_methods.networks.gaussian_diffusion import GaussianDiffusion
from mrbench_methods.networks.gaussian_diffusion_options import GaussianConfig
from mrbench_methods.networks.loading import load_strict
from mrbench_methods.networks.norms import use_image_statistics
from mrbench_methods.networks.patchgan import PatchGAN
from mrbench_methods.networks.resnet_generator import ResnetGenerator
from mrbench_methods.networks.spsr import RRDB, SPSR, VGGDiscriminator, gradient_map
from mrbench_methods.networks.spsr_options import SPSRConfig, VGGDiscriminatorConfig
from mrbench_methods.networks.spsr_weights import read_spsr
from mrbench_methods.networks.sr3 import SR3UNet
from mrbench_methods.networks.swin_ddpm import SwinDDPM
from mrbench_methods.networks.swin_ddpm_options import SwinDDPMConfig
from mrbench_methods.networks.swin_ddpm_sampling import losses_per_image, sample
from mrbench_methods.networks.unet_generator import UNetGenerator
from safetensors.torch import load_file
from torch import Tensor, nn

FAMILY = "sr3_gan"
RELATIVE = 1e-5
Tensors = Mapping[str, Tensor]


def tensors_of(golden: Any) -> Tensors:
    return load_file(golden.path.with_suffix(".safetensors"))


def weights_of(golden: Any, role: str) -> dict[str, Tensor]:
    source = golden.weights_from(role)
    tensors = load_file(golden.path.with_name(source["file"]))
    prefix = source["prefix"]
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def close(name: str, value: Tensor, expected: Tensor, relative: float = RELATIVE) -> None:
    assert value.shape == expected.shape, f"{name}: shape {list(value.shape)}, expected {list(expected.shape)}"
    allowed = relative * max(1.0, float(expected.double().abs().max()))
    gap = float((value.double() - expected.double()).abs().max())
    assert gap <= allowed, f"{name}: differs by {gap:.3g} (tolerance {allowed:.3g})"


def all_compared(tensors: Tensors, *names: str) -> None:
    assert {key for key in tensors if not key.startswith("sd.")} == set(names)


# -- generators and discriminators -----------------------------------------------------------------------------------
@torch.inference_mode()
def check_unet(golden: Any) -> None:
    """Running statistics, those of each image, and those of a batch."""
    io, c, sd = tensors_of(golden), golden.document["config"], weights_of(golden, "generator")
    config = UNetGeneratorConfig(
        channels=c["input_nc"], num_downs=c["num_downs"], width=c["ngf"], norm=c["norm"], dropout=c["use_dropout"]
    )
    assert read_unet_generator(sd, golden.path.name) == config
    network = UNetGenerator(config)
    load_strict(network, sd)
    network.eval()
    close("y_eval", network(io["x"]), io["y_eval"])
    if c["norm"] == "instance":
        all_compared(io, "x", "y_eval")
        return
    all_compared(io, "x", "y_eval", "y_batchstats_b1", "y_batchstats_b2")
    use_image_statistics(network, True)
    close("y_batchstats_b1", network(io["x"][:1]), io["y_batchstats_b1"])
    close("every image by itself", network(io["x"])[:1], io["y_batchstats_b1"])
    network.train()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    close("y_batchstats_b2", network(io["x"]), io["y_batchstats_b2"])


@torch.inference_mode()
def check_resnet(golden: Any) -> None:
    io, c, sd = tensors_of(golden), golden.document["config"], weights_of(golden, "generator")
    config = ResnetGeneratorConfig(
        channels=c["input_nc"], width=c["ngf"], blocks=c["n_blocks"], norm=c["norm"], dropout=c["use_dropout"]
    )
    assert read_resnet_generator(sd, golden.path.name) == config
    network = ResnetGenerator(config)
    load_strict(network, sd)
    close("y_eval", network.eval()(io["x"]), io["y_eval"])
    all_compared(io, "x", "y_eval")


@torch.inference_mode()
def check_patchgan(golden: Any) -> None:
    io, c = tensors_of(golden), golden.document["config"]
    network = PatchGAN(c["input_nc"], PatchGANConfig(width=c["ndf"], layers=c["n_layers"], norm=c["norm"]))
    load_strict(network, weights_of(golden, "discriminator"))
    close("y_eval", network.eval()(io["x"]), io["y_eval"])
    all_compared(io, "x", "y_eval")


# -- SPSR ------------------------------------------------------------------------------------------------------------
@torch.inference_mode()
def check_spsr(golden: Any) -> None:
    """All three outputs; the form is read off the weights."""
    io, c, sd = tensors_of(golden), golden.document["config"], weights_of(golden, "generator")
    config = read_spsr(sd, golden.path.name)
    assert config == SPSRConfig(width=c["nf"], blocks=c["nb"], growth=8, channels=c["in_nc"], scale=c["upscale"])
    network = SPSR(config)
    constants = {key: value.clone() for key, value in network.get_g_nopadding.state_dict().items()}
    load_strict(network, sd)
    for key, value in network.get_g_nopadding.state_dict().items():
        assert torch.equal(value, constants[key]), key
    made = network.eval()(io["x"])
    close("y", made.image, io["y"])
    close("y_branch", made.gradient, io["y_branch"])
    close("grad_lr", made.seen, io["grad_lr"])
    all_compared(io, "x", "y", "y_branch", "grad_lr")


@torch.inference_mode()
def check_spsr_parts(golden: Any) -> None:
    """A block, maps of gradients, and the relativistic losses."""
    io, c = tensors_of(golden), golden.document["config"]
    block = RRDB(c["nc"], c["gc"])
    load_strict(block, weights_of(golden, "rrdb"))
    close("rrdb_y", block(io["rrdb_x"]), io["rrdb_y"])
    for padding in (1, 2):
        close(f"grad_pad{padding}", gradient_map(io["img"], padding), io[f"grad_pad{padding}"])
    for name, generator in (("loss_g_ragan", True), ("loss_d_ragan", False)):
        scale = relativistic_loss(io["d_real"], io["d_fake"], generator)
        close(name, scale, io[name], 1e-6)
    all_compared(io, "rrdb_x", "rrdb_y", "img", "grad_pad1", "grad_pad2", "d_real", "d_fake", "loss_g_ragan", "loss_d_ragan")


# -- TM-DDPM ---------------------------------------------------------------------------------------------------------
def swin_config(c: Mapping[str, Any]) -> SwinDDPMConfig:
    """From a published configuration."""
    assert c["use_scale_shift_norm"]
    assert not c["resblock_updown"]
    assert set(map(tuple, c["sample_kernel"][0])) == {(2, 2)}
    return SwinDDPMConfig(
        image_size=c["image_size"][0], in_channels=c["in_channels"], out_channels=c["out_channels"],
        model_channels=c["model_channels"], channel_mult=c["channel_mult"], num_res_blocks=c["num_res_blocks"],
        attention_resolutions=c["attention_resolutions"], num_heads=c["num_heads"],
        window_size=[w[0] for w in c["window_size"]],
    )  # fmt: skip


def swin_network(golden: Any, config: Mapping[str, Any]) -> SwinDDPM:
    network = SwinDDPM(swin_config(config))
    load_strict(network, weights_of(golden, "net"))
    return network.eval()


@torch.inference_mode()
def check_swin(golden: Any) -> None:
    io = tensors_of(golden)
    close("y", swin_network(golden, golden.document["config"])(io["x"], io["t"]), io["y"])
    all_compared(io, "x", "t", "y")


@torch.inference_mode()
def check_chain(golden: Any) -> None:
    """Schedule, ten steps with recorded noises, and the loss of single images."""
    io, c = tensors_of(golden), golden.document["config"]
    beside = json.loads(golden.path.with_name("tmddpm_net.json").read_text())
    unet = swin_network(golden, beside["config"])
    config = GaussianConfig(steps=c["steps"], schedule=c["noise_schedule"], learn_sigma=c["learn_sigma"])
    diffusion = GaussianDiffusion.of(config, c["timestep_respacing"])
    for name in ("betas", "alphas_cumprod", "posterior_log_variance_clipped", "timestep_map"):
        close(name, torch.from_numpy(getattr(diffusion, name)), io[name], 1e-12)

    def network(state: Tensor, times: Tensor) -> Tensor:
        out: Tensor = unet(torch.cat([state, io["cond"]], dim=1), times)
        return out

    noises = iter(io["z"].flip(0))
    steps: list[tuple[Tensor, Tensor]] = []
    sample(diffusion, config, network, io["xT"], lambda: next(noises), seen=lambda x0, state: steps.append((x0, state)))
    # an estimate of x_0 is the noise's, divided by the share of the image in the state: so is its rounding
    for j, gain in enumerate(diffusion.sqrt_recipm1_alphas_cumprod[::-1]):
        close(f"x0_pred {j}", steps[j][0], io["x0_pred"][j], RELATIVE + 2e-6 * float(gain))
    close("traj", torch.stack([state for _, state in steps]), io["traj"])
    terms = losses_per_image(diffusion, config, network, io["hr"], io["t_index"], io["noise"])
    close("mse", terms["mse"], io["mse"])
    assert io["t_index"].tolist() == [0, 8]
    loss = terms["mse"] + terms["vb"]
    # at step 0 the published code approximates the normal distribution by a hyperbolic tangent; here it is exact
    for place, relative in ((0, 1e-4), (1, RELATIVE)):
        close(f"vb {place}", terms["vb"][place], io["vb"][place], relative)
        close(f"loss {place}", loss[place], io["loss"][place], relative)
    all_compared(
        io, "xT", "z", "traj", "x0_pred", "betas", "alphas_cumprod", "posterior_log_variance_clipped", "timestep_map",
        "hr", "noise", "t_index", "loss", "mse", "vb", "cond",
    )  # fmt: skip


# -- networks of published size ------------------------------------------------------------------------------------------
def full_size(name: str, config: Mapping[str, Any]) -> nn.Module:
    """A network of this module's families by its name in the lists."""
    if name.startswith("tmddpm_"):
        return SwinDDPM(swin_config(config))
    simple: Mapping[str, Callable[[], nn.Module]] = {
        "pix2pix_unet_256": lambda: UNetGenerator(UNetGeneratorConfig(channels=3)),
        "pix2pix_unet_128": lambda: UNetGenerator(UNetGeneratorConfig(channels=3, num_downs=7)),
        "pix2pix_unet_256_1ch": lambda: UNetGenerator(UNetGeneratorConfig()),
        "cyclegan_resnet_9blocks": lambda: ResnetGenerator(ResnetGeneratorConfig(channels=3)),
        "cyclegan_resnet_6blocks": lambda: ResnetGenerator(ResnetGeneratorConfig(channels=3, blocks=6)),
        "resnet_9blocks_batch_dropout": lambda: ResnetGenerator(ResnetGeneratorConfig(channels=3, norm="batch", dropout=True)),
        "patchgan_basic_6ch": lambda: PatchGAN(6, PatchGANConfig()),
        "patchgan_basic_3ch": lambda: PatchGAN(3, PatchGANConfig(norm="instance")),
        "spsr_x4": lambda: SPSR(SPSRConfig(channels=3, scale=4)),
        "spsr_d_vgg128": lambda: VGGDiscriminator(3, VGGDiscriminatorConfig()),
    }
    assert name in simple, f"{name}: nothing checks it"
    return simple[name]()


CONSTANTS = {"spsr_x4": 18}  # published counts have the kernels of the gradient map among the parameters
SCHEDULE = 12  # buffers of an SR3 checkpoint


def check_key_lists(golden: Any) -> None:
    """Parameters, keys, shapes and types of every published network, and nothing else."""
    sr3 = sys.modules["mrbench_golden_family_sr3"]
    for name, entry in golden.document.items():
        config, prefix, constants = entry["config"], "", CONSTANTS.get(name, 0)
        with torch.device("meta"):
            if name == "sr3_16_128_checkpoint":
                network: nn.Module = SR3UNet(sr3.config_of(config["unet"]))
                prefix = "denoise_fn."
            elif name.startswith("mspsr_"):
                network = sr3.Joined(sr3.config_of(config | ({"downsample": "F.pad"} if name.endswith("asym") else {})))
            elif name.startswith("sr3_"):
                network = SR3UNet(sr3.config_of(config))
            else:
                network = full_size(name, config)
        expected = {key: (tuple(shape), kind) for key, shape, kind in entry["keys"]}
        assert len(expected) == entry["n_keys"]
        listed = {key.removeprefix(prefix): value for key, value in expected.items() if key.startswith(prefix)}
        assert len(expected) - len(listed) == (SCHEDULE if prefix else 0), name
        found = {k: (tuple(v.shape), str(v.dtype).removeprefix("torch.")) for k, v in network.state_dict().items()}
        assert found == listed, f"{name}: {sorted(set(found.items()) ^ set(listed.items()))[:3]}"
        if not prefix:
            assert sum(p.numel() for p in network.parameters()) + constants == entry["n_params"], name


@torch.inference_mode()
def check_full(name: str, entry: Mapping[str, Any], io: Tensors, compared: Any) -> None:
    """A network of published size with weights by recipe: its output, its mean and deviation."""
    network = full_size(name, entry["config"]).eval()
    for key, value in network.state_dict().items():
        if key.rpartition(".")[2] in ("relative_position_index", "num_batches_tracked", "weight_h", "weight_v"):
            continue
        refill(value, key, entry)
    numbers = np.random.RandomState(entry["input_seed"]).random_sample(entry["input_shape"])
    x = torch.from_numpy(2 * numbers - 1 if entry["input_kind"] == "u11" else numbers).float()
    compared.close(f"{name}.x_corner", x[..., :4, :4], io[f"{name}.x_corner"], 1e-7)
    if f"{name}.t" in io:
        compared.seen.add(f"{name}.t")
        y = network(x, io[f"{name}.t"])
    else:
        y = network(x)
    if isinstance(network, SPSR):
        compared.close(f"{name}.y_branch_stride4", y.gradient[..., ::4, ::4], io[f"{name}.y_branch_stride4"])
        y = y.image
    assert list(y.shape) == entry["output_shape"]
    stride = re.fullmatch(r"y\[\.\.\., ::(\d), ::\1\]", entry["stored_output"])
    assert stride is not None
    step = int(stride[1])
    compared.close(f"{name}.y", y[..., ::step, ::step] if y.ndim == 4 else y, io[f"{name}.y"])
    assert abs(float(y.double().mean()) - entry["mean"]) < 1e-5 * max(1.0, entry["std"])
    if y.numel() > 2:
        assert abs(float(y.double().std()) - entry["std"]) < 1e-5 * max(1.0, entry["std"])


def refill(value: Tensor, key: str, entry: Mapping[str, Any]) -> None:
    """The recipe's numbers for one tensor; of keys that share a tensor the last one counts."""
    rng = np.random.RandomState((zlib.crc32(key.encode()) + entry["weight_seed"]) % 2**32)
    if key.endswith("running_var"):
        numbers = 0.5 + rng.random_sample(tuple(value.shape))
    elif value.ndim >= 2:
        numbers = rng.standard_normal(tuple(value.shape)) * entry["gain"] / np.sqrt(np.prod(value.shape[1:]))
    else:
        numbers = (1.0 if key.endswith(".weight") else 0.0) + 0.1 * rng.standard_normal(tuple(value.shape))
    value.copy_(torch.from_numpy(np.asarray(numbers)))


# see family_sr3, whose file has entries of all families
FULL_CONFIGS = {prefix: check_full for prefix in ("pix2pix_", "cyclegan_", "patchgan_", "spsr_", "tmddpm_")}

HANDLERS = {
    "official_key_lists": check_key_lists,
    "tmddpm_net": check_swin,
    "tmddpm_diffusion": check_chain,
    "spsr_small": check_spsr,
    "spsr_parts": check_spsr_parts,
    "pix2pix_": check_unet,
    "cyclegan_": check_resnet,
    "patchgan_": check_patchgan,
}
