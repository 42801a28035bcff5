from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mrbench.degradation.cards import mrbench_degradations
from mrbench.degradation.grid import AxisGrid
from mrbench.degradation.measurement import upsample
from mrbench.degradation.volume import degrade_volume, to_slice_positions
from mrbench.errors import UserError

Make = Callable[..., Tensor]


def degradation(name: str, **options: Any) -> Any:
    card = next(c for c in mrbench_degradations() if c.name == name)
    return card.load()(card.parse(options))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sitk_resample", {}),
        ("sitk_resample", {"origin": "centre"}),
        ("slab", {"in_plane": "bicubic_aa"}),
        ("bicubic_aa", {}),
        ("area", {}),
    ],
)
def test_slices_come_back_to_their_positions(name: str, options: dict[str, Any]) -> None:
    """A volume that is linear through-plane and in-plane is found again at every inner slice, whatever the grid."""
    d, h, w = (torch.arange(n).float() for n in (20, 33, 48))
    volume = (2 * d[:, None, None] + h[:, None] + 0.5 * w)[None] / 100
    result = degrade_volume(volume, "set/a/v", degradation(name, **options), (2, 3, 4), seed_key="p")
    m = result.measurement([8, 9, 10, 11], [f"set/a/v/{i:03d}" for i in (8, 9, 10, 11)])
    assert m.operator is None
    assert m.size == (33, 48)
    assert m.y.shape[2:] == (11, 12)
    assert m.ids[0] == "set/a/v/008"
    restored = upsample(m, "bicubic")
    truth = volume[0, 8:12, None]
    assert torch.allclose(restored[..., 10:23, 14:34], truth[..., 10:23, 14:34], atol=2e-3)


def test_linear_and_nearest_through_plane() -> None:
    y = torch.tensor([0.0, 1.0, 3.0]).reshape(1, 1, 3, 1, 1)
    linear = to_slice_positions(y, AxisGrid.centre(6, 2), "linear")[0, 0, :, 0, 0]
    assert linear.tolist() == pytest.approx([0, 0.25, 0.75, 1.5, 2.5, 3])
    nearest = to_slice_positions(y, AxisGrid.centre(6, 2), "nearest")[0, 0, :, 0, 0]
    assert nearest.tolist() == [0, 0, 1, 1, 3, 3]
    kept = to_slice_positions(y, AxisGrid(6, 3, 2.0, 0.0), "linear")[0, 0, :, 0, 0]
    assert kept.tolist() == pytest.approx([0, 0.5, 1, 2, 3, 3])
    with pytest.raises(UserError, match="Known: linear, nearest"):
        to_slice_positions(y, AxisGrid.centre(6, 2), "cubic")  # type: ignore[arg-type]


def test_noise_belongs_to_the_volume(random_image: Make) -> None:
    volume = random_image(1, 8, 16, 16, dtype=torch.float32)
    arguments: dict[str, Any] = {"noise_kind": "rician", "sigma": 0.1, "seed_key": "p"}
    blur = degradation("slab", in_plane="area")
    one = degrade_volume(volume, "set/a/v", blur, (2, 2, 2), **arguments)
    again = degrade_volume(volume, "set/a/v", blur, (2, 2, 2), **arguments)
    other = degrade_volume(volume, "set/b/v", blur, (2, 2, 2), **arguments)
    assert torch.equal(one.y, again.y)
    assert not torch.allclose(one.y, other.y, atol=1e-2)
    assert one.sigma == 0.1
    assert one.y.shape == (1, 8, 8, 8)
    assert one.measurement([0, 7], ["a", "b"]).sigma == 0.1


def test_complex_volumes(random_image: Make) -> None:
    volume = random_image(2, 8, 16, 16, dtype=torch.float32)
    crop = degradation("kspace_crop", domain="complex")
    result = degrade_volume(volume, "v", crop, (1, 2, 2), noise_kind="complex_gaussian", sigma=0.01, seed_key="p")
    assert result.measurement([3], ["v/003"]).y.shape == (1, 2, 8, 8)
    assert result.slices.is_identity
    with pytest.raises(ValueError, match=r"\[C, D, H, W\]"):
        degrade_volume(volume[0], "v", crop, (1, 2, 2), seed_key="p")


def test_2d_only_degradations_are_refused(random_image: Make) -> None:
    with pytest.raises(UserError, match="bicubic_pil8 works in 2-D"):
        degrade_volume(random_image(1, 8, 16, 16), "v", degradation("bicubic_pil8"), (1, 2, 2), seed_key="p")
