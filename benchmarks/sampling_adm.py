"""The ADM U-Net in the layouts of the published priors, with random weights: one call."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mrbench_methods.networks.adm import ADMUNet
from mrbench_methods.networks.adm_options import ADMConfig
from plain_order import plain_adm
from sampling_timing import Rows, Timing, call_times, show, variants, with_ratios

MULTIPLIERS = (1, 1, 2, 2, 4, 4)
BLOCKS = {128: 1, 256: 2}  # ffhq_10m; the 256x256 models of ImageNet
ATTENTION = {128: (16,), 256: (8, 16, 32)}


def layout(channels: int, levels: int) -> ADMConfig:
    """The published layout of this width (others: as 128), cut to its first ``levels``."""
    return ADMConfig(
        in_channels=3,
        out_channels=6,
        model_channels=channels,
        channel_mult=MULTIPLIERS[:levels],
        num_res_blocks=BLOCKS.get(channels, 1),
        attention_rates=tuple(r for r in ATTENTION.get(channels, (16,)) if r < 2**levels),
        num_head_channels=min(64, channels),
        resblock_updown=True,
    )


def adm_calls(widths: Sequence[int], sizes: Sequence[int], levels: int, timing: Timing) -> dict[str, Rows]:
    """One call for every width and size. difference : over the largest value of the plain order's output."""
    results: dict[str, Rows] = {}
    for channels in widths:
        network = ADMUNet(layout(channels, levels))
        for parameter in network.parameters():  # layers that start at zero would hide what lies before them
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.02)
        ways = variants(network, plain_adm(network), timing.compiled)
        millions = sum(p.numel() for p in network.parameters()) / 1e6
        for size in sizes:
            side = -(-size // network.multiple) * network.multiple
            rows = with_ratios(call_times(ways, (torch.randn(1, 3, side, side), torch.tensor([500])), timing)[0])
            results[f"{channels} channels, {side}x{side}"] = rows
            show(f"ADM, {channels} channels, {levels} levels, {millions:.1f} million weights: a call on {side}x{side}", rows)
    return results
