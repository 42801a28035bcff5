"""Conditional DDPM with a U-Net that sees the LR image beside the state: chain, loss, and published weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from mrbench.errors import UserError

from .canvas import Noise
from .gaussian_diffusion import GaussianDiffusion
from .gaussian_diffusion_options import GaussianConfig
from .prior_losses import variational_bound
from .steps import OnStep
from .swin_ddpm import SwinDDPM
from .swin_ddpm_options import SwinDDPMConfig

REFERENCE = 1000  # the network is told times in units of this many steps
Network = Callable[[Tensor, Tensor], Tensor]  # state and times -> output


def times_of(diffusion: GaussianDiffusion, i: int | Tensor, batch: int, device: torch.device) -> Tensor:
    """``[batch]`` float32: the training step of i, times 1000 / T."""
    return diffusion.timesteps(i, batch, device).float() * (REFERENCE / diffusion.train_steps)


def estimate_of(
    diffusion: GaussianDiffusion, config: GaussianConfig, output: Tensor, state: Tensor, i: int | Tensor
) -> tuple[Tensor, Tensor | None]:
    """The estimate of x_0, unclipped, and the variance's place between its bounds, where it is learned."""
    prediction, v = output.chunk(2, dim=1) if config.learn_sigma else (output, None)
    return diffusion.x0_from(config.prediction, state, i, prediction), v


def sample(
    diffusion: GaussianDiffusion,
    config: GaussianConfig,
    network: Network,
    start: Tensor,
    noise: Noise,
    on_step: OnStep | None = None,
    seen: Callable[[Tensor, Tensor], None] | None = None,
) -> Tensor:
    """The chain from ``start`` (pure noise, ``[N, C, H, W]``) to x_0; every estimate of x_0 is clamped to [-1, 1].

    ``seen`` is shown every estimate and the state after its step.
    """
    state, steps = start, diffusion.num_steps
    for number, i in enumerate(reversed(range(steps)), start=1):
        output = network(state, times_of(diffusion, i, len(state), state.device)).float()
        x0, v = estimate_of(diffusion, config, output, state, i)
        x0 = x0.clamp(-1, 1)
        state = diffusion.ddpm_step(state, i, x0, noise(), v)
        if seen is not None:
            seen(x0, state)
        if on_step is not None:
            on_step(number, steps)
    return state


def losses_per_image(
    diffusion: GaussianDiffusion, config: GaussianConfig, network: Network, x0: Tensor, i: Tensor, noise: Tensor
) -> dict[str, Tensor]:
    """``mse`` ``[B]`` of what is predicted and, where the variance is learned, ``vb`` ``[B]`` times (steps of the chain) / 1000."""
    state = diffusion.add_noise(x0, i, noise)
    output = network(state, times_of(diffusion, i, len(x0), x0.device)).float()
    prediction = output.chunk(2, dim=1)[0] if config.learn_sigma else output
    target = diffusion.target(config.prediction, x0, i, noise)
    terms = {"mse": (prediction - target).square().flatten(1).mean(1)}
    estimate, v = estimate_of(diffusion, config, output, state, i)
    if v is not None:
        bound = variational_bound(diffusion, x0, state, i, estimate, v)
        terms["vb"] = bound * (diffusion.num_steps / REFERENCE)
    return terms


def image_channels(unet: SwinDDPMConfig, diffusion: GaussianConfig, what: str) -> int:
    """Channels of the images of a network that sees state and LR image.

    Raises
    ------
    UserError : it does not take both, or does not return what the diffusion needs.
    """
    channels = unet.in_channels // 2
    wanted = (2 if diffusion.learn_sigma else 1) * channels
    if unet.in_channels != 2 * channels or unet.out_channels != wanted:
        raise UserError(
            f"{what}: the network takes {unet.in_channels} channel(s) and returns {unet.out_channels}. For super-resolution it takes the "
            f"state and the LR image (twice the channels of an image) and returns {wanted or 1} channel(s) with this diffusion "
            f"(learn_sigma {str(diffusion.learn_sigma).lower()}). An unconditional network cannot be used."
        )
    return channels


def published_config(tensors: Mapping[str, Tensor], what: str) -> SwinDDPMConfig:
    """The published configuration with a condition, if these are its keys and shapes.

    Raises
    ------
    UserError : they are not.
    """
    first = tensors.get("input_blocks.0.0.weight")
    config = SwinDDPMConfig(in_channels=first.shape[1] if first is not None and first.ndim == 4 else 2)
    with torch.device("meta"):
        expected = {key: value.shape for key, value in SwinDDPM(config).state_dict().items()}
    if expected != {key: value.shape for key, value in tensors.items()}:
        raise UserError(
            f"{what} comes without a config.json and holds another network than the published one for 256 pixels. Name another file, or "
            'make a checkpoint folder with a config.json that has an "architecture".'
        )
    return config
