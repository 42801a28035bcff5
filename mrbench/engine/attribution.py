"""Local attribution maps of super-resolution methods (LAM; Gu and Dong 2021, arXiv:2011.11036).

Which pixels of the LR image does a method look at to restore a region? With ``F`` the method, ``D`` the sum of gradient magnitudes over
the region and ``gamma`` the path from a blurred LR image to the LR image itself, the attribution of pixel i is

    LAM_i = integral over alpha in [0, 1] of  dD(F(gamma(alpha))) / dgamma_i  dgamma_i / dalpha.

Attributions sum to ``D(F(gamma(1))) - D(F(gamma(0)))`` (completeness). Samplers are given the same noise all along the path.
"""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mrbench.degradation.apply import apply_axes
from mrbench.degradation.measurement import Measurement
from mrbench.engine.restorer import GroundTruth, Restorer
from mrbench.errors import MrbenchError, UserError
from mrbench.store.attributions import Attribution, Region

STEPS = 50
SIGMA = 3.0  # LR pixels; ours
SMOOTH = 1e-6  # of the [0, 1] range: gradient magnitudes below this are rounded off, so that D has a derivative everywhere
CHECKS = (0.2, 0.5)  # places on the path where gradients are compared with differences of D
HALF_STEP = 0.01  # of those differences, in alpha
DISAGREEMENT = 0.1  # relative; gradients that are cut somewhere are off by far more
RESOLUTION = 1e-4  # changes of D below this share of D are lost in float32: nothing to compare

NO_GRADIENTS = "Its result does not depend on the LR image through operations that pass gradients."

Told = Callable[[int, int], None]  # steps done, steps in all
_NO_GRADIENT = {"round", "floor", "ceil", "trunc", "sign", "argmin", "argmax"}
_TEMPLATE = re.compile(r"to|type_as|new_.*|.*_like|expand_as|view_as")  # take shape or type of an image, not its values


class NotDifferentiable(UserError):
    """The method's result has no gradient with respect to the LR image, or a wrong one."""


@dataclass(frozen=True)
class PathSettings:
    """steps : of the integral, at whose middles gradients are taken. sigma : of the blur at the beginning, in LR pixels."""

    steps: int = STEPS
    sigma: float = SIGMA

    def __post_init__(self) -> None:
        """Refuse what gives no path (``UserError``)."""
        if self.steps < 1:
            raise UserError(f"--steps {self.steps}: expected 1 or more.")
        if not 0 < self.sigma < math.inf:
            raise UserError(f"--sigma {self.sigma}: expected a width in LR pixels above 0.")


class BlurringPath:
    """``gamma(alpha) = G(sigma (1 - alpha)) * y``: from the blurred LR image at 0 to the LR image itself at 1.

    ``G`` is a Gaussian blur with reflecting borders (pixel edges mirror), exact for every width: it multiplies the cosine transform by
    ``exp(-sigma^2 omega^2 / 2)``.
    """

    def __init__(self, y: Tensor, sigma: float) -> None:
        """``y``: ``[1, C, h, w]``; the path is computed in float64 on its device."""
        self._y = y.detach().double()
        self._sigma = sigma
        self._cosines = [_cosine_matrix(n, y.device) for n in y.shape[2:]]
        self._omegas = [torch.arange(n, dtype=torch.float64, device=y.device) * math.pi / n for n in y.shape[2:]]

    def at(self, alpha: float) -> Tensor:
        """``gamma(alpha)``, float64."""
        if alpha >= 1:
            return self._y
        width = self._sigma * (1 - alpha)
        matrices = [
            c.mT @ (torch.exp(-0.5 * (width * w) ** 2)[:, None] * c) for c, w in zip(self._cosines, self._omegas, strict=True)
        ]
        return apply_axes(self._y, matrices)


def _cosine_matrix(n: int, device: torch.device) -> Tensor:
    """The orthonormal DCT-II, ``[n, n]`` float64."""
    k, i = torch.arange(n, dtype=torch.float64, device=device)[:, None], torch.arange(n, dtype=torch.float64, device=device)
    matrix = torch.cos(math.pi * k * (i + 0.5) / n) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix


def detect(image: Tensor, region: Region) -> Tensor:
    """``D``: the sum of gradient magnitudes over a region of ``[1, C, H, W]``; differences of neighbours within the region.

    Channels are parts of one vector (real and imaginary part, colours): their squares are summed below the root.
    """
    part = image[0, :, region.top : region.bottom, region.left : region.right]
    down = torch.nn.functional.pad(part.diff(dim=1), (0, 0, 0, 1))
    right = torch.nn.functional.pad(part.diff(dim=2), (0, 1))
    return ((down.square() + right.square()).sum(0) + SMOOTH**2).sqrt().sum()


class Explained:
    """A loaded method as a differentiable function of the LR image of one item."""

    def __init__(
        self, restorer: Restorer, measurement: Measurement, region: Region, truth: GroundTruth | None = None, label: str = ""
    ) -> None:
        """``measurement``: one item, on the restorer's device. ``truth``: for controls.

        Raises
        ------
        UserError : the region does not lie in the image.
        """
        if len(measurement.ids) != 1:
            raise ValueError(f"one item at a time, got {len(measurement.ids)}")
        self.label = label or restorer.card.name
        self.region = region.check(measurement.size)
        self._restorer, self._measurement, self._truth = restorer, measurement, truth

    def estimate(self, y: Tensor) -> Tensor:
        """``F(y)``: draw 1, ``[1, C, H, W]``, with its graph if ``y`` wants gradients (and grad mode is on)."""
        m = replace(self._measurement, y=y.to(self._measurement.y.dtype))
        implementation = self._restorer.implementation
        with torch.inference_mode(False):
            if callable(getattr(implementation, "restore", None)) and not inspect.isfunction(implementation):
                given = (m, 1, self._truth) if self._restorer.card.control else (m, 1)
                result = implementation.restore(*given)
                result = result[:, 0] if isinstance(result, Tensor) and result.ndim == 5 else result
            else:
                result = implementation(m)
        expected = (1, m.y.shape[1], *m.size)
        if not isinstance(result, Tensor) or tuple(result.shape) != expected:
            shape = list(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise UserError(f"{self.label}: returned {shape}, expected an image of shape {list(expected)} for one draw.")
        return result.float()

    def value(self, y: Tensor) -> float:
        """``D(F(y))``."""
        with torch.no_grad(), self._failures():
            return float(detect(self.estimate(y), self.region).double())

    def gradient(self, y: Tensor) -> Tensor:
        """``dD(F(y)) / dy``, float64.

        Raises
        ------
        NotDifferentiable : the result has no gradient.
        """
        return self._watched_gradient(y, None)

    def _watched_gradient(self, y: Tensor, watch: _Watch | None) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad(), self._failures():
            leaf = y.to(self._measurement.y.dtype).detach().clone().requires_grad_(True)
            with watch or nullcontext():
                value = detect(self.estimate(leaf), self.region)
            if not value.requires_grad:
                raise NotDifferentiable(f"{self.label} cannot be attributed: {watch.words if watch else NO_GRADIENTS}")
            (gradient,) = torch.autograd.grad(value, leaf, allow_unused=True)
        return torch.zeros_like(y, dtype=torch.float64) if gradient is None else gradient.double()

    def check(self, path: BlurringPath) -> None:
        """Compare gradients with differences of D at some places of the path.

        Raises
        ------
        NotDifferentiable : they contradict each other: something between the LR image and the result passes no gradient, or a wrong
            one.
        """
        watch = _Watch()
        seen = missed = 0.0
        for alpha in CHECKS:
            before, middle, after = (path.at(alpha + h) for h in (-HALF_STEP, 0.0, HALF_STEP))
            expected = float((self._watched_gradient(middle, watch) * (after - before)).sum())
            low, high = self.value(before), self.value(after)
            if abs(high - low) >= RESOLUTION * max(abs(high), abs(low)):
                seen += abs(high - low)
                missed += abs(high - low - expected)
        if missed > DISAGREEMENT * seen:
            raise NotDifferentiable(
                f"{self.label} cannot be attributed: its gradients miss {missed / seen:.0%} of how the restored region changes with the LR "
                f"image. {watch.words}"
            )

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """What a method raises, as a message for people."""
        try:
            yield
        except MrbenchError:
            raise
        except Exception as error:  # a plugin may raise anything
            text = f"{type(error).__name__}: {error}"
            if "requires grad" in str(error):
                raise NotDifferentiable(f"{self.label} cannot be attributed: it leaves PyTorch on the way ({text}).") from error
            raise UserError(f"{self.label}: failed while its attributions were computed ({text}).") from error


class _Watch(TorchFunctionMode):
    """Notes the first operation whose input has a gradient and whose result has none."""

    def __init__(self) -> None:
        super().__init__()
        self.found = ""

    @property
    def words(self) -> str:
        """Where gradients end first."""
        if self.found:
            return f"Gradients end at {self.found} (rounding, quantisation, detached, or computed without gradients)."
        return NO_GRADIENTS

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self.found and isinstance(result, Tensor) and _has_gradient((args, kwargs)):
            name = getattr(func, "__name__", str(func)).rstrip("_")
            lost = result.is_floating_point() and not result.requires_grad and not _TEMPLATE.fullmatch(name)
            if lost or name in _NO_GRADIENT:
                self.found = f"{name}{_place()}"
        return result


def _has_gradient(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.requires_grad
    if isinstance(value, (tuple, list)):
        return any(map(_has_gradient, value))
    return isinstance(value, Mapping) and any(map(_has_gradient, value.values()))


def _place() -> str:
    """``, FILE line N`` of the code that called PyTorch."""
    here = Path(__file__)
    frame = sys._getframe(1)
    while frame.f_back is not None:
        file = Path(frame.f_code.co_filename)
        if file != here and "torch" not in file.parts:
            return f", {file.name} line {frame.f_lineno}"
        frame = frame.f_back
    return ""


def attribute(explained: Explained, y: Tensor, settings: PathSettings, told: Told | None = None) -> Attribution:
    """The local attribution map of a method on one LR image.

    Gradients are taken at the middle of every step and multiplied by what the step changes in the image, so the error of the integral
    falls with the square of the number of steps.

    Parameters
    ----------
    y : ``[1, C, h, w]``. told : hears of the steps.

    Raises
    ------
    NotDifferentiable : the method has no gradients, or wrong ones, with the reason.
    UserError : the method failed.
    """
    path = BlurringPath(y, settings.sigma)
    explained.check(path)
    total = torch.zeros_like(path.at(1.0))
    parts: NDArray[np.float64] = np.zeros(settings.steps)
    before = path.at(0.0)
    for k in range(settings.steps):
        after = path.at((k + 1) / settings.steps)
        part = explained.gradient(path.at((k + 0.5) / settings.steps)) * (after - before)
        total += part
        parts[k] = float(part.sum())
        before = after
        if told is not None:
            told(k + 1, settings.steps)
    with torch.no_grad():
        estimate = explained.estimate(path.at(1.0))[0]
    card = explained._restorer.card
    checkpoint = explained._restorer.checkpoint
    return Attribution(
        label=explained.label,
        method=card.name,
        tier=checkpoint.tier if checkpoint is not None else card.tier,
        checkpoint=checkpoint.name if checkpoint is not None else "",
        sigma=settings.sigma,
        detector=(explained.value(path.at(0.0)), explained.value(path.at(1.0))),
        attributions=total[0].cpu().numpy(),
        estimate=estimate.cpu().numpy(),
        path=parts,
    )


__all__ = ["SIGMA", "STEPS", "BlurringPath", "Explained", "NotDifferentiable", "PathSettings", "attribute", "detect"]
