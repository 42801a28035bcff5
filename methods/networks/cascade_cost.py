"""What a cascade costs: calls, parameters and multiplications of every level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from .band_prior import BandPrior
from .cascade import Cascade, Chain, share_steps
from .edm2_options import EDM2Config
from .pyramid import coarser


@dataclass(frozen=True)
class LevelCost:
    """One level: its number (1 is the finest), the side lengths of its images, network calls of one draw, parameters of its
    network,
    multiply-adds of one call, and of all calls.
    """

    level: int
    size: tuple[int, int]
    calls: int
    parameters: int
    call_macs: int

    @property
    def macs(self) -> int:
        """Multiply-adds of one draw."""
        return self.calls * self.call_macs


def cost(
    model: Cascade, size: Sequence[int], chain: Chain, scale: tuple[float, float], sigma: float = 0.0
) -> tuple[LevelCost, ...]:
    """The levels, the finest first, for images of ``size`` at ``scale`` with noise of ``sigma``; nothing is computed.

    Levels that the measurement determines have no calls. Data steps are not counted: they are products with one small matrix
    per axis.
    """
    shares = share_steps(chain.steps, model.count)
    sampled = model.sampled(chain, scale, sigma)
    multiple = model.config.multiple
    canvas = [-(-n // multiple) * multiple for n in size]
    found = []
    for level, config in enumerate(model.config.networks.values(), start=1):
        images = coarser(canvas, level - 1)
        parameters = sum(p.numel() for p in model.networks[level - 1].parameters())
        calls = shares[level - 1] if level in sampled else 0
        found.append(LevelCost(level, images, calls, parameters, call_macs(config, images)))
    return tuple(found)


def call_macs(config: EDM2Config, size: Sequence[int]) -> int:
    """Multiply-adds of one call on one image of ``size``, convolutions, linear layers and attention counted."""
    with torch.device("meta"), torch.no_grad():
        network = BandPrior(config).eval()
        image = torch.zeros(1, config.img_channels, *size)
        condition = torch.zeros(1, config.cond_channels, *size) if config.cond_channels else None
        with FlopCounterMode(display=False) as counter:
            network(image, torch.ones(1), condition)
    return int(counter.get_total_flops()) // 2
