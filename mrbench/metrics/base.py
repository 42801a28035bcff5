"""What a metric is, and what the image metrics share: chunks, channels, masks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mrbench.cards import Options
from mrbench.errors import MetricUnavailable
from mrbench.metrics.kernels import Kernel

CPU_CHUNK_BYTES = 400_000  # about 100,000 float32 pixels: one image's working set stays in a core's L2 cache
DEVICE_CHUNK_BYTES = 64_000_000


class Metric(Protocol):
    """What the implementation of a ``MetricCard`` of kind "image" looks like.

    Kind "measurement" has no ``reference``; its ``__call__`` gets the unclipped estimate and the measurement
    (``.y [B, C, h, w]``, ``.operator.forward``).
    """

    def __init__(self, options: Options) -> None: ...

    def prepare(self, device: torch.device, compile: bool = False) -> None:
        """Load weights; with ``compile``, build compiled kernels where the metric has any.

        Raises
        ------
        MetricUnavailable : impossible here, with the reason (within 10 s).
        CompileUnavailable : only the compiled kernels are impossible; ``prepare(device)`` may still work.
        """
        ...

    def reference(self, truth: Tensor, mask: Tensor | None) -> Any:
        """Do the work that depends on the ground truth only.

        Parameters
        ----------
        truth : ``[B, C, H, W]`` in [0, 1]; mask : ``[B, H, W]`` bool foreground, or ``None``.
        """
        ...

    def __call__(self, estimate: Tensor, reference: Any) -> dict[str, Tensor]:
        """Compare ``estimate [B, C, H, W]``: ``{"": [B] float64}``, with a mask also ``"_fg"`` where supported."""
        ...


Chosen = TypeVar("Chosen", bound=Options)


def expect(options: Options, model: type[Chosen]) -> Chosen:
    """``options``, checked to be of the metric's own model."""
    if not isinstance(options, model):
        raise TypeError(f"expected {model.__name__}, got {type(options).__name__}")
    return options


def to_image(x: Tensor) -> Tensor:
    """Complex images ``[B, 2, H, W]`` (real, imaginary) as magnitude ``[B, 1, H, W]``; C = 1 and 3 unchanged."""
    if x.ndim != 4 or x.shape[1] not in (1, 2, 3):
        raise ValueError(f"expected images [B, C, H, W] with C = 1, 2 or 3, got {list(x.shape)}")
    return torch.linalg.vector_norm(x, dim=1, keepdim=True) if x.shape[1] == 2 else x


def quantised(images: Tensor) -> Tensor:
    """Images clipped to [0, 1] and rounded to multiples of 1/255, as if stored with 8 bits."""
    return images.clamp(0, 1).mul_(255).round_().div_(255)


def total(maps: Tensor) -> Tensor:
    """Sum of ``maps [n, h, w]`` per image: ``[n]`` float64."""
    return maps.flatten(1).sum(1, dtype=torch.float64)


def squared_norm(maps: Tensor) -> Tensor:
    """Sum of squares of ``maps [n, h, w]`` per image: ``[n]`` float64."""
    norm: Tensor = torch.linalg.vector_norm(maps.flatten(1), dim=1, dtype=torch.float64)
    return norm.square()


def halved(images: Tensor) -> Tensor:
    """Mean of 2x2 blocks, stride 2, of ``[n, H, W]`` with even sides."""
    rows = images[:, 0::2] + images[:, 1::2]
    return (rows[..., 0::2] + rows[..., 1::2]).mul_(0.25)


def even(images: Tensor) -> Tensor:
    """``[n, H, W]`` with a zero row or column after odd sides."""
    height, width = images.shape[-2:]
    return F.pad(images, [0, width % 2, 0, height % 2]) if height % 2 or width % 2 else images


def example_pair(device: torch.device) -> tuple[Tensor, Tensor]:
    """A random estimate and ground truth ``[1, 320, 256]``, for checking kernels."""
    truth, noise = torch.rand(2, 1, 320, 256, generator=torch.Generator().manual_seed(0))
    return (truth + 0.1 * noise).to(device), truth.to(device)


def block_mask(mask: Tensor, factor: int) -> Tensor:
    """``mask [n, H, W]`` (0 or 1) on blocks of ``factor`` pixels (remainder dropped): 1 where at least half is inside."""
    return (F.avg_pool2d(mask[:, None], factor)[:, 0] >= 0.5).to(mask.dtype)


@dataclass(frozen=True)
class Mask:
    """``weights [n, h, w]`` (0 or 1) on the grid of a metric's map, and their sums ``count [n]`` float64."""

    weights: Tensor
    count: Tensor


@dataclass(frozen=True)
class Chunk:
    """A few single-channel ground-truth images, what a metric computed from them, and the mask on its map's grid."""

    state: tuple[Tensor, ...]
    mask: Mask | None

    def means(self, maps: Tensor) -> tuple[Tensor, Tensor | None]:
        """Means of ``maps [n, h, w]`` over the frame and inside the mask (NaN if empty), ``[n]`` float64 each."""
        whole = total(maps) / maps[0].numel()
        return whole, None if self.mask is None else total(maps * self.mask.weights) / self.mask.count


@dataclass(frozen=True)
class Reference:
    """The ground truth of a batch as one metric needs it. ``shape`` is ``[B, C, H, W]``."""

    shape: tuple[int, int, int, int]
    dtype: torch.dtype
    size: int  # images per chunk
    chunks: tuple[Chunk, ...]
    masked: bool

    def gathered(self, k: int) -> Tensor:
        """The ``k``-th state of all images, ``[B, C]`` (for states of one number per image)."""
        return torch.cat([chunk.state[k] for chunk in self.chunks]).view(self.shape[:2])


class ImageMetric(ABC):
    """A metric of single-channel images, evaluated a few at a time; values of colour channels are averaged.

    Images are computed in float64 if they come so, else in float32; sums are float64. Results do not depend on the batch.
    """

    name = ""
    foreground = True
    smallest = 1  # pixels of the shorter side

    def __init__(self, options: Options) -> None:
        self.device = torch.device("cpu")
        self.compiled = False

    @property
    def kernels(self) -> Sequence[Kernel]:
        """The parts that can be compiled (none: nothing is gained, and ``compile`` changes nothing)."""
        return ()

    def prepare(self, device: torch.device, compile: bool = False) -> None:
        """See :class:`Metric`."""
        self.device = device
        if compile:
            for kernel in self.kernels:
                kernel.compile(self.name, device)
        self.compiled = compile and bool(self.kernels)

    def reference(self, truth: Tensor, mask: Tensor | None) -> Reference:
        """See :class:`Metric`.

        Raises
        ------
        MetricUnavailable : images too small for this metric.
        """
        images = _floating(to_image(truth))
        b, c, h, w = images.shape
        if min(h, w) < self.smallest:
            raise MetricUnavailable(f"{self.name} needs images of at least {self.smallest} pixels a side, got {h}x{w}")
        if mask is not None and (mask.shape != (b, h, w) or mask.dtype != torch.bool):
            raise ValueError(f"mask must be bool {[b, h, w]}, got {mask.dtype} {list(mask.shape)}")
        size = self._chunk_size(images)
        chunks = []
        with torch.inference_mode():
            flat = images.reshape(b * c, h, w)
            masks = None
            if mask is not None and self.foreground:
                masks = mask[:, None].expand(b, c, h, w).reshape(b * c, h, w).to(images.dtype)
            for i in range(0, b * c, size):
                part = flat[i : i + size]
                inside = None
                if masks is not None:
                    weights = self._weights(masks[i : i + size])
                    inside = Mask(weights, total(weights))
                chunks.append(Chunk(self._state(part, inside), inside))
        return Reference((b, c, h, w), images.dtype, size, tuple(chunks), masks is not None)

    def __call__(self, estimate: Tensor, reference: Reference) -> dict[str, Tensor]:
        """See :class:`Metric`."""
        images = to_image(estimate).to(reference.dtype)
        if tuple(images.shape) != reference.shape:
            raise ValueError(f"estimate {list(images.shape)} does not match the ground truth {list(reference.shape)}")
        b, c, h, w = reference.shape
        whole, inside = [], []
        with torch.inference_mode():
            flat = images.reshape(b * c, h, w)
            for k, chunk in enumerate(reference.chunks):
                part = flat[k * reference.size : (k + 1) * reference.size]
                value, masked = self._score(part, chunk)
                whole.append(value)
                if masked is not None:
                    inside.append(masked)
            result = {"": torch.cat(whole).view(b, c).mean(1)}
            if reference.masked:
                result["_fg"] = torch.cat(inside).view(b, c).mean(1)
        return result

    def _chunk_size(self, images: Tensor) -> int:
        """Images that are computed at once: as many as stay in the cache. Compiled on the CPU: one, so that the kernels
        see one number of images only.
        """
        if images.device.type != "cpu":
            budget = DEVICE_CHUNK_BYTES
        elif self.compiled:
            return 1
        else:
            budget = CPU_CHUNK_BYTES * torch.get_num_threads()
        return max(1, budget // (images[0, 0].numel() * images.element_size()))

    def _weights(self, mask: Tensor) -> Tensor:
        """The mask ``[n, H, W]`` (0 or 1) on the grid of the metric's map."""
        return mask

    @abstractmethod
    def _state(self, truth: Tensor, mask: Mask | None) -> tuple[Tensor, ...]:
        """What is needed of ``truth [n, H, W]``."""

    @abstractmethod
    def _score(self, estimate: Tensor, chunk: Chunk) -> tuple[Tensor, Tensor | None]:
        """Values ``[n]`` float64 of ``estimate [n, H, W]``, over the frame and inside the mask."""


def _floating(images: Tensor) -> Tensor:
    return images if images.dtype == torch.float64 else images.float()
