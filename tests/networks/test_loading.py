"""Weights into networks: wrappers, prefixes, buffers that follow from the configuration, and refusals; shapes to configurations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mrbench_methods.networks.loading import load_strict, read_tensors, selected
from mrbench_methods.networks.reading import read_swin_unet, read_vq
from mrbench_methods.networks.swin_unet import SwinUNet
from mrbench_methods.networks.swin_unet_options import SwinUNetConfig
from mrbench_methods.networks.vq import VQAutoencoder
from mrbench_methods.networks.vq_options import VQConfig
from safetensors.torch import save_file
from torch import Tensor, nn

from mrbench.errors import UserError

Make = Callable[..., SwinUNet]
DERIVED = SwinUNet.derived_buffers


def filled(network: nn.Module) -> dict[str, Tensor]:
    return {key: torch.full_like(value, 0.25 + i / 64) for i, (key, value) in enumerate(network.state_dict().items())}


def equal(network: nn.Module, tensors: dict[str, Tensor]) -> bool:
    own = network.state_dict()
    return set(own) == set(tensors) and all(torch.equal(own[key], tensors[key]) for key in own)


@pytest.mark.parametrize("wrapper", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_wrappers_are_taken_off(wrapper: str, unet: Make) -> None:
    network = unet()
    tensors = filled(network)
    load_strict(network, {wrapper + key: value for key, value in tensors.items()}, derived=DERIVED)
    assert equal(network, tensors)


def test_compiled_inside(unet: Make) -> None:
    network = unet()
    tensors = filled(network)
    load_strict(network, {key.replace("middle_block.", "middle_block._orig_mod."): v for key, v in tensors.items()})
    assert equal(network, tensors)


def test_prefixes_drop_and_rename(unet: Make) -> None:
    network = unet()
    tensors = filled(network)
    joined = {f"ema.module.{key}": value for key, value in tensors.items()} | {"step": torch.tensor(3), "raw.w": torch.ones(1)}
    load_strict(network, joined, prefixes=("ema_model.", "ema."))
    assert equal(network, tensors)
    renamed = {key.replace("out.2", "head"): value for key, value in tensors.items()} | {
        "extra.num_batches_tracked": torch.ones(1)
    }
    with pytest.raises(UserError, match="not part of the network"):
        load_strict(network, renamed, rename=lambda key: key.replace("head", "out.2"))
    load_strict(network, renamed, rename=lambda key: key.replace("head", "out.2"), drop=["*.num_batches_tracked"])
    assert selected({"a.x": torch.ones(1), "b.x": torch.zeros(1)}, ("b.",)).keys() == {"x"}


def test_half_precision_weights_become_float32(unet: Make) -> None:
    network = unet()
    tensors = filled(network)
    load_strict(network, {key: value.half() for key, value in tensors.items()})
    assert all(p.dtype == torch.float32 for p in network.parameters())
    assert equal(network, {key: value.half().float() for key, value in tensors.items()})


def test_published_buffers_may_be_there_in_any_size_or_not_at_all(unet: Make, config: Callable[..., SwinUNetConfig]) -> None:
    network = unet()
    published = SwinUNet(config(image_size=32, attention_resolutions=(32,)), published_buffers=True).state_dict()
    assert any(key.endswith("attn_mask") for key in published)
    before = {key: value.clone() for key, value in network.named_buffers()}
    spoiled = {key: value + 1 if key.endswith(DERIVED) else value for key, value in published.items()}
    load_strict(network, spoiled, derived=DERIVED)
    assert all(torch.equal(before[key], value) for key, value in network.named_buffers())
    load_strict(network, {k: v for k, v in published.items() if not k.endswith(DERIVED)}, derived=DERIVED)
    keeps = SwinUNet(config(), published_buffers=True)
    load_strict(keeps, spoiled, derived=DERIVED)
    assert torch.equal(keeps.state_dict()["middle_block.1.blocks.1.attn_mask"], before["middle_block.1.blocks.1.attn_mask"])


def test_a_mask_where_no_block_is_shifted_tells_another_architecture(unet: Make, config: Callable[..., SwinUNetConfig]) -> None:
    published = SwinUNet(config(image_size=32, attention_resolutions=(32,), window_size=4), published_buffers=True).state_dict()
    network = SwinUNet(config(image_size=8, attention_resolutions=(8,), window_size=4))  # the middle is one window
    with pytest.raises(UserError, match=r"not part of the network \(middle_block\.1\.blocks\.1\.attn_mask"):
        load_strict(network, published, derived=DERIVED)


def test_refusals_name_keys_and_shapes(unet: Make) -> None:
    network, wide = unet(), unet(mlp_ratio=4.0)
    with pytest.raises(UserError) as caught:
        load_strict(network, filled(wide), what="w.pth")
    assert "w.pth do not fit the network SwinUNet" in str(caught.value)
    assert "of another shape" in str(caught.value)
    assert "mlp.fc1.weight is [128, 32, 1, 1], expected [64, 32, 1, 1]" in str(caught.value)
    tensors = filled(network)
    gone = tensors.pop("out.2.bias")
    with pytest.raises(UserError, match=r"1 missing \(out\.2\.bias\); 1 not part of the network \(out\.3\.bias\)"):
        load_strict(network, tensors | {"out.3.bias": gone})
    before = filled(network)
    network.load_state_dict(before)
    with pytest.raises(UserError):
        load_strict(network, filled(unet(swin=False)))
    assert equal(network, before)  # nothing was copied


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_scale_shift_norm": False, "mlp_ratio": 1.5, "swin_depth": 3},
        {"swin": False},
        {"lq_size": 64},
        {"image_size": 32, "attention_resolutions": (), "channel_mult": (1, 3), "num_res_blocks": (2, 1)},
        {"image_size": 8, "window_size": 4, "attention_resolutions": (4,)},
        {"image_size": 8, "window_size": 8, "attention_resolutions": (8, 4)},
        {"lq_channels": 3, "in_channels": 3, "out_channels": 3, "cond_mask": True},
    ],
)
def test_configurations_are_read_off_shapes(changes: dict[str, Any], config: Callable[..., SwinUNetConfig]) -> None:
    given = config(**changes)
    network = SwinUNet(given, published_buffers=True)
    read = read_swin_unet(network.state_dict())
    again = SwinUNet(read, published_buffers=True)
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in network.state_dict().items()}
    assert [k for k, v in network.state_dict().items() if k.endswith("attn_mask")] == [
        k for k, v in again.state_dict().items() if k.endswith("attn_mask")
    ]
    assert read.multiple == given.multiple
    if given.swin:
        assert (read.image_size, read.lq_side) == (given.image_size, given.lq_side)


def test_other_networks_are_not_read(unet: Make) -> None:
    with pytest.raises(UserError, match=r"a\.pth do not tell .* U-Net with Swin layers: there is no time_embed\.0\.weight"):
        read_swin_unet({"conv.weight": torch.ones(1)}, "a.pth")
    with pytest.raises(UserError, match="VQ autoencoder"):
        read_vq(unet().state_dict())
    with pytest.raises(UserError, match="it returns 4 channels"):
        read_swin_unet(unet(unshuffle=2).state_dict())
    with pytest.raises(UserError, match="the condition has 12 channels"):
        read_swin_unet(unet(in_channels=3, out_channels=3, lq_channels=3, lq_size=32, condition="unshuffle").state_dict())


def small_vq() -> VQAutoencoder:
    return VQAutoencoder(VQConfig(embed_dim=3, n_embed=32, z_channels=4, ch=32, ch_mult=(1, 2), num_res_blocks=(1, 2)))


def test_files(tmp_path: Path) -> None:
    tensors = {key: value.contiguous() for key, value in small_vq().state_dict().items()}
    assert read_vq(tensors) == small_vq().config
    torch.save({"state_dict": tensors, "iters_start": 5}, tmp_path / "a.pth")
    torch.save(tensors, tmp_path / "b.pt")
    save_file(tensors, tmp_path / "c.safetensors")
    for name in ("a.pth", "b.pt", "c.safetensors"):
        assert set(read_tensors(tmp_path / name)) == set(tensors)
    (tmp_path / "d.pth").write_bytes(b"not a file of torch")
    for name, message in (("d.pth", "not a whole PyTorch file|refused"), ("e.pth", "no such file")):
        with pytest.raises(UserError, match=message):
            read_tensors(tmp_path / name)


def test_autoencoder(rand: Callable[..., Tensor]) -> None:
    network = small_vq().eval()
    x = rand(2, 3, 12, 20).clamp(-1, 1)
    with torch.inference_mode():
        z = network.encode(x)
        assert z.shape == (2, 3, 6, 10)
        assert network.factor == 2
        quantised = network.quantize(z)
        assert torch.allclose(network.decode(z), network.decode(quantised, quantise=False), atol=1e-6)
        assert network.decode(z[:1]).shape == (1, 3, 12, 20)
        assert torch.allclose(network.decode(z)[:1], network.decode(z[:1]), atol=1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            assert network.decode(z).dtype == torch.float32
            assert torch.equal(network.quantize.indices(z), network.quantize.indices(z.clone()))
        distances = (z.permute(0, 2, 3, 1).reshape(-1, 1, 3) - network.quantize.embedding.weight).square().sum(2)
        chosen = network.quantize.indices(z)
        assert torch.allclose(distances.gather(1, chosen[:, None])[:, 0], distances.min(1).values, atol=1e-6)
    z = z.clone().requires_grad_()
    network.quantize(z).sum().backward()
    assert z.grad is not None
    assert torch.equal(z.grad, torch.ones_like(z))  # straight through
