"""Faster orders of operations give the numbers of the plain one."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from mrbench_methods.networks.adm import ADMUNet
from mrbench_methods.networks.adm_options import ADMConfig
from mrbench_methods.networks.swin import LARGE_MAP, GroupNorm, SwinBlock
from mrbench_methods.networks.swin_unet import SwinUNet
from torch import Tensor
from torch.nn import functional as F

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def plain_order() -> ModuleType:
    """The networks that ``benchmarks/sampling.py`` compares with."""
    file = BENCHMARKS / "plain_order.py"
    if not file.is_file():
        pytest.skip(f"no benchmarks at {BENCHMARKS}")
    spec = importlib.util.spec_from_file_location("plain_order", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# torch's group norm of channels-last maps takes variances as E[x^2] - E[x]^2: these large added times would cost it three digits
@pytest.mark.parametrize(
    ("changes", "layout"), [({}, torch.channels_last), ({"use_scale_shift_norm": False}, torch.contiguous_format)], ids=str
)
def test_swin_unet_is_its_plain_order(
    unet: Callable[..., SwinUNet],
    plain_order: ModuleType,
    rand: Callable[..., Tensor],
    changes: dict[str, Any],
    layout: torch.memory_format,
) -> None:
    network = unet(**changes).to(memory_format=layout)
    plain = plain_order.plain_swin(network)
    x, lq, t = rand(2, 1, 32, 16), rand(2, 1, 32, 16), torch.tensor([3, 7])
    with torch.no_grad():
        expected = plain(x, t, lq)
        torch.testing.assert_close(network(x, t, lq), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    assert not {type(m) for m in plain.modules()} & {GroupNorm, SwinBlock}


@pytest.mark.parametrize(
    "changes", [{}, {"use_new_attention_order": True}, {"use_scale_shift_norm": False}, {"resblock_updown": True}], ids=str
)
def test_adm_is_its_plain_order(plain_order: ModuleType, rand: Callable[..., Tensor], changes: dict[str, Any]) -> None:
    torch.manual_seed(1)
    settings: dict[str, Any] = {"model_channels": 8, "channel_mult": (1, 2), "num_res_blocks": 1, "groups": 4, "num_heads": 2}
    network = ADMUNet(ADMConfig(in_channels=1, out_channels=1, attention_rates=(2,), **settings, **changes)).eval()
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    network = network.to(memory_format=torch.channels_last)
    plain = plain_order.plain_adm(network)
    x, t = rand(2, 1, 16, 24), torch.tensor([3, 900])
    with torch.no_grad():
        expected = plain(x, t)
        torch.testing.assert_close(network(x, t), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("side", [int(LARGE_MAP**0.5), 16])  # both ways of computing
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_bfloat16_maps_are_normalised_in_float32(rand: Callable[..., Tensor], side: int, layout: torch.memory_format) -> None:
    norm = GroupNorm(64)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = (1 + rand(2, 64, side, side)).bfloat16().to(memory_format=layout)
    expected = F.group_norm(x.double(), 32, norm.weight.double(), norm.bias.double(), norm.eps)
    with torch.no_grad():
        found = norm(x)
    with_gradients = norm(x)
    assert found.dtype == with_gradients.dtype == torch.bfloat16
    for values in (found, with_gradients):
        torch.testing.assert_close(values.double(), expected, rtol=2**-8, atol=1e-2)
    torch.testing.assert_close(found, with_gradients, rtol=2**-7, atol=0)


def test_swin_blocks_keep_channels_last(rand: Callable[..., Tensor]) -> None:
    block = SwinBlock(32, 2, 16, 4, True, 2.0).to(memory_format=torch.channels_last)
    x = rand(1, 32, 16, 8).to(memory_format=torch.channels_last)
    assert block._attention(x).is_contiguous(memory_format=torch.channels_last)
