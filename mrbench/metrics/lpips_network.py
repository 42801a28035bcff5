"""The network of LPIPS v0.1 (Zhang 2018): scaling, backbone features, weighted distance of unit-length features."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torchvision.models as models
from torch import Tensor, nn

SHIFT = (-0.030, -0.088, -0.188)  # of the scaling layer, for inputs in [-1, 1]; it is what v0.1 added to v0.0
SCALE = (0.458, 0.448, 0.450)
EPSILON = 1e-10  # added to the length of a feature vector, outside of the root


@dataclass(frozen=True)
class Backbone:
    """A torchvision network and the layers whose outputs are compared.

    ``taps`` are positions in its ``features`` (after a rectifier each), ``channels`` the widths there.
    """

    title: str
    builder: str
    weights: str
    taps: tuple[int, ...]
    channels: tuple[int, ...]


BACKBONES: Mapping[str, Backbone] = {
    "alex": Backbone("AlexNet", "alexnet", "AlexNet_Weights", (1, 4, 7, 9, 11), (64, 192, 384, 256, 256)),
    "vgg": Backbone("VGG-16", "vgg16", "VGG16_Weights", (3, 8, 15, 22, 29), (64, 128, 256, 512, 512)),
    "squeeze": Backbone(
        "SqueezeNet 1.1", "squeezenet1_1", "SqueezeNet1_1_Weights", (1, 4, 7, 9, 10, 11, 12), (64, 128, 256, 384, 384, 512, 512)
    ),
}


class LpipsNetwork(nn.Module):
    """Backbone and linear layers; computes in the type of its parameters (float32 unless converted).

    Build it with :meth:`from_arrays`.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, net: str, layers: nn.Sequential, heads: Sequence[Tensor]) -> None:
        super().__init__()
        self.net = net
        self.taps = BACKBONES[net].taps
        self.layers = layers.to(memory_format=torch.channels_last)
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))
        for k, head in enumerate(heads):
            self.register_buffer(f"head{k}", head)
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def from_arrays(cls, net: str, backbone: Mapping[str, Any], heads: Sequence[Any]) -> LpipsNetwork:
        """The network filled with given numbers.

        Parameters
        ----------
        net : "alex", "vgg" or "squeeze".
        backbone : weights and biases of torchvision's ``features``, e.g. ``"0.weight"`` or ``"3.squeeze.bias"``; entries
            of other layers are refused.
        heads : the linear layers' weights, one array of ``C`` numbers (any shape) per compared layer.

        Raises
        ------
        ValueError : a missing or superfluous array, or a wrong shape, with its name.
        """
        layers = blank_layers(net)
        wanted = {name: tuple(p.shape) for name, p in layers.state_dict().items()}
        _same_names(set(backbone), set(wanted))
        state = {name: _float32(backbone[name]) for name in wanted}
        for name, shape in wanted.items():
            if tuple(state[name].shape) != shape:
                raise ValueError(f"{name} has the shape {list(state[name].shape)}, expected {list(shape)}")
        layers.load_state_dict(state, assign=True)
        channels = BACKBONES[net].channels
        flat = [_float32(head).flatten() for head in heads]
        if [len(head) for head in flat] != list(channels):
            raise ValueError(f"linear layers have {[len(head) for head in flat]} weights, expected {list(channels)}")
        return cls(net, layers, flat)

    @property
    def heads(self) -> list[Tensor]:
        """Weights of the linear layers, ``[C]`` each."""
        return [getattr(self, f"head{k}") for k in range(len(self.taps))]

    def features(self, images: Tensor) -> Iterator[Tensor]:
        """Unit-length features ``[n, h, w, C]`` of every compared layer in turn; ``images [n, 1 or 3, H, W]`` in [0, 1]."""
        x = images.to(self.shift.dtype).expand(-1, 3, -1, -1)
        x = ((2 * x - 1 - self.shift) / self.scale).contiguous(memory_format=torch.channels_last)
        for k, layer in enumerate(self.layers):
            x = layer(x)
            if k in self.taps:
                yield unit_length(x.permute(0, 2, 3, 1))

    def layer_distances(self, a: Iterable[Tensor], b: Iterable[Tensor]) -> Tensor:
        """Distances of unit-length features (see :meth:`features`) per image and layer: ``[n, layers]`` float64.

        The tensors of ``b`` are overwritten.
        """
        distances = []
        for fa, fb, head in zip(a, b, self.heads, strict=True):
            weighted = fb.sub_(fa).square_() @ head
            distances.append(weighted.flatten(1).mean(1, dtype=torch.float64))
        return torch.stack(distances, 1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """LPIPS of pairs of images ``[n, 1 or 3, H, W]`` in [0, 1]: ``[n]`` float64."""
        return self.layer_distances(self.features(a), self.features(b)).sum(1)


def unit_length(features: Tensor) -> Tensor:
    """``f / (||f|| + 1e-10)`` along the last axis."""
    length: Tensor = torch.linalg.vector_norm(features, dim=-1, keepdim=True)
    return features / (length + EPSILON)


def blank_layers(net: str) -> nn.Sequential:
    """The backbone up to the last compared layer, without memory for its parameters."""
    backbone = BACKBONES[net]
    with torch.device("meta"):
        features = getattr(models, backbone.builder)(weights=None).features
    layers = features[: backbone.taps[-1] + 1]
    assert isinstance(layers, nn.Sequential)
    return layers


def _float32(array: Any) -> Tensor:
    return array.detach().float() if isinstance(array, Tensor) else torch.from_numpy(np.array(array, dtype=np.float32))


def _same_names(given: set[str], wanted: set[str]) -> None:
    if missing := sorted(wanted - given):
        raise ValueError(f"missing: {', '.join(missing)}")
    if extra := sorted(given - wanted):
        raise ValueError(f"unknown: {', '.join(extra)}")
