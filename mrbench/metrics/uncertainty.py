"""What the metrics of several draws share: the draws of a few images, sorted once, and averages over frame and foreground."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from mrbench.cards import Options
from mrbench.errors import MetricUnavailable
from mrbench.metrics.base import to_image
from mrbench.metrics.uncertainty_cards import NEEDS_DRAWS
from mrbench.metrics.uncertainty_sorting import sort_planes

FOREGROUND = "_fg"
CPU_BYTES = 8_000_000  # of draws that are looked at together, per thread
DEVICE_BYTES = 512_000_000

Values = dict[str, Tensor]
Calibrated = Callable[[Any, int], float]  # options, K -> the value that calibrated draws are expected to have


@dataclass
class Ensemble:
    """The draws of ``batch`` images beside their ground truth, pixel by pixel.

    M counts the pixels of all images, image after image, colour channels as further pixels. Everything that metrics share is
    computed on first use. Numbers are those of the draws (float32, or float64 if these come so); means over draws are float64.

    draws : ``[K, M]``, K >= 2. truth : ``[M]``. mask : ``[M]`` bool, the foreground, or ``None``.
    """

    draws: Tensor
    truth: Tensor
    mask: Tensor | None
    batch: int

    @classmethod
    def of(cls, estimates: Tensor, truth: Tensor, mask: Tensor | None = None, clip: bool = True) -> Ensemble:
        """Take ``estimates [B, K, C, H, W]``, ``truth [B, C, H, W]`` and ``mask [B, H, W]`` (bool, or ``None``).

        Complex images (C = 2) enter as magnitudes. ``clip``: the draws (not the ground truth) are clipped to [0, 1].

        Raises
        ------
        MetricUnavailable : fewer than two draws.
        ValueError : shapes that do not fit, or a mask that is not bool.
        """
        if estimates.ndim != 5:
            raise ValueError(f"expected draws [B, K, C, H, W], got {list(estimates.shape)}")
        b, k = estimates.shape[:2]
        if k < 2:
            raise MetricUnavailable(NEEDS_DRAWS)
        reference = to_image(truth)
        images = to_image(estimates.reshape(b * k, *estimates.shape[2:]))
        if (len(reference), *reference.shape[1:]) != (b, *images.shape[1:]):
            raise ValueError(f"draws {list(estimates.shape)} do not match the ground truth {list(truth.shape)}")
        channels, height, width = reference.shape[1:]
        if mask is not None and (mask.shape != (b, height, width) or mask.dtype != torch.bool):
            raise ValueError(f"mask must be bool {[b, height, width]}, got {mask.dtype} {list(mask.shape)}")
        dtype = torch.float64 if images.dtype == torch.float64 else torch.float32
        planes = images.to(dtype).view(b, k, -1).transpose(0, 1).reshape(k, -1)
        return cls(
            planes.clamp(0, 1) if clip else planes,
            reference.to(dtype).reshape(-1),
            None if mask is None else mask[:, None].expand(b, channels, height, width).reshape(-1),
            b,
        )

    @property
    def count(self) -> int:
        """The number of draws, K."""
        return len(self.draws)

    @cached_property
    def sorted(self) -> Tensor:
        """The draws of each pixel in ascending order, ``[K, M]``."""
        return sort_planes(self.draws)

    @cached_property
    def mean(self) -> Tensor:
        """Mean over the draws, ``[M]`` float64; of equal draws exactly their value."""
        first = self.draws[0].double()
        total = torch.zeros_like(first)
        for row in self.draws[1:]:
            total += row - first
        return total.div_(self.count).add_(first)

    @cached_property
    def variance(self) -> Tensor:
        """Variance over the draws with K - 1, in two passes, ``[M]`` float64."""
        total = torch.zeros_like(self.mean)
        for row in self.draws:
            difference = row - self.mean
            total.addcmul_(difference, difference)
        return total.div_(self.count - 1)

    @cached_property
    def deviation(self) -> Tensor:
        """Standard deviation over the draws with K - 1, ``[M]`` float64."""
        return self.variance.sqrt()

    @cached_property
    def error(self) -> Tensor:
        """Posterior mean - ground truth, ``[M]`` float64."""
        return self.mean - self.truth

    @cached_property
    def _foreground(self) -> tuple[Tensor, Tensor]:
        assert self.mask is not None
        mask = self.mask.view(self.batch, -1)
        return mask, mask.sum(1, dtype=torch.float64)

    def averaged(self, maps: Tensor, ending: str = "") -> Values:
        """Means of ``maps [M]`` over the frame and (NaN where it is empty) the foreground, ``[B]`` float64 each."""
        images = maps.view(self.batch, -1)
        found = {ending: images.sum(1, dtype=torch.float64) / images.shape[1]}
        if self.mask is not None:
            mask, inside = self._foreground
            found[ending + FOREGROUND] = torch.where(mask, images, 0).sum(1, dtype=torch.float64) / inside
        return found

    def counted(self, codes: Tensor, size: int) -> Values:
        """How often each whole number 0 .. size - 1 occurs in ``codes [M]``: ``{"": [B, size]}`` float64, and ``"_fg"``."""
        shift = torch.arange(self.batch, device=codes.device)[:, None] * size
        flat = (codes.view(self.batch, -1).long() + shift).view(-1)
        found = {"": self._histogram(flat, size)}
        if self.mask is not None:
            found[FOREGROUND] = self._histogram(flat[self.mask], size)
        return found

    def each(self, value: Callable[..., float], *maps: Tensor, ending: str = "") -> Values:
        """``value`` of the pixels ``[..., m]`` of every image, over the frame and over the foreground (NaN where it is empty).

        Parameters
        ----------
        maps : ``[..., M]``; ``value`` gets the pixels of one image of each.
        """
        images = [x.view(*x.shape[:-1], self.batch, -1) for x in maps]
        found = {ending: [value(*(x[..., b, :] for x in images)) for b in range(self.batch)]}
        if self.mask is not None:
            mask, inside = self._foreground
            found[ending + FOREGROUND] = [
                value(*(x[..., b, :][..., mask[b]] for x in images)) if inside[b] else float("nan") for b in range(self.batch)
            ]
        return {key: torch.tensor(v, dtype=torch.float64) for key, v in found.items()}

    def _histogram(self, flat: Tensor, size: int) -> Tensor:
        return torch.bincount(flat, minlength=self.batch * size).view(self.batch, size).double()


def ensembles(estimates: Tensor, truth: Tensor, mask: Tensor | None) -> Iterator[Ensemble]:
    """A batch a few images at a time, so that memory does not grow with it. Shapes as for :meth:`Ensemble.of`."""
    budget = CPU_BYTES * torch.get_num_threads() if estimates.device.type == "cpu" else DEVICE_BYTES
    size = max(1, budget // (estimates[0].numel() * estimates.element_size()))
    for start in range(0, len(estimates), size):
        part = slice(start, start + size)
        yield Ensemble.of(estimates[part], truth[part], None if mask is None else mask[part])


@dataclass(frozen=True)
class Part:
    """One column of a metric of draws; its name is the metric's name and ``ending``.

    signature : what it adds to the metric's signature. ranked : whether boards mark a winner. digits : other than the card's.
    calibrated : its value for calibrated draws, where that is not 0; it stands in the signature. undefined : why a slice may
    have no value (NaN).
    """

    ending: str = ""
    signature: str = ""
    ranked: bool = True
    digits: int | None = None
    calibrated: Calibrated | None = None
    undefined: str = "it is not defined there"

    def tail(self, options: Options, draws: int) -> str:
        """What follows the metric's signature in the column's: the part, K, the value of calibrated draws."""
        texts = [self.signature] if self.signature else []
        texts.append(f"K:{draws}")
        if self.calibrated is not None:
            texts.append(f"calibrated:{self.calibrated(options, draws):.4g}")
        return "".join(f"|{t}" for t in texts)


class DrawsMetric(ABC):
    """What the implementation of a card with ``kind="draws"`` looks like; the built-in ones have nothing to prepare."""

    parts: tuple[Part, ...] = (Part(),)

    def __init__(self, options: Options) -> None:
        self.options = options

    def prepare(self, device: torch.device, compile: bool = False) -> None:
        """See :class:`mrbench.metrics.base.Metric`."""
        return

    @abstractmethod
    def __call__(self, ensemble: Ensemble) -> Values:
        """For every part ``{ending: [B] float64}``; of a card with ``foreground``, with a mask, also ``{ending + "_fg": [B]}``."""
