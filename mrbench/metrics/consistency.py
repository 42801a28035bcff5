"""Data consistency: how far the degraded estimate is from the measurement."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mrbench.cards import Options
from mrbench.errors import MetricUnavailable


class DataConsistency:
    """Root mean square of H x - y over all numbers of y, in units of the [0, 1] range; x is the unclipped estimate."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def prepare(self, device: torch.device, compile: bool = False) -> None:
        """Nothing to load, nothing to compile."""

    def __call__(self, estimate: Tensor, measurement: Any) -> dict[str, Tensor]:
        """Compare ``estimate [B, C, H, W]`` with the measurement: ``{"": [B] float64}``.

        Parameters
        ----------
        measurement : ``.y [B, C, h, w]`` and ``.operator.forward`` (``[B, C, H, W] -> [B, C, h, w]``).

        Raises
        ------
        MetricUnavailable : the measurement has no operator.
        """
        if measurement.operator is None:
            raise MetricUnavailable("data consistency needs the degradation as a 2-D operator, and this task has none")
        with torch.inference_mode():
            degraded = measurement.operator.forward(estimate)
            if degraded.shape != measurement.y.shape:
                raise ValueError(f"H x is {list(degraded.shape)}, the measurement {list(measurement.y.shape)}")
            residual = (degraded - measurement.y).flatten(1)
            norm = torch.linalg.vector_norm(residual, dim=1, dtype=torch.float64)
            return {"": norm / residual.shape[1] ** 0.5}
