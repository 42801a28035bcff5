"""Weights of bridges: published files, priors to begin from, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from mrbench_methods.networks.adm import ADMUNet
from mrbench_methods.networks.adm_options import ADMConfig
from mrbench_methods.networks.bridge_options import BridgeConfig
from mrbench_methods.networks.bridge_weights import PUBLISHED, channels_of, from_prior, published_config, published_tensors
from mrbench_methods.networks.loading import load_strict
from torch import Tensor

from mrbench.errors import UserError

TINY: dict[str, Any] = {"model_channels": 32, "channel_mult": (1, 1), "num_res_blocks": 1, "num_head_channels": 32}


def tiny(inputs: int, outputs: int, seed: int = 0) -> ADMUNet:
    torch.manual_seed(seed)
    network = ADMUNet(ADMConfig(in_channels=inputs, out_channels=outputs, **TINY))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network


def layout(**changes: Any) -> dict[str, Tensor]:
    """The published network without memory."""
    with torch.device("meta"):
        return dict(ADMUNet(ADMConfig(**{**PUBLISHED, "in_channels": 3, **changes})).state_dict())


@pytest.mark.parametrize(("channels", "count"), [(3, 552_807_171), (6, 552_814_083)])
def test_the_published_network_is_recognised(channels: int, count: int) -> None:
    given = layout(in_channels=channels)
    assert sum(value.numel() for value in given.values()) == count
    config, bridge = published_config(given, "latest.pt")
    assert (config.in_channels, config.out_channels, config.attention_rates) == (channels, 3, (8, 16, 32))
    assert bridge == BridgeConfig(cond_x1=channels == 6)
    assert channels_of(config, bridge, "latest.pt") == 3


def test_other_networks_are_refused() -> None:
    with pytest.raises(UserError, match=r"prior.pt holds an unconditional ADM, a diffusion prior: it knows no LR images"):
        published_config(layout(out_channels=6), "prior.pt")
    for other in (layout(model_channels=128), dict(tiny(3, 3).state_dict()), dict(tiny(1, 1).state_dict()), {}):
        with pytest.raises(UserError, match="another network than the published I2SB weights"):
            published_config(other, "other.pt")
    missing = layout()
    del missing["out.2.bias"]
    with pytest.raises(UserError, match="another network"):
        published_config(missing, "cut.pt")


def test_averaged_weights_come_first(rand: Callable[..., Tensor]) -> None:
    last, averaged = tiny(3, 3), tiny(3, 3, seed=1)
    net = {f"diffusion_model.{key}": value for key, value in last.state_dict().items()}
    shadow = [parameter.detach() for parameter in averaged.parameters()]
    ema = {"decay": 0.99, "num_updates": 7, "shadow_params": shadow, "collected_params": None}
    content = {"net": net, "ema": ema, "optimizer": {"state": {}}, "sched": None}
    target = tiny(3, 3, seed=2)
    for given, expected in ((content, averaged), ({"net": net}, last), (net, last)):
        load_strict(target, published_tensors(given, "latest.pt"))
        for key, value in target.state_dict().items():
            assert torch.equal(value, expected.state_dict()[key])
    assert list(published_tensors(content, "a")) == list(last.state_dict())
    for damaged in (shadow[:-1], [*shadow[:-1], None], shadow[::-1]):
        with pytest.raises(UserError, match=r"averaged weights .* are not those of its network"):
            published_tensors({"net": net, "ema": {"shadow_params": damaged}}, "latest.pt")


@pytest.mark.parametrize("content", [{"net": {}}, {"params": {"a": torch.zeros(1)}}, [torch.zeros(1)], {}])
def test_files_of_another_kind(content: Any) -> None:
    with pytest.raises(UserError, match=r'files with "net" and "ema" \(latest.pt\), this one holds'):
        published_tensors(content, "other.pt")


def test_a_prior_to_begin_from() -> None:
    """Outputs of the variance are cut; channels of the LR image stay fresh; the rest is taken as it is."""
    prior = {f"diffusion_model.{key}": value for key, value in tiny(1, 2).state_dict().items()}
    target = tiny(2, 1, seed=1)
    fresh = {key: value.clone() for key, value in target.state_dict().items()}
    made = from_prior(prior, fresh)
    load_strict(target, made)
    assert torch.equal(made["out.2.weight"], prior["diffusion_model.out.2.weight"][:1])
    assert torch.equal(made["out.2.bias"], prior["diffusion_model.out.2.bias"][:1])
    first = "input_blocks.0.0.weight"
    assert torch.equal(made[first][:, :1], prior[f"diffusion_model.{first}"])
    assert torch.equal(made[first][:, 1:], fresh[first][:, 1:])
    own = tiny(2, 1, seed=3).state_dict()
    same = from_prior(own, fresh)
    assert all(torch.equal(same[key], own[key]) for key in fresh)


def test_networks_that_are_no_bridge() -> None:
    plain, conditioned = BridgeConfig(), BridgeConfig(cond_x1=True)
    assert channels_of(ADMConfig(in_channels=2, out_channels=1, **TINY), conditioned, "a") == 1
    for inputs, outputs, bridge in ((3, 6, plain), (2, 1, plain), (1, 1, conditioned)):
        with pytest.raises(UserError, match=rf"a: the network takes {inputs} channel\(s\) and returns {outputs}"):
            channels_of(ADMConfig(in_channels=inputs, out_channels=outputs, **TINY), bridge, "a")
