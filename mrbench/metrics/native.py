"""Errors in the units of the data set (milliseconds of T1, for instance), inside the foreground."""

from __future__ import annotations

import torch
from torch import Tensor

from mrbench.cards import Options
from mrbench.errors import MetricUnavailable
from mrbench.metrics.base import Chunk, ImageMetric, Mask, Reference


class _NativeMetric(ImageMetric):
    """A mean over the foreground of the unit range; ``native`` asks the engine to multiply it by the volume's intensity scale.

    The map from native units to the unit range is affine, ``unit = (native - offset) / scale``, so a difference of native
    values is ``scale`` times the difference of the mapped ones and the offset falls out.
    """

    native = True
    foreground = False  # no second column: the only one is of the foreground

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.foreground = True  # the mask is needed all the same

    def reference(self, truth: Tensor, mask: Tensor | None) -> Reference:
        """See :class:`mrbench.metrics.base.Metric`.

        Raises
        ------
        MetricUnavailable : no foreground is known.
        """
        if mask is None:
            raise MetricUnavailable(f"{self.name} is a mean over the foreground, and these images come without one")
        return super().reference(truth, mask)

    def __call__(self, estimate: Tensor, reference: Reference) -> dict[str, Tensor]:
        """``{"": [B]}`` over the foreground, in the unit range; NaN where the mask is empty."""
        return {"": super().__call__(estimate, reference)["_fg"]}

    def _state(self, truth: Tensor, mask: Mask | None) -> tuple[Tensor, ...]:
        return (truth,)


class MaeNative(_NativeMetric):
    """Mean of |x_hat - x| over the foreground."""

    name = "mae_native"

    def _score(self, estimate: Tensor, chunk: Chunk) -> tuple[Tensor, Tensor | None]:
        return chunk.means(torch.abs(estimate - chunk.state[0]))


class BiasNative(_NativeMetric):
    """Mean of x_hat - x over the foreground: positive where the estimate is too high. ``signed``: nothing to rank by."""

    name = "bias_native"
    signed = True

    def _score(self, estimate: Tensor, chunk: Chunk) -> tuple[Tensor, Tensor | None]:
        return chunk.means(estimate - chunk.state[0])
