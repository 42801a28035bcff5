"""The LR image on the grids that networks expect, wherever the degradation put its samples."""

from __future__ import annotations

import torch
from torch import Tensor

from mrbench.degradation.apply import apply_axes, working
from mrbench.degradation.grid import AxisGrid
from mrbench.degradation.kernels import keys, sampling_matrix
from mrbench.degradation.measurement import Measurement


def resample(measurement: Measurement, step: float = 1.0) -> Tensor:
    """LR images on the centre-aligned grid of ``H / step x W / step`` samples, by cubic convolution with a = -3/4.

    Sample ``k`` of that grid sits at HR coordinate ``(step - 1) / 2 + step k``. Where the LR samples sit there already
    (``step`` is the scale, the degradation is centre-aligned) they are returned as they are. For ``step = 1`` and a
    centre-aligned degradation this is ``torch.nn.functional.interpolate(y, mode="bicubic")``, the pre-upsampling of ResShift.

    Parameters
    ----------
    step : HR pixels per sample; it divides H and W.

    Returns
    -------
    ``[B, C, H / step, W / step]``, float32 for half-precision measurements.
    """
    y = working(measurement.y)
    matrices: list[Tensor | None] = []
    for grid in measurement.grid:
        wanted = AxisGrid(round(grid.n_hr / step), grid.n_lr, grid.step / step, (grid.offset - (step - 1) / 2) / step)
        if wanted.is_identity:
            matrices.append(None)
        else:
            matrix = sampling_matrix(wanted.coordinates(), wanted.n_lr, keys(-0.75), 2, border="replicate")
            matrices.append(torch.from_numpy(matrix).to(device=y.device, dtype=y.dtype))
    return apply_axes(y, matrices)
