"""What counts as anatomy."""

from __future__ import annotations

import numpy as np
import pytest

from mrbench.data.foreground import foreground, otsu_threshold, percentile, slice_mask
from mrbench.data.preparation import prepare_volume
from mrbench.data.records import Volume
from mrbench.settings import ForegroundSpec, PreparationSpec

NAN = (float("nan"),) * 3


@pytest.mark.parametrize("percent", [0.1, 50, 99.9, 100])
def test_percentile_agrees_with_numpy(percent):
    values = np.random.default_rng(0).gamma(2.0, 100, (3, 41, 37)).astype(np.float32)
    assert percentile(values, percent) == pytest.approx(np.percentile(values.astype(np.float64), percent), rel=1e-7)


def test_otsu_agrees_with_scikit_image():
    filters = pytest.importorskip("skimage.filters")
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(100, 20, 60_000), rng.normal(600, 90, 40_000)]).astype(np.float32)
    top = percentile(values, 99.9)
    bin_width = (top - values.min()) / 256
    reference = filters.threshold_otsu(np.minimum(values, top), nbins=256)
    assert abs(otsu_threshold(values) - reference) <= 1.01 * bin_width  # edge against centre of a bin
    assert otsu_threshold(values, 0.5) == pytest.approx((otsu_threshold(values) + values.min()) / 2, rel=1e-6)


def test_a_few_very_bright_voxels_do_not_move_the_threshold():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(100, 20, 60_000), rng.normal(600, 90, 40_000)]).astype(np.float32)
    spiked = values.copy()
    spiked[:20] = 1e6
    assert otsu_threshold(spiked) == pytest.approx(otsu_threshold(values), rel=0.05)


def test_two_values_are_told_apart():
    values = np.zeros((20, 20), dtype=np.float32)
    values[5:9] = 3
    assert 0 < otsu_threshold(values) < 3
    assert otsu_threshold(np.where(np.arange(10_000) == 7, 5, 0).astype(np.float32)) < 5


def test_dark_anatomy_inside_the_head_belongs_to_it(head):
    mask = foreground(head(), None, ForegroundSpec())
    y, x = np.mgrid[:64, :64] - 31.5
    radius = np.hypot(y, x) / 64
    assert mask[:, radius < 0.44].all()  # scalp, dark skull, brain, and the dark ventricle in its middle
    assert not mask[:, radius > 0.48].any()


def test_the_head_stays_one_piece_where_the_skull_divides_it(head):
    image = head(slices=1)[0]
    brain_only = slice_mask(image, 300.0, closing=0.0)
    assert brain_only.sum() == slice_mask(image, 300.0, closing=0.02).sum()  # filling joins ring and brain
    assert brain_only[32, 32]
    assert brain_only[32, 4]  # the scalp


def test_separate_specks_are_left_out(head):
    image = head(slices=1)[0]
    image[0:2, 0:2] = 900
    assert not slice_mask(image, 300.0, closing=0.02)[:3, :3].any()


def test_closing_does_not_lose_anatomy_at_the_border():
    image = np.zeros((40, 40), dtype=np.float32)
    image[:, :20] = 1
    np.testing.assert_array_equal(slice_mask(image, 0.5, closing=0.1), image > 0)


def test_an_open_gap_in_the_scalp_is_closed(head):
    image = head(slices=1)[0]
    image[31:33, 56:] = 0  # a two-pixel gap through scalp and skull
    mask = slice_mask(image, 300.0, closing=0.04)
    assert mask[32, 32]
    assert mask[32, 4]


def test_bright_fat_does_not_push_darker_tissue_out():
    """Two thirds of the body are muscle at 0.25 of the fat's intensity: Otsu alone takes them for background."""
    rng = np.random.default_rng(0)
    stack = np.full((2, 60, 60), 0.0)
    stack[:, 5:55, 5:55] = 250
    stack[:, 5:12, 5:55] = stack[:, 48:55, 5:55] = stack[:, 5:55, 5:12] = 1000
    stack[:, 49:55, 20:40] = 250  # a gap in the fat
    stack = np.abs(stack + rng.normal(0, 10, stack.shape)).astype(np.float32)
    body = np.zeros((60, 60), dtype=bool)
    body[5:55, 5:55] = True
    half = foreground(stack, None, ForegroundSpec())
    assert (half[0] == body).mean() > 0.99
    full = foreground(stack, None, ForegroundSpec(otsu_factor=1.0))
    assert full[0][body].mean() < 0.6


def test_the_data_sets_own_mask_is_used_as_it_is(head):
    own = np.zeros((3, 64, 64), dtype=bool)
    own[:, 20:50, 10:50] = True
    own[:, 30, 30] = False
    volume = Volume(head()[None], NAN, mask=own)
    np.testing.assert_array_equal(prepare_volume(volume, PreparationSpec()).mask, own)
    other = prepare_volume(volume, PreparationSpec(foreground=ForegroundSpec(method="otsu"))).mask
    assert other.sum() > own.sum()


def test_an_own_mask_turns_with_the_volume():
    rng = np.random.default_rng(0)
    array = rng.random((1, 20, 24, 28)).astype(np.float32)
    volume = Volume(array, (1.0, 1.0, 1.0), np.diag([1.0, 1.0, 1.0, 1.0]), mask=array[0] > 0.5)
    prepared = prepare_volume(volume, PreparationSpec(plane="coronal", foreground=ForegroundSpec(min_fraction=0)))
    native = prepared.intensity.to_native(prepared.hr[:, 0])
    np.testing.assert_array_equal(prepared.mask, native > 0.5)


def test_whole():
    assert foreground(np.zeros((2, 20, 20), dtype=np.float32), None, ForegroundSpec(method="whole")).all()


def test_empty_slices_have_no_foreground(head):
    stack = head()
    stack[1] = 0
    mask = foreground(stack, None, ForegroundSpec())
    assert not mask[1].any()
    assert mask[0].any()
