"""Networks that work at LR resolution: from their s-fold enlarged images to the HR grid, wherever the LR samples sit."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from mrbench.degradation.grid import AxisGrid, lr_size
from mrbench.degradation.interpolate import interpolate
from mrbench.degradation.measurement import Measurement
from mrbench.errors import UserError

from .canvas import fold, planes_of


def check_scale(measurement: Measurement, scale: int, what: str) -> None:
    """Refuse images that are not enlarged ``scale`` times along both axes.

    Raises
    ------
    UserError : another scale, or one that differs between the axes.
    """
    if any(lr_size(g.n_hr, scale) != g.n_lr for g in measurement.grid):
        steps = " x ".join(f"{step:g}" for step in measurement.scale)
        raise UserError(
            f"{what} enlarges images {scale} times, these need {steps}. Name weights for that scale, or run --scale {scale}."
        )


def onto_hr_grid(enlarged: Tensor, measurement: Measurement, scale: int) -> Tensor:
    """``[B, C, s h, s w]`` to ``[B, C, H, W]``, by cubic convolution; the image itself where the two grids are one.

    The s samples that a network makes of LR sample i lie around it with distance step / s (the pixel-area convention). With
    a centre-aligned degradation whose step is exactly s they are the HR samples.
    """
    grids = []
    for grid in measurement.grid:
        step = grid.step / scale
        grids.append(AxisGrid(grid.n_hr, scale * grid.n_lr, step, grid.offset - (grid.step - step) / 2))
    return interpolate(enlarged, grids, "bicubic")


def enlarge(network: Callable[[Tensor], Tensor], measurement: Measurement, channels: int, scale: int, what: str) -> Tensor:
    """What a network on LR images makes of a measurement, on its HR grid: ``[B, C, H, W]`` float32.

    Grey images are repeated for networks on three ``channels``, and the outputs averaged; colour images pass networks on one
    channel colour by colour.

    Raises
    ------
    UserError : images with other channels or of another scale than the network's.
    """
    check_scale(measurement, scale, what)
    planes = planes_of(measurement, channels)
    made = network(fold(measurement.y, planes, channels)).float()
    made = made.reshape(len(measurement.y), planes * channels, *made.shape[2:])
    if measurement.y.shape[1] != made.shape[1]:
        made = made.mean(dim=1, keepdim=True)
    return onto_hr_grid(made, measurement, scale)
