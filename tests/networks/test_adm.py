"""The ADM U-Net beyond published values: unshuffled pixels, conditions, sizes, batches, precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from mrbench_methods.networks.adm import ADMUNet
from mrbench_methods.networks.adm_options import ADMConfig
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from mrbench.cards import parse_options
from mrbench.errors import UserError

SMALL: dict[str, Any] = {
    "in_channels": 1, "out_channels": 1, "model_channels": 8, "channel_mult": (1, 2), "num_res_blocks": 1, "groups": 4,
    "attention_rates": (2,), "num_head_channels": 8,
}  # fmt: skip
Make = Callable[..., ADMUNet]
Rand = Callable[..., Tensor]


@pytest.fixture
def make() -> Make:
    """A small network in which every weight matters (layers that start at zero are filled too)."""

    def network(**changes: Any) -> ADMUNet:
        torch.manual_seed(1)
        found = ADMUNet(ADMConfig(**{**SMALL, **changes})).eval()
        for parameter in found.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)
        return found

    return network


def test_unshuffled_pixels_are_channels_of_the_same_network(make: Make, rand: Rand) -> None:
    blocks, plain = make(unshuffle=2, in_channels=2, out_channels=4), make(in_channels=8, out_channels=16)
    assert {k: v.shape for k, v in blocks.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}
    plain.load_state_dict(blocks.state_dict())
    x, t = rand(2, 2, 16, 24), torch.tensor([3.0, 700.5])
    assert blocks.multiple == 4
    assert torch.allclose(blocks(x, t), pixel_shuffle(plain(pixel_unshuffle(x, 2), t), 2), atol=1e-5)


def test_the_orders_of_attention_are_permutations_of_each_other(make: Make, rand: Rand) -> None:
    legacy, new = make(), make(use_new_attention_order=True)
    state = legacy.state_dict()
    for key in [k for k in state if ".qkv." in k]:
        heads = state[key].shape[0] // 24
        state[key] = state[key].unflatten(0, (heads, 3, 8)).transpose(0, 1).flatten(0, 2)
    new.load_state_dict(state)
    x, t = rand(1, 1, 8, 12), torch.tensor([5])
    assert torch.allclose(legacy(x, t), new(x, t), atol=1e-5)


def test_a_batch_is_its_images(make: Make, rand: Rand) -> None:
    network = make(num_classes=3, low_res_channels=2)
    x, t, labels, low = rand(3, 1, 8, 8), torch.tensor([1, 50, 999]), torch.tensor([0, 2, 1]), rand(3, 2, 4, 2)
    together = network(x, t, labels, low)
    alone = torch.cat([network(x[k, None], t[k, None], labels[k, None], low[k, None]) for k in range(3)])
    assert torch.allclose(together, alone, atol=1e-5)
    for changed in (
        network(x, t + 0.25, labels, low), network(x, t, labels.flip(0), low), network(x, t, labels, -low), network(-x, t, labels, low),
    ):  # fmt: skip
        assert not torch.allclose(together, changed, atol=1e-3)


@pytest.mark.parametrize("changes", [{"resblock_updown": True}, {"conv_resample": False}, {"use_scale_shift_norm": False}])
def test_layout_and_precision_change_little(make: Make, rand: Rand, changes: dict[str, Any]) -> None:
    network = make(**changes)
    x, t = rand(2, 1, 16, 8), torch.tensor([10, 600])
    out = network(x, t)
    last = network.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last), t)
    assert torch.allclose(out, last, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        half = network(x, t)
    assert half.dtype == torch.float32
    assert (half - out).abs().mean() < 0.05 * out.abs().mean()


def test_it_starts_at_zero_and_dropout_acts_in_training_only(rand: Rand) -> None:
    network = ADMUNet(ADMConfig(**SMALL, dropout=0.5))
    x, t = rand(1, 1, 8, 8), torch.tensor([7])
    assert not network(x, t).any()
    torch.nn.init.normal_(network.out[2].weight)
    for block in (m for m in network.modules() if hasattr(m, "out_layers")):
        torch.nn.init.normal_(block.out_layers[3].weight)
    assert not torch.allclose(network(x, t), network(x, t))
    network.eval()
    assert torch.equal(network(x, t), network(x, t))


@pytest.mark.parametrize(
    ("changes", "size", "arguments", "message"),
    [
        ({}, (9, 8), {}, "multiples of 2, got 9x8"),
        ({"unshuffle": 4}, (12, 16), {}, "multiples of 8, got 12x16"),
        ({}, (8, 8), {"labels": torch.tensor([0])}, "no classes, but a label"),
        ({"num_classes": 5}, (8, 8), {}, "5 classes, but no label"),
        ({"low_res_channels": 1}, (8, 8), {}, "takes 1 channels .* got 0"),
        ({}, (8, 8), {"low_res": torch.zeros(1, 3, 4, 4)}, "takes 0 channels .* got 3"),
    ],
)
def test_what_does_not_fit_is_refused(make: Make, changes: dict, size: tuple[int, int], arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)(torch.zeros(1, 1, *size), torch.tensor([1]), **arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_channels": 7}, "is odd"),
        ({"groups": 3}, "widths \\[8, 16\\] are no multiples of 3"),
        ({"attention_rates": (32,)}, "the levels have the rates \\[1, 2\\]"),
        ({"num_head_channels": 12}, "cannot be divided"),
        ({"num_head_channels": -1, "num_heads": 5}, "cannot be divided"),
        ({"num_head_channels": -1, "num_heads_upsample": 3}, "cannot be divided"),
        ({"num_head_channels": 0}, "0 heads"),
        ({"attention_resolutions": (2,)}, "has no option 'attention_resolutions'"),
    ],
)
def test_configurations_that_contradict_themselves_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_options(ADMConfig, {**SMALL, **changes}, "network")
