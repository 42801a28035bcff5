"""Scale-cascaded DiffPIR: ``restore(measurement, draws) -> [B, K, C, H, W]``."""

from __future__ import annotations

import torch
from torch import Tensor

from mrbench.cards import parse_options
from mrbench.degradation.measurement import Measurement
from mrbench.errors import UserError
from mrbench.hub import LocalCheckpoint

from ..networks.band_prior import BandPrior
from ..networks.cascade import Cascade, Chain, share_steps
from ..networks.cascade_cost import LevelCost, cost
from ..networks.cascade_options import CascadeConfig
from ..networks.loading import load_strict, selected, unwrapped
from ..networks.settings import filled, saved_options
from ..networks.steps import OnStep
from . import STEPS, ScaleCascadedOptions

NAME = "scale_cascaded"
DEFAULTS = ScaleCascadedOptions(steps=STEPS, sigma_min=0.002, sigma_max=80.0, lam=1.0, zeta=1.0)


class ScaleCascaded:
    """A diffusion prior for every band of a pyramid, with the true operator on every level (arXiv:2601.23201)."""

    nfe: int | None = None
    on_step: OnStep | None = None

    def __init__(self, options: ScaleCascadedOptions) -> None:
        """Keep the options; :meth:`load` brings the networks."""
        self._options = options

    def load(self, checkpoint: LocalCheckpoint | None, device: torch.device | str) -> None:
        """Build the networks of all levels.

        Raises
        ------
        UserError : no weights, weights that do not fit, or options that they do not allow.
        """
        if checkpoint is None:
            raise UserError(
                f"{NAME} needs weights, and none were found. Name some with --method {NAME}@PATH (a checkpoint folder), or "
                f"train your own with `mrbench train {NAME}`."
            )
        what = str(checkpoint.file)
        owner = checkpoint.config.get("method", NAME)
        if owner != NAME:
            raise UserError(f"{what} holds weights of {owner}, not of {NAME}. Use --method {owner}@..., or name another file.")
        architecture = checkpoint.config.get("architecture")
        if not architecture:
            raise UserError(
                f'{what}: {NAME} needs a config.json with an "architecture" beside the weights. Name a checkpoint folder.'
            )
        config = parse_options(CascadeConfig, architecture, f'{what}: "architecture" of config.json')
        assert isinstance(config, CascadeConfig)
        options = filled(filled(self._options, saved_options(checkpoint.config, ScaleCascadedOptions, what)), DEFAULTS)
        self._chain = chain = _chain(options, config, what)
        self._max_batch = options.max_batch
        networks = {name: BandPrior(level) for name, level in config.networks.items()}
        tensors = unwrapped(checkpoint.tensors("cpu"))
        _refuse_strays(tensors, config, what)
        for name, network in networks.items():
            own = tensors if len(networks) == 1 else selected(_under(tensors, name), ())
            load_strict(network, own, what=f"{what} ({name})")
            network.eval().requires_grad_(False)
            network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.networks, self.cascade = networks, Cascade(config, networks, what)
        scale = checkpoint.config.get("scale")
        if isinstance(scale, (int, float)):
            self.nfe = self.cascade.calls(chain, (scale, scale), self._options.sigma or 0.0)

    def restore(self, measurement: Measurement, draws: int) -> Tensor:
        """``draws`` samples ``[B, K, C, H, W]`` on the scale of the ground truth, not clipped.

        Raises
        ------
        UserError : no operator, other channels than the networks', or a noise level that nobody knows.
        """
        sigma = measurement.sigma if self._options.sigma is None else self._options.sigma
        if sigma is None:
            raise UserError(
                f"{NAME} needs the noise level of the measurement, and this task does not say it. Set the "
                "option sigma (0 for none) in units of the [0, 1] range."
            )
        self.nfe = self.cascade.calls(self._chain, measurement.scale, sigma) or None
        return self.cascade.restore(measurement, draws, self._chain, sigma, self._max_batch, self.on_step)

    def cost(self, size: tuple[int, int], scale: float, sigma: float = 0.0) -> tuple[LevelCost, ...]:
        """Network calls, parameters and multiply-adds of every level, the finest first, for one draw of ``size``."""
        return cost(self.cascade, size, self._chain, (scale, scale), sigma)


def _chain(options: ScaleCascadedOptions, config: CascadeConfig, what: str) -> Chain:
    levels = config.count if options.levels is None else options.levels
    if levels > config.count:
        raise UserError(f"levels {levels}: {what} has {config.count} level(s). Give at most that many.")
    given = {k: getattr(options, k) for k in ("steps", "sigma_min", "sigma_max", "lam", "zeta")}
    if given["sigma_min"] > given["sigma_max"]:
        raise UserError(f"sigma_min {given['sigma_min']:g} is larger than sigma_max {given['sigma_max']:g}.")
    share_steps(given["steps"], config.count)
    return Chain(levels=levels, target=options.target, **given)


def _under(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}


def _refuse_strays(tensors: dict[str, Tensor], config: CascadeConfig, what: str) -> None:
    stray = [k for k in tensors if k.partition(".")[0] not in config.networks]
    if len(config.networks) > 1 and stray:
        raise UserError(f"{what}: {stray[0]} (and {len(stray) - 1} more) belong to no level of its config.json.")
