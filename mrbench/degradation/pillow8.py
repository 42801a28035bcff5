"""Pillow's bicubic on 8-bit images, as published pipelines apply it to PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mrbench.cards import Options
from mrbench.degradation.apply import working
from mrbench.degradation.base import Degradation
from mrbench.degradation.grid import AxisGrid
from mrbench.degradation.image_space import bicubic_aa_matrix
from mrbench.degradation.operators import LinearOperator, Operator
from mrbench.degradation.padding import Crop
from mrbench.errors import UserError


class Pillow8Operator(Operator):
    """``y = Pillow(round(255 clip(x))) / 255``: Pillow itself, hence its integer rounding in both passes.

    ``adjoint``, ``pinv``, ``prox`` and the gradient of ``forward`` are those of the linear part, ``bicubic_aa``. On a padded
    canvas the original image is still Pillow's; the added samples are the linear part's.
    """

    linear = False

    def __init__(
        self, linear: LinearOperator, size: tuple[int, int], lr_size: tuple[int, int], name: str = "bicubic_pil8"
    ) -> None:
        """``size`` and ``lr_size`` are those of the image, without padding; ``linear`` may be padded."""
        super().__init__(name, linear.grid)
        self._linear, self._image, self._small = linear, size, lr_size

    @property
    def linear_part(self) -> Operator:
        """The operator whose adjoint and proximal solve these are."""
        return self._linear

    def forward(self, x: Tensor) -> Tensor:
        """Pillow's 8-bit bicubic, as float in [0, 1]."""
        self._accept(x, self.hr_size, "x")
        result: Tensor = _Rounded.apply(working(x), self)
        return result

    def adjoint(self, y: Tensor) -> Tensor:
        """``H^H y`` of the linear part."""
        self._accept(y, self.lr_size, "y")
        return self._linear.adjoint(y)

    def prox(self, z: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        """Proximal solve of the linear part."""
        self._accept(z, self.hr_size, "z")
        return self._linear.prox(z, y, rho)

    def pinv(self, y: Tensor) -> Tensor:
        """Least-norm least-squares solution of the linear part."""
        self._accept(y, self.lr_size, "y")
        return self._linear.pinv(y)

    def padded(self, multiple: int | Sequence[int]) -> tuple[Operator, Crop]:
        """On a larger canvas (see :class:`Operator`)."""
        linear, crop = self._linear.padded(multiple)
        assert isinstance(linear, LinearOperator)
        return (self if linear is self._linear else Pillow8Operator(linear, self._image, self._small, self.name)), crop

    def rounded(self, x: Tensor) -> Tensor:
        """Pillow's result on the image area; the linear part's elsewhere."""
        (height, width), (h, w) = self._image, self._small
        levels = (x[..., :height, :width].detach().clamp(0, 1) * 255 + 0.5).floor().to(torch.uint8).cpu().numpy()
        small = [pillow_bicubic(image, (h, w)) for image in levels.reshape(-1, height, width)]
        y = torch.from_numpy(np.stack(small)).to(device=x.device, dtype=x.dtype) / 255
        y = y.reshape(*x.shape[:2], h, w)
        if self.lr_size == self._small:
            return y
        canvas = self._linear.forward(x)
        canvas[..., :h, :w] = y
        return canvas

    def _accept(self, x: Tensor, size: tuple[int, ...], name: str) -> None:
        self._check(x, size, name)
        if x.shape[1] == 2:
            raise UserError("bicubic_pil8 works on grey or colour images, got 2 channels (real, imaginary). Use bicubic_aa.")


def pillow_bicubic(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """``[H, W]`` uint8 resized by Pillow's BICUBIC to ``size`` = ``(h, w)``."""
    resized = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(resized, dtype=np.uint8)


class _Rounded(torch.autograd.Function):
    """Pillow forwards, the linear part's adjoint backwards."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, operator: Pillow8Operator) -> Tensor:
        ctx.linear = operator.linear_part
        return operator.rounded(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.linear.adjoint(gradients[0]), None


class BicubicPillow8(Degradation[Options]):
    """8-bit bicubic of Pillow, 2-D only."""

    name: ClassVar[str] = "bicubic_pil8"
    ndim: ClassVar[tuple[int, ...]] = (2,)

    def _bind(self, size: tuple[int, ...], scale: tuple[float, ...]) -> Pillow8Operator:
        grids = [AxisGrid.centre(n, s) for n, s in zip(size, scale, strict=True)]
        matrices = [np.eye(g.n_hr) if g.is_identity else bicubic_aa_matrix(g) for g in grids]
        linear = LinearOperator(self.name, grids, matrices)
        return Pillow8Operator(linear, (size[0], size[1]), (grids[0].n_lr, grids[1].n_lr), self.name)
