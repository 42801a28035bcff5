"""Small networks with random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from mrbench_methods.networks.swin_unet import SwinUNet
from mrbench_methods.networks.swin_unet_options import SwinUNetConfig
from torch import Tensor

SMALL: dict[str, Any] = {
    "image_size": 16, "in_channels": 1, "out_channels": 1, "lq_channels": 1, "model_channels": 32, "channel_mult": (1, 1),
    "num_res_blocks": (1, 1), "attention_resolutions": (16,), "swin_embed_dim": 32, "num_heads": 2, "window_size": 4,
    "mlp_ratio": 2.0,
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_thread: None) -> None:
    """See ``one_thread``."""


@pytest.fixture
def rand() -> Callable[..., Tensor]:
    """Standard normal numbers, the same in every run."""
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=generator)


@pytest.fixture
def config() -> Callable[..., SwinUNetConfig]:
    """A small configuration with changes."""
    return lambda **changes: SwinUNetConfig(**{**SMALL, **changes})


@pytest.fixture
def unet(config: Callable[..., SwinUNetConfig]) -> Callable[..., SwinUNet]:
    """A small network in which every weight matters (layers that start at zero are filled too)."""

    def make(**changes: Any) -> SwinUNet:
        torch.manual_seed(1)
        network = SwinUNet(config(**changes)).eval()
        for parameter in network.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.3 if parameter.ndim == 2 else 0.1)
        return network

    return make
