from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mrbench.degradation.cards import mrbench_degradations
from mrbench.degradation.operators import Operator

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Variant:
    """A degradation with options, and what the tests may expect of it."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    channels: int = 1
    ndim: tuple[int, ...] = (2, 3)
    periodic: bool = False  # a ramp is not periodic
    ramp: float = 1e-9  # largest error of a linear ramp at integer scales, away from borders, in HR pixels
    full_rank: bool = True
    condition: float = 1  # of H H^H, beyond the usual ten or so

    def __str__(self) -> str:
        return "-".join([self.name, *(str(v) for v in self.options.values())])

    def bind(self, size: tuple[int, ...], scale: tuple[float, ...]) -> Operator:
        card = next(c for c in mrbench_degradations() if c.name == self.name)
        operator: Operator = card.load()(card.parse(self.options)).bind(size, scale)
        return operator


def kspace(full_rank: bool = True, **options: Any) -> Variant:
    channels = 2 if options.get("domain") == "complex" else 1
    condition = 1e4 if options.get("window", "none") != "none" else 1
    return Variant("kspace_crop", options, channels, periodic=True, full_rank=full_rank, condition=condition)


LINEAR = [
    Variant("bicubic_aa"),
    Variant("bicubic_aa", {"border": "mirror"}),
    Variant("bicubic_aa", {"a": -0.75, "border": "replicate"}),
    Variant("bicubic_noaa"),
    Variant("area"),
    Variant("gaussian"),
    Variant("gaussian", {"fwhm": 3.0}),
    kspace(),
    kspace(align="corner"),
    kspace(window="hann", full_rank=False),
    kspace(window="hamming", align="corner"),
    kspace(window="fermi"),
    kspace(window="tukey", full_rank=False),
    kspace(domain="complex"),
    kspace(domain="complex", align="corner", window="hamming"),
    Variant("slab", {"axes": "all"}),
    Variant("slab", {"profile": "gauss", "thickness": 1.3, "in_plane": "bicubic_aa"}),
    Variant("slab", {"gap": 0.25, "in_plane": "area"}),
    Variant("sitk_resample"),
    Variant("sitk_resample", {"interpolator": "bspline", "origin": "centre"}, ramp=2e-5),
    Variant("sitk_resample", {"interpolator": "nearest", "origin": "centre"}, ramp=0.5),
]
NONLINEAR = [
    Variant("bicubic_pil8", ndim=(2,)),
    kspace(domain="magnitude"),
    kspace(domain="magnitude", align="corner", window="hamming"),
]
CASES = [((24, 32), (2, 4)), ((29, 37), (4, 3)), ((13, 12, 11), (2, 3, 4))]


def combinations(variants: list[Variant]) -> list[Any]:
    return [
        pytest.param(v, size, scale, id=f"{v}-{'x'.join(map(str, size))}")
        for v in variants
        for size, scale in CASES
        if len(size) in v.ndim
    ]


WAVES = [v for v in LINEAR + NONLINEAR if v.periodic and "window" not in v.options]
GREY = [v for v in LINEAR + NONLINEAR if v.channels == 1]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``*_case``: every variant of a list at every size, as (variant, size, scale); ``ramp_variant``: variants alone."""
    cases = {"linear_case": LINEAR, "any_case": LINEAR + NONLINEAR, "wave_case": WAVES, "grey_case": GREY}
    for name, variants in cases.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, [pytest.param(p.values, id=p.id) for p in combinations(variants)])
    if "ramp_variant" in metafunc.fixturenames:
        metafunc.parametrize("ramp_variant", [pytest.param(v, id=str(v)) for v in LINEAR if not v.periodic])


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_thread: None) -> None:
    """See ``one_thread``."""


@pytest.fixture
def bound() -> Callable[..., Operator]:
    """``bound(name, size, scale, **options)``: an operator."""

    def make(name: str, size: tuple[int, ...], scale: tuple[float, ...], **options: Any) -> Operator:
        return Variant(name, options).bind(size, scale)

    return make


@pytest.fixture
def golden() -> Callable[[str], dict[str, NDArray[Any]]]:
    """``golden("adm/dps_resizer")``: reference tensors, or skip."""

    def load(name: str) -> dict[str, NDArray[Any]]:
        from safetensors.numpy import load_file

        folder = Path(os.environ.get("MRBENCH_GOLDEN", ROOT / ".." / "shared" / "golden"))
        file = folder / f"{name}.safetensors"
        if not file.is_file():
            pytest.skip(f"reference tensors not at hand: {name} (set MRBENCH_GOLDEN to their folder)")
        return load_file(file)

    return load


@pytest.fixture
def random_image() -> Callable[..., torch.Tensor]:
    """``random_image(2, 1, 24, 32, dtype=...)``: uniform in [0, 1], the same in every test."""

    def make(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
        return torch.from_numpy(np.random.default_rng(seed).random(shape)).to(dtype)

    return make
