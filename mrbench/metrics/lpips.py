"""LPIPS v0.1 (Zhang 2018) as a metric: the ground truth's features are computed once and compared with many estimates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mrbench.cards import Options
from mrbench.errors import MetricUnavailable
from mrbench.metrics.base import to_image
from mrbench.metrics.lpips_network import LpipsNetwork
from mrbench.metrics.lpips_weights import load_network

CPU_CHUNK, DEVICE_CHUNK = 4, 32  # images that go through the network at once
CACHE_BYTES = 1 << 30  # reference features larger than this are computed again for every estimate


@dataclass(frozen=True)
class LpipsReference:
    """Ground-truth images ``[B, C, H, W]`` and their features per chunk, or ``None`` where these would be too large."""

    images: Tensor
    features: tuple[tuple[Tensor, ...], ...] | None


class Lpips:
    """LPIPS on one backbone. Grey images are repeated to three channels; computed in float32, sums in float64.

    Parameters
    ----------
    network : used instead of the pretrained one (for other weights); its ``net`` must be this class's.
    """

    net = ""
    smallest = 1

    def __init__(self, options: Options, network: LpipsNetwork | None = None, cache_bytes: int = CACHE_BYTES) -> None:
        if network is not None and network.net != self.net:
            raise ValueError(f"expected a network of kind {self.net!r}, got {network.net!r}")
        self._network = network
        self._cache_bytes = cache_bytes
        self._device = torch.device("cpu")

    def prepare(self, device: torch.device, compile: bool = False) -> None:
        """Load and check the weights. ``compile`` changes nothing: the work is in library convolutions.

        Raises
        ------
        MetricUnavailable : no weights, with the reason and what to do, within 10 s.
        UserError : the file given for the weights is not one.
        """
        network = load_network(self.net) if self._network is None else self._network
        self._network = network.to(device)
        self._device = device

    def reference(self, truth: Tensor, mask: Tensor | None) -> LpipsReference:
        """Features of ``truth [B, C, H, W]`` in [0, 1]. The mask is not used: LPIPS has no foreground value."""
        images = to_image(truth)
        if min(images.shape[-2:]) < self.smallest:
            height, width = images.shape[-2:]
            least = f"at least {self.smallest} pixels a side"
            raise MetricUnavailable(f"lpips_{self.net} needs images of {least}, got {height}x{width}")
        parts = torch.split(images, self._chunk())
        found: list[tuple[Tensor, ...]] = []
        with torch.inference_mode():
            for part in parts:
                found.append(tuple(self._ready().features(part)))
                if sum(f.numel() * f.element_size() for f in found[0]) * len(parts) > self._cache_bytes:
                    return LpipsReference(images, None)
        return LpipsReference(images, tuple(found))

    def __call__(self, estimate: Tensor, reference: LpipsReference) -> dict[str, Tensor]:
        """LPIPS of ``estimate [B, C, H, W]``: ``{"": [B] float64}``."""
        images = to_image(estimate)
        if images.shape != reference.images.shape:
            raise ValueError(f"estimate {list(images.shape)} does not match the ground truth {list(reference.images.shape)}")
        network = self._ready()
        size = self._chunk()
        values = []
        with torch.inference_mode():
            for k, part in enumerate(torch.split(images, size)):
                known = reference.features[k] if reference.features else network.features(reference.images[k * size :][:size])
                values.append(network.layer_distances(known, network.features(part)).sum(1))
        return {"": torch.cat(values)}

    def _chunk(self) -> int:
        return CPU_CHUNK if self._device.type == "cpu" else DEVICE_CHUNK

    def _ready(self) -> LpipsNetwork:
        if self._network is None:
            raise RuntimeError("call prepare(device) first")
        return self._network


class LpipsAlex(Lpips):
    """LPIPS on AlexNet."""

    net = "alex"
    smallest = 31


class LpipsVgg(Lpips):
    """LPIPS on VGG-16."""

    net = "vgg"
    smallest = 16


class LpipsSqueeze(Lpips):
    """LPIPS on SqueezeNet 1.1."""

    net = "squeeze"
    smallest = 24
