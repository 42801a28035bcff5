"""The Swin U-Net beyond published values: mask, sizes, batches, precision, conditions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from mrbench_methods.networks.swin import SwinBlock, last_row_mask, published_mask
from mrbench_methods.networks.swin_unet import SwinUNet, timestep_embedding
from mrbench_methods.networks.swin_unet_options import SwinUNetConfig
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from mrbench.cards import parse_options
from mrbench.errors import UserError

Make = Callable[..., SwinUNet]
Rand = Callable[..., Tensor]


def mask_by_definition(height: int, width: int, w: int, s: int) -> Tensor:
    """Row labels looked up with the column index inside the window, window by window."""

    def label(row: int) -> int:
        return 0 if row < height - w else 1 if row < height - s else 2

    masks = []
    for window_row in range(height // w):
        for _ in range(width // w):
            labels = torch.tensor([label(window_row * w + n % w) for n in range(w * w)])
            masks.append(torch.where(labels[:, None] == labels[None, :], 0.0, -100.0))
    return torch.stack(masks)


def textbook_mask(height: int, width: int, w: int, s: int) -> Tensor:
    """Liu et al. 2021: regions of the shifted image, by row and by column."""

    def region(n: int, length: int) -> int:
        return 0 if n < length - w else 1 if n < length - s else 2

    masks = []
    for i in range(height // w):
        for j in range(width // w):
            labels = torch.tensor([3 * region(i * w + n // w, height) + region(j * w + n % w, width) for n in range(w * w)])
            masks.append(torch.where(labels[:, None] == labels[None, :], 0.0, -100.0))
    return torch.stack(masks)


@pytest.mark.parametrize(("size", "w"), [((32, 32), 8), ((32, 64), 8), ((64, 40), 8), ((8, 16), 8), ((12, 8), 4)])
def test_the_mask_is_the_published_one(size: tuple[int, int], w: int) -> None:
    height, width = size
    defined = mask_by_definition(height, width, w, w // 2)
    windows = width // w
    expected = torch.zeros(len(defined), w * w, w * w)
    expected[-windows:] = last_row_mask(w, w // 2)
    assert torch.equal(defined, expected)
    assert not torch.equal(defined, textbook_mask(height, width, w, w // 2))
    if height == width:
        assert torch.equal(published_mask(height, w, w // 2), defined)


def naive_attention(block: SwinBlock, x: Tensor, mask: Tensor | None) -> Tensor:
    """Window by window, head by head."""
    w, s, attn = block.window, block.shift, block.attn
    batch, width, height, breadth = x.shape
    d = width // attn.heads
    x = x.roll((-s, -s), (2, 3))
    out = torch.empty_like(x)
    table, index = attn.relative_position_bias_table, attn.relative_position_index
    for b in range(batch):
        for i in range(height // w):
            for j in range(breadth // w):
                tokens = x[b, :, i * w : (i + 1) * w, j * w : (j + 1) * w].reshape(width, w * w).T
                q, k, v = attn.qkv(tokens).chunk(3, dim=1)
                heads = []
                for h in range(attn.heads):
                    part = slice(h * d, (h + 1) * d)
                    logits = (q[:, part] / math.sqrt(d)) @ k[:, part].T + table[index, h]
                    if mask is not None:
                        logits = logits + mask[i * (breadth // w) + j]
                    heads.append(logits.softmax(1) @ v[:, part])
                mixed = attn.proj(torch.cat(heads, 1)).T.reshape(width, w, w)
                out[b, :, i * w : (i + 1) * w, j * w : (j + 1) * w] = mixed
    return out.roll((s, s), (2, 3))


@pytest.mark.parametrize("size", [(16, 16), (4, 12), (20, 8)])
@pytest.mark.parametrize("shifted", [False, True])
def test_a_block_is_attention_window_by_window(size: tuple[int, int], shifted: bool, rand: Rand) -> None:
    torch.manual_seed(0)
    block = SwinBlock(32, 2, 16, 4, shifted, 2.0)
    torch.nn.init.normal_(block.attn.relative_position_bias_table)
    x = rand(2, 32, *size)
    mask = mask_by_definition(*size, 4, 2) if shifted else None
    with torch.inference_mode():
        y = x + naive_attention(block, block.norm1(x), mask)
        expected = y + block.mlp(block.norm2(y))
        assert torch.allclose(block(x), expected, atol=2e-5)
        if shifted and size != (4, 12):
            wrong = x + naive_attention(block, block.norm1(x), textbook_mask(*size, 4, 2))
            assert float((y - wrong).abs().max()) > 0.05


def test_small_nominal_sizes_are_never_shifted(rand: Rand) -> None:
    block = SwinBlock(32, 2, 4, 8, True, 2.0)
    assert (block.window, block.shift) == (4, 0)
    assert "attn_mask" not in dict(block.named_buffers())
    assert block(rand(1, 32, 16, 8)).shape == (1, 32, 16, 8)


def test_timestep_embedding() -> None:
    steps = torch.tensor([0, 7])
    values = timestep_embedding(steps, 5)
    assert values.shape == (2, 5)
    expected = [math.cos(7), math.cos(7 / 100), math.sin(7), math.sin(7 / 100), 0]
    assert torch.allclose(values[1], torch.tensor(expected), atol=1e-6)


@pytest.mark.parametrize(
    "changes", [{}, {"use_scale_shift_norm": False, "model_channels": 64}, {"swin": False}, {"channel_mult": (1, 2)}]
)
def test_items_do_not_see_each_other(changes: dict[str, Any], unet: Make, rand: Rand) -> None:
    network = unet(**changes)
    x, lq, t = rand(3, 1, 16, 32), rand(3, 1, 16, 32), torch.tensor([0, 3, 11])
    with torch.inference_mode():
        together = network(x, t, lq)
        for i in range(3):
            alone = network(x[i : i + 1], t[i : i + 1], lq[i : i + 1])
            assert float((together[i] - alone[0]).abs().max()) <= 1e-5 * max(1.0, float(together.abs().max()))
        assert float((network(x, t + 1, lq) - together).abs().max()) > 1e-3
        assert float((network(x, t, lq + 1) - together).abs().max()) > 1e-3


def test_sizes_that_do_not_fit_are_refused(unet: Make, rand: Rand) -> None:
    network = unet()
    t = torch.tensor([0])
    assert network.multiple == 8
    with pytest.raises(ValueError, match="multiples of 8, got 16x12"):
        network(rand(1, 1, 16, 12), t, rand(1, 1, 16, 12))
    with pytest.raises(ValueError, match="the condition has 16x16 pixels"):
        network(rand(1, 1, 16, 16), t, rand(1, 1, 8, 8))
    with pytest.raises(ValueError, match="cond_mask is False, but a mask was given"):
        network(rand(1, 1, 16, 16), t, rand(1, 1, 16, 16), rand(1, 1, 16, 16))


@pytest.mark.parametrize(
    ("changes", "multiple"),
    [
        ({}, 8),
        ({"swin": False}, 2),
        ({"image_size": 64, "window_size": 8, "channel_mult": (1, 1, 1, 1), "num_res_blocks": (1,) * 4}, 64),
        ({"image_size": 8, "window_size": 8, "attention_resolutions": (8,)}, 8),
        ({"image_size": 48, "window_size": 8, "attention_resolutions": (24,)}, 16),
        ({"lq_size": 1, "swin": False}, 16),
        ({"unshuffle": 2}, 16),
    ],
)
def test_declared_multiple(changes: dict[str, Any], multiple: int, config: Callable[..., SwinUNetConfig]) -> None:
    assert config(**changes).multiple == multiple


@pytest.mark.parametrize(
    ("changes", "lq", "added"),
    [
        ({"lq_size": 32}, (32, 48), 32),
        ({"lq_size": 64, "cond_mask": True}, (64, 96), 64),
        ({"lq_size": 32, "condition": "unshuffle"}, (32, 48), 4),
        ({"lq_size": 4}, (4, 6), 1),
        ({"cond_mask": True, "lq_channels": 3}, (16, 24), 4),
    ],
)
def test_conditions_of_other_sizes(changes: dict[str, Any], lq: tuple[int, int], added: int, unet: Make, rand: Rand) -> None:
    network = unet(**changes)
    assert network.config.added_channels == added
    assert network.get_submodule("input_blocks.0.0").weight.shape[1] == 1 + added
    mask = (torch.ones(2, 1, *lq),) if network.config.cond_mask else ()
    condition = rand(2, network.config.lq_channels, *lq)
    with torch.inference_mode():
        out = network(rand(2, 1, 16, 24), torch.tensor([0, 1]), condition, *mask)
        assert out.shape == (2, 1, 16, 24)
        other = (mask[0] * -1,) if mask else ()
        if mask:
            x = rand(2, 1, 16, 24)
            a, b = (network(x, torch.tensor([0, 1]), condition, *m) for m in (mask, other))
            assert float((a - b).abs().max()) > 1e-3


def test_blocks_of_pixels_as_channels(unet: Make, rand: Rand) -> None:
    """With ``unshuffle`` the network inside sees 2 x 2 pixels as four channels, and its output is put back in place."""
    network = unet(unshuffle=2)
    inner = unet(in_channels=4, out_channels=4, lq_channels=4)
    inner.load_state_dict(network.state_dict())
    x, lq, t = rand(2, 1, 32, 48), rand(2, 1, 32, 48), torch.tensor([0, 2])
    with torch.inference_mode():
        expected = pixel_shuffle(inner(pixel_unshuffle(x, 2), t, pixel_unshuffle(lq, 2)), 2)
        assert torch.equal(network(x, t, lq), expected)


def test_without_swin_the_other_keys_stay(unet: Make) -> None:
    full, bare = unet().state_dict(), unet(swin=False).state_dict()
    assert set(bare) == {key for key in full if ".1.patch" not in key and ".1.blocks" not in key}
    assert "middle_block.2.in_layers.2.weight" in bare


def test_memory_format_and_autocast(unet: Make, rand: Rand) -> None:
    network = unet()
    x, lq, t = rand(2, 1, 32, 32), rand(2, 1, 32, 32), torch.tensor([1, 2])
    with torch.inference_mode():
        expected = network(x, t, lq)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(x, t, lq)
        network.to(memory_format=torch.channels_last)
        assert torch.allclose(network(x, t, lq), expected, atol=1e-5 * float(expected.abs().max()))
    assert half.dtype == torch.float32
    error = (half - expected).square().mean().sqrt() / expected.std()
    assert 0 < float(error) < 0.1  # these random weights amplify; trained ones do less


def test_gradients_reach_every_weight(unet: Make, rand: Rand) -> None:
    network = unet()
    network(rand(1, 1, 16, 16), torch.tensor([1]), rand(1, 1, 16, 16)).square().mean().backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not bool(p.grad.abs().max() > 0)]
    assert not without


def test_new_networks_start_without_their_residual_branches(config: Callable[..., SwinUNetConfig]) -> None:
    network = SwinUNet(config())
    zero = [k for k, v in network.state_dict().items() if k.endswith("out_layers.3.weight") and not v.any()]
    assert len(zero) == sum("out_layers.3.weight" in key for key in network.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_as_one_graph(backend: str, unet: Make, rand: Rand) -> None:
    network = unet(channel_mult=(1,), num_res_blocks=(1,)) if backend == "inductor" else unet()
    x, lq, t = rand(1, 1, 16, 16), rand(1, 1, 16, 16), torch.tensor([1])
    compiled: Any = torch.compile(network, fullgraph=True, backend=backend)
    with torch.no_grad():
        assert torch.allclose(compiled(x, t, lq), network(x, t, lq), atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_res_blocks": (1,)}, "num_res_blocks has 1 entries for 2 levels"),
        ({"model_channels": 24}, "multiples of 32"),
        ({"swin_embed_dim": 48}, "multiples of 32"),
        ({"num_heads": 3}, "cannot be divided into these heads"),
        ({"image_size": 15}, "cannot be halved"),
        ({"lq_size": 48}, "power-of-two"),
        ({"lq_size": 6}, "power-of-two"),
        ({"unshuffle": 2, "lq_size": 32}, "unshuffle needs a condition of the state's size"),
        ({"width": 3}, "no option 'width'"),
    ],
)
def test_bad_configurations_are_refused(changes: dict[str, Any], message: str, config: Callable[..., SwinUNetConfig]) -> None:
    given = json.loads(config().model_dump_json()) | changes
    with pytest.raises(UserError, match=message):
        parse_options(SwinUNetConfig, given, "architecture")
