"""What SR3 and MSP-SR are as methods: a U-Net, perhaps with a branch, and the sampler on a canvas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from mrbench.cards import parse_options
from mrbench.degradation.measurement import Measurement, upsample
from mrbench.errors import UserError
from mrbench.hub.checkpoint import LocalCheckpoint

from .canvas import Noise, restore_on_canvas
from .controlnet import ControlBranch, controlled
from .loading import CONTAINERS, load_strict, selected, unwrapped
from .residual_model import no_weights
from .settings import filled, saved_options
from .sr3 import SR3UNet
from .sr3_diffusion import SR3Diffusion
from .sr3_options import SR3Config, SR3DiffusionConfig, SR3SamplingOptions
from .sr3_weights import published_betas, published_config, unet_tensors
from .steps import OnStep

DEFAULT_STEPS = 100  # where neither user nor checkpoint says; 2000 as published
PARTS = {"unet": SR3Config, "diffusion": SR3DiffusionConfig}
BRANCH = "control"  # of the architecture: whether there is one


class SR3Restoration:
    """A chain from noise to the HR image, conditioned on the interpolated LR image (arXiv:2104.07636)."""

    name: ClassVar[str]
    branched: ClassVar[bool] = False  # whether weights may have a branch
    nfe: int | None = None
    on_step: OnStep | None = None

    def __init__(self, options: SR3SamplingOptions) -> None:
        """Keep the options; :meth:`load` brings the network."""
        self._options = options

    def load(self, checkpoint: LocalCheckpoint | None, device: torch.device | str) -> None:
        """Build the networks that the checkpoint describes, or those of the published weights.

        A branch whose zero convolutions are all zero adds nothing, and is not kept.

        Raises
        ------
        UserError : no weights, weights that do not fit, or options that contradict them.
        """
        if checkpoint is None:
            raise no_weights(self.name)
        what = str(checkpoint.file)
        parts = self._architecture(checkpoint.config, what)
        self._sampling = filled(self._options, saved_options(checkpoint.config, type(self._options), what))
        tensors = checkpoint.tensors("cpu", CONTAINERS)
        own = unet_tensors(tensors)
        given = None
        if parts:
            config, diffusion, branch = parts
        else:
            if any(key.startswith(f"{BRANCH}.") for key in unwrapped(tensors)):
                raise UserError(f"{what} has a branch but no config.json beside it, which says what the network is. Add it.")
            config, diffusion, branch = published_config(own, what), SR3DiffusionConfig(), False
            given = published_betas(tensors)
        self._diffusion = SR3Diffusion(diffusion, given)
        self.nfe = self._steps(what)
        self._unet = SR3UNet(config)
        load_strict(self._unet, own, what=what)
        self._branch: ControlBranch | None = None
        if branch:
            added = ControlBranch(config)
            load_strict(added, _branch_tensors(tensors, what), what=f"{what} ({BRANCH})")
            self._branch = None if added.silent else added
        for network in (self._unet, self._branch):
            if network is not None:
                network.eval().requires_grad_(False).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def restore(self, measurement: Measurement, draws: int) -> Tensor:
        """``draws`` samples ``[B, K, C, H, W]`` in [0, 1].

        Raises
        ------
        UserError : images with other channels than the network's.
        """
        options = self._sampling

        def sampler(condition: Tensor, noise: Noise, on_step: OnStep | None) -> Tensor:
            def network(x: Tensor, g: Tensor) -> Tensor:
                return controlled(self._unet, self._branch, torch.cat([condition, x], dim=1), g)

            return self._diffusion.sample(network, condition, noise, self.nfe, options.variance or "posterior", on_step)

        return restore_on_canvas(
            measurement, draws, sampler, upsample, options,
            channels=self._unet.config.out_channel, multiple=self._unet.multiple, on_step=self.on_step,
        )  # fmt: skip

    def _architecture(self, config: Mapping[str, Any], what: str) -> tuple[SR3Config, SR3DiffusionConfig, bool] | None:
        """What ``config.json`` says of network, diffusion and branch; ``None`` where there is none."""
        owner = config.get("method", self.name)
        if owner != self.name:
            raise UserError(
                f"{what} holds weights of {owner}, not of {self.name}. Use --method {owner}@..., or name another file."
            )
        parts: Mapping[str, Any] = config.get("architecture") or {}
        if not parts:
            return None
        known = [*PARTS, BRANCH] if self.branched else list(PARTS)
        unknown = sorted(set(parts) - set(known))
        if unknown or "unet" not in parts:
            problem = f"unknown parts {', '.join(unknown)}" if unknown else "no part unet"
            raise UserError(f'{what}: the "architecture" of its config.json has {problem}. Known: {", ".join(known)}.')
        branch = parts.get(BRANCH, False)
        if not isinstance(branch, bool):
            raise UserError(f'{what}: "architecture.{BRANCH}" of its config.json is {branch!r}, expected true or false.')
        unet = parse_options(SR3Config, parts["unet"], f'{what}: "architecture.unet" of config.json')
        diffusion = parse_options(
            SR3DiffusionConfig, parts.get("diffusion") or {}, f'{what}: "architecture.diffusion" of config.json'
        )
        assert isinstance(unet, SR3Config)
        assert isinstance(diffusion, SR3DiffusionConfig)
        return unet, diffusion, branch

    def _steps(self, what: str) -> int:
        """Network calls: as asked for, else 100 (``UserError`` if the diffusion has not so many)."""
        most = self._diffusion.steps
        steps = min(DEFAULT_STEPS, most) if self._sampling.steps is None else self._sampling.steps
        if steps > most:
            raise UserError(f"steps {steps}: {what} was trained with {most} step(s), so between 1 and {most} can be sampled.")
        return steps


def _branch_tensors(tensors: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    prefix = f"{BRANCH}."
    if not any(key.startswith(prefix) for key in unwrapped(tensors)):
        raise UserError(f"{what}: its config.json promises a branch, but there are no tensors under {prefix}")
    return selected(tensors, (prefix,))
