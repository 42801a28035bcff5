"""The Swin U-Net of Res-SRDiff: the shipped weights, and a network of the published width."""

from __future__ import annotations

import mrbench_methods.res_srdiff
import numpy as np
import torch
from mrbench_methods.networks.swin_unet import SwinUNet
from mrbench_methods.networks.swin_unet_options import SwinUNetConfig
from mrbench_methods.res_srdiff.method import ResSRDiff
from plain_order import plain_swin
from sampling_timing import Rows, Timing, Variant, call_times, show, variants, with_ratios
from torch import Tensor

from mrbench.data.items import SliceReader
from mrbench.degradation.measurement import Measurement, degrade
from mrbench.engine.entries import Settings, parse_dataset
from mrbench.engine.task import open_task
from mrbench.errors import UserError
from mrbench.hub import find, resolve
from mrbench.plugins import discover
from mrbench.protocol import find_protocol
from mrbench.protocol import resolve as resolve_protocol

SCALE = 4
PUBLISHED_WIDTH = SwinUNetConfig(
    image_size=64, in_channels=1, out_channels=1, lq_channels=1, model_channels=160, channel_mult=(1, 2, 4), num_res_blocks=(2, 2, 2),
    attention_resolutions=(64, 32, 16), swin_embed_dim=96, mlp_ratio=2.0, use_scale_shift_norm=False,
)  # fmt: skip


def shipped_weights(size: int, slices: int, timing: Timing) -> Rows:
    """One call on ``size x size`` pixels, and whole slices of the data set ``sample`` as ``mrbench run`` restores them (in tiles).

    difference : of the call, on noise. psnr : of the restored slices, one draw.

    Raises
    ------
    UserError : no weights of Res-SRDiff ship for 4x.
    """
    (card,) = mrbench_methods.res_srdiff.mrbench_methods()
    found = find(card, scale=SCALE)
    if found is None:
        raise UserError("no weights of res_srdiff ship for 4x: leave out --part swin.")
    method = ResSRDiff(card.parse({}))
    method.load(resolve(found.record, card.name), "cpu")
    unet = method._model.unet
    side = -(-size // unet.multiple) * unet.multiple
    x = torch.randn(1, 1, side, side)
    ways = variants(unet, plain_swin(unet), timing.compiled)
    rows, ways = call_times(ways, (x, torch.tensor([3]), torch.rand_like(x)), timing)
    if slices:
        restored = slice_times(method, ways, sample_slices(slices), timing)
        rows = {name: {**values, **restored[name]} for name, values in rows.items()}
    rows = with_ratios(rows)
    show(f"res_srdiff@{found.record.name}: a call on {side}x{side}, a slice of sample (4 steps, tiles)", rows)
    return rows


def published_width(size: int, timing: Timing) -> Rows:
    """One call of a network of the published width with random weights."""
    network = SwinUNet(PUBLISHED_WIDTH)
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    side = -(-size // network.multiple) * network.multiple
    y = torch.randn(1, 1, side, side)
    ways = variants(network, plain_swin(network), timing.compiled)
    rows = with_ratios(call_times(ways, (y, torch.tensor([3]), y), timing)[0])
    show(f"Swin U-Net, 160 channels, three levels, random weights: a call on {side}x{side}", rows)
    return rows


def sample_slices(count: int) -> list[tuple[Tensor, Measurement]]:
    """Ground truths and measurements of the data set ``sample``."""
    registry = discover()
    protocol = find_protocol(f"uniform-x{SCALE}")
    task = open_task(parse_dataset("sample", Settings(), registry), protocol, registry)
    rules = resolve_protocol(protocol, registry)
    degradation = rules.degradation.load()(rules.degradation_options)
    reader = SliceReader()
    step = max(1, len(task.items) // count)
    found = []
    for item in list(task.items)[::step][:count]:
        hr = torch.from_numpy(reader.load(item).image)[None]
        found.append((hr, degrade(hr, [item.item_id], degradation, protocol.scales, seed_key=rules.hash)))
    return found


def slice_times(method: ResSRDiff, ways: list[Variant], slices: list[tuple[Tensor, Measurement]], timing: Timing) -> Rows:
    """Median seconds of a restored slice, and the mean PSNR; slices of a size that is met for the first time are restored twice."""
    seconds: dict[str, list[float]] = {way.name: [] for way in ways}
    quality: dict[str, list[float]] = {way.name: [] for way in ways}
    known: set[tuple[str, tuple[int, int]]] = set()
    with torch.inference_mode():
        for hr, measurement in slices:
            for way in ways:
                method._model.unet = way.network
                restored: list[Tensor] = []
                with way.cast():
                    if (way.name, measurement.size) not in known:  # allocates; compiles, if it must
                        method.restore(measurement, 1)
                        known.add((way.name, measurement.size))
                    seconds[way.name].append(timing.seconds(lambda: restored.append(method.restore(measurement, 1))))  # noqa: B023
                error = (restored[0][:, 0].float().clamp(0, 1) - hr).square().mean()
                quality[way.name].append(float(-10 * torch.log10(error)))
    return {
        way.name: {"slice_s": float(np.median(seconds[way.name])), "psnr": float(np.mean(quality[way.name]))} for way in ways
    }
