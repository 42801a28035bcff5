"""I2SB: ``restore(measurement, draws) -> [B, K, C, H, W]``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mrbench.cards import parse_options
from mrbench.degradation.measurement import Measurement, upsample
from mrbench.errors import UserError
from mrbench.hub import LocalCheckpoint

from ..networks.adm import ADMUNet
from ..networks.adm_options import ADMConfig
from ..networks.bridge import Bridge
from ..networks.bridge_options import BridgeConfig
from ..networks.bridge_weights import channels_of, published_config, published_tensors
from ..networks.canvas import Noise, restore_on_canvas
from ..networks.loading import load_strict
from ..networks.residual_model import no_weights
from ..networks.settings import filled, saved_options
from ..networks.steps import OnStep
from . import NFE, PREUPSAMPLE, I2SBOptions

NAME = "i2sb"
PARTS = {"unet": ADMConfig, "bridge": BridgeConfig}


class I2SB:
    """The reverse of a bridge, from the interpolated LR image to the HR image (arXiv:2302.05872)."""

    nfe: int | None = None
    on_step: OnStep | None = None

    def __init__(self, options: I2SBOptions) -> None:
        """Keep the options; :meth:`load` brings the network."""
        self._options = options

    def load(self, checkpoint: LocalCheckpoint | None, device: torch.device | str) -> None:
        """Build the network and the bridge that the checkpoint describes, or those of the published weights.

        Raises
        ------
        UserError : no weights, weights that do not fit, or options that contradict them.
        """
        if checkpoint is None:
            raise no_weights(NAME)
        what = str(checkpoint.file)
        saved = saved_options(checkpoint.config, I2SBOptions, what)
        self._sampling = options = filled(self._options, saved)
        parts = _architecture(checkpoint, what)
        if parts:
            unet, bridge = parts
            tensors = checkpoint.tensors("cpu")
            if options.beta_max not in (None, bridge.beta_max):
                raise UserError(
                    f"{what} was trained with beta_max {bridge.beta_max:g}, not {options.beta_max:g}: it would be told other noise levels "
                    "than its states have. Leave the option beta_max out."
                )
        else:
            tensors = published_tensors(checkpoint.contents("cpu"), what)
            unet, bridge = published_config(tensors, what)
            bridge = bridge.model_copy(update={"beta_max": options.beta_max or bridge.beta_max})
        self._channels = channels_of(unet, bridge, what)
        self.nfe = _nfe(options, bridge, what)
        self._bridge = Bridge(bridge)
        self._ot_ode = options.sampling == "ot_ode" if options.sampling else bridge.ot_ode
        self._unet = ADMUNet(unet)
        load_strict(self._unet, tensors, what=what)
        self._unet.eval().requires_grad_(False).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def restore(self, measurement: Measurement, draws: int) -> Tensor:
        """``draws`` samples ``[B, K, C, H, W]`` in [0, 1]; without noise, one sample ``draws`` times.

        Raises
        ------
        UserError : images with other channels than the network's.
        """
        options, nfe = self._sampling, self.nfe
        assert nfe is not None  # the engine calls load() first
        noiseless = self._ot_ode or nfe == 1

        def sampler(x1: Tensor, noise: Noise, on_step: OnStep | None) -> Tensor:
            def network(state: Tensor, times: Tensor) -> Tensor:
                seen = torch.cat([state, x1], dim=1) if self._bridge.config.cond_x1 else state
                out: Tensor = self._unet(seen, times)
                return out

            clip, final = bool(options.clip), options.final or "official"
            return self._bridge.sample(network, x1, noise, nfe, ot_ode=self._ot_ode, clip=clip, final=final, on_step=on_step)

        def upsampler(canvas: Measurement) -> Tensor:
            return upsample(canvas, options.preupsample or PREUPSAMPLE)  # type: ignore[arg-type]

        restored = restore_on_canvas(
            measurement, 1 if noiseless else draws, sampler, upsampler, options,
            channels=self._channels, multiple=self._unet.multiple, on_step=self.on_step,
        )  # fmt: skip
        return restored.expand(-1, draws, -1, -1, -1)


def _architecture(checkpoint: LocalCheckpoint, what: str) -> tuple[ADMConfig, BridgeConfig] | None:
    """What ``config.json`` says of network and bridge; ``None`` where there is none."""
    owner = checkpoint.config.get("method", NAME)
    if owner != NAME:
        raise UserError(f"{what} holds weights of {owner}, not of {NAME}. Use --method {owner}@..., or name another file.")
    parts: Mapping[str, Any] = checkpoint.config.get("architecture") or {}
    if not parts:
        return None
    unknown = sorted(set(parts) - set(PARTS))
    if unknown or "unet" not in parts:
        problem = f"unknown parts {', '.join(unknown)}" if unknown else "no part unet"
        raise UserError(f'{what}: the "architecture" of its config.json has {problem}. Known: {", ".join(PARTS)}.')
    unet = parse_options(ADMConfig, parts["unet"], f'{what}: "architecture.unet" of config.json')
    bridge = parse_options(BridgeConfig, parts.get("bridge") or {}, f'{what}: "architecture.bridge" of config.json')
    assert isinstance(unet, ADMConfig)
    assert isinstance(bridge, BridgeConfig)
    return unet, bridge


def _nfe(options: I2SBOptions, bridge: BridgeConfig, what: str) -> int:
    """Network calls: as asked for, else 10 (``UserError`` if the bridge has not so many)."""
    most = bridge.interval - 1
    nfe = min(NFE, most) if options.nfe is None else options.nfe
    if nfe > most:
        raise UserError(
            f"nfe {nfe}: {what} was trained with {bridge.interval} steps, so between 1 and {most} calls are possible."
        )
    return nfe
