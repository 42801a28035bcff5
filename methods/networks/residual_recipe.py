"""How networks of the residual-shifting family are trained: what Res-SRDiff, ResShift and SinSR share.

Loss: ``c0 ||x_0 - f(x_t, t, y)||^2 + c1 LPIPS(decode(f(x_t, t, y)), image)`` at a step t that is uniform over the training steps,
with images in [-1, 1] (ResShift, arXiv:2307.12348, journal version; Res-SRDiff, section 2.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from mrbench.degradation.measurement import Measurement
from mrbench.errors import UserError
from mrbench.train.losses import LpipsKind, LpipsLoss, lpips_loss
from mrbench.train.recipe import Context, Networks, Recipe, Step, TrainBatch
from mrbench.train.settings import RecipeOptions

from .conditioning import resample
from .loading import load_strict, read_tensors, selected
from .reading import read_vq
from .residual_losses import diffusion_loss
from .residual_shift import Network, ResidualShift
from .residual_shift_options import DiffusionConfig
from .swin_unet import SwinUNet
from .swin_unet_options import SwinUNetConfig
from .vq import VQAutoencoder

AUTOENCODER = "autoencoder"
NO_SWIN: Mapping[str, Mapping[str, Any]] = {"no_swin": {"unet.swin": False}}  # Res-SRDiff, Table 2


class ResidualOptions(RecipeOptions):
    """Network, diffusion and loss."""

    unet: SwinUNetConfig
    diffusion: DiffusionConfig
    mse: float = Field(default=1.0, gt=0, description="weight of the squared error")
    lpips: LpipsKind = Field(default="off", description="backbone of the perceptual term; off: none")
    lpips_weight: float = Field(default=1.0, gt=0, description="weight of the perceptual term")
    tile: PositiveInt | None = Field(
        default=None,
        description="side of the tiles that the checkpoint asks for: narrow networks normalise every channel by itself, so that what "
        "they learn on patches holds on images of that size",
    )


class LatentOptions(ResidualOptions):
    """The same on latents, where an autoencoder is named."""

    path_options: ClassVar[tuple[str, ...]] = (AUTOENCODER,)

    autoencoder: str | None = Field(default=None, description="file of the VQ autoencoder; none: the network works on pixels")


O = TypeVar("O", bound=ResidualOptions)  # noqa: E741


class ResidualRecipe(Recipe[O]):
    """One network, one optimiser. Subclasses say how images become states, and the LR image a condition."""

    options_model: ClassVar[type[RecipeOptions]] = ResidualOptions
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = NO_SWIN
    shipped: ClassVar[tuple[str, ...]] = ("unet",)

    def __init__(self, options: O, context: Context) -> None:
        """Make the diffusion and fetch the perceptual network (``UserError`` if it cannot be had)."""
        super().__init__(options, context)
        self._process = ResidualShift(options.diffusion)
        self._perceptual: LpipsLoss | None = lpips_loss(options.lpips, context.device, f"{context.card.name}.lpips")

    def build(self) -> dict[str, nn.Module]:
        """The U-Net, in channels-last layout."""
        return {"unet": SwinUNet(self.options.unet).to(memory_format=torch.channels_last)}

    def upsample(self, measurement: Measurement) -> Tensor:
        """The LR image on the HR grid, ``[B, C, H, W]`` in [0, 1]."""
        return resample(measurement)

    def encode(self, networks: Networks, x: Tensor) -> Tensor:
        """Images in [-1, 1] to states."""
        return x

    def decode(self, networks: Networks, z: Tensor) -> Tensor:
        """States to images in [-1, 1]."""
        return z

    def prepared(self, networks: Networks, batch: TrainBatch) -> tuple[Tensor, Tensor, Tensor]:
        """States of the HR and the LR image, and the network's condition (all in [-1, 1])."""
        upsampled = 2 * self.upsample(batch.measurement) - 1
        step = self.options.unet.lq_step * self._factor(networks)
        condition = upsampled if step == 1 else 2 * resample(batch.measurement, step) - 1
        with torch.no_grad():
            return self.encode(networks, 2 * batch.hr - 1), self.encode(networks, upsampled), condition

    def losses(
        self, networks: Mapping[str, nn.Module], batch: TrainBatch, generator: torch.Generator, step: Step, optimiser: str
    ) -> dict[str, Tensor]:
        """``mse`` and, unless it is off, ``lpips``."""
        x0, y, condition = self.prepared(networks, batch)
        t = torch.randint(0, self._process.steps, (len(x0),), generator=generator, device=x0.device)
        noise = torch.randn(x0.shape, generator=generator, device=x0.device)
        found = diffusion_loss(self._process, bound(networks["unet"], condition), x0, y, t, noise)
        return {"mse": self.options.mse * found.mse.mean(), **self.perceptual(networks, found.x0, batch)}

    def perceptual(self, networks: Networks, x0: Tensor, batch: TrainBatch) -> dict[str, Tensor]:
        """The perceptual term of an estimate of x_0, if there is one."""
        if self._perceptual is None:
            return {}
        estimate = (self.decode(networks, x0).clamp(-1, 1) + 1) / 2
        return {"lpips": self.options.lpips_weight * self._perceptual(estimate, batch.hr)}

    def checkpoint_config(self) -> dict[str, Any]:
        """The network, the diffusion, and the size of the tiles."""
        o = self.options
        parts = {"unet": o.unet.model_dump(mode="json"), "diffusion": o.diffusion.model_dump(mode="json")}
        return {"architecture": parts, "method_options": {} if o.tile is None else {"tile": o.tile}}

    def optimised_for(self) -> tuple[str, ...]:
        """The perceptual metric that is also the loss."""
        return () if self._perceptual is None else (self._perceptual.metric,)

    def _factor(self, networks: Networks) -> int:
        return 1


L = TypeVar("L", bound=LatentOptions)


class LatentRecipe(ResidualRecipe[L]):
    """On the latents of a fixed VQ autoencoder, where the options name one, else on pixels."""

    options_model = LatentOptions

    def __init__(self, options: L, context: Context) -> None:
        """Read the autoencoder, if there is one (``UserError`` if it is none)."""
        super().__init__(options, context)
        self._autoencoder = None if options.autoencoder is None else _autoencoder(options.autoencoder)

    def build(self) -> dict[str, nn.Module]:
        """The U-Net and the autoencoder.

        Raises
        ------
        UserError : an optimiser would train the autoencoder.
        """
        networks = super().build()
        if self._autoencoder is not None:
            networks[AUTOENCODER] = self._autoencoder
            for stage in self.options.stages:
                if any(not o.networks or AUTOENCODER in o.networks for o in stage.optimisers.values()):
                    raise UserError(
                        f"stage {stage.name}: the autoencoder stays as it is. Let the optimiser name its networks: networks: [unet]."
                    )
        return networks

    def encode(self, networks: Networks, x: Tensor) -> Tensor:
        """Images in [-1, 1] to latents."""
        autoencoder = networks.get(AUTOENCODER)
        return autoencoder.encode(x) if isinstance(autoencoder, VQAutoencoder) else x

    def decode(self, networks: Networks, z: Tensor) -> Tensor:
        """Latents to images in [-1, 1]."""
        autoencoder = networks.get(AUTOENCODER)
        return autoencoder.decode(z) if isinstance(autoencoder, VQAutoencoder) else z

    def state_dict(self, networks: Networks) -> dict[str, Tensor]:
        """The U-Net alone, or both networks with their names before the keys."""
        if AUTOENCODER not in networks:
            return super().state_dict(networks)
        parts = ("unet", AUTOENCODER)
        return {f"{part}.{key}": value for part in parts for key, value in networks[part].state_dict().items()}

    def load_weights(self, networks: Networks, tensors: Mapping[str, Tensor]) -> None:
        """The U-Net from weights of either form; the autoencoder is that of the options."""
        load_strict(networks["unet"], selected(tensors, ("unet.",)), derived=SwinUNet.derived_buffers, what="the weights")

    def checkpoint_config(self) -> dict[str, Any]:
        """The networks and the diffusion."""
        config = super().checkpoint_config()
        if self._autoencoder is not None:
            config["architecture"][AUTOENCODER] = self._autoencoder.config.model_dump(mode="json")
        return config

    def _factor(self, networks: Networks) -> int:
        return 1 if self._autoencoder is None else self._autoencoder.factor


def bound(unet: nn.Module, condition: Tensor) -> Network:
    """The network with its condition ``[B, C, h, w]`` filled in."""

    def network(x: Tensor, timesteps: Tensor) -> Tensor:
        out: Tensor = unet(x, timesteps, condition)
        return out

    return network


def _autoencoder(file: str) -> VQAutoencoder:
    tensors = selected(read_tensors(file), (f"{AUTOENCODER}.",))
    network = VQAutoencoder(read_vq(tensors, file))
    load_strict(network, tensors, what=file)
    return network
