"""Orientation, the one intensity map a volume, crop, and what is kept."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
from pydantic import ValidationError

from mrbench.data.orientation import display_of
from mrbench.data.preparation import IntensityMap, prepare_volume
from mrbench.data.records import Volume
from mrbench.errors import DataError
from mrbench.settings import CropSpec, ForegroundSpec, IntensitySpec, PreparationSpec, canonical_json

NAN = (float("nan"),) * 3
WHOLE = ForegroundSpec(method="whole")
PLAIN = PreparationSpec(foreground=WHOLE, intensity=IntensitySpec(percentile=100), crop=CropSpec(multiple=1))


def _stack(array: np.ndarray, **more) -> Volume:
    return Volume(np.asarray(array, dtype=np.float32), NAN, **more)


def _corner_phantom(codes: str) -> Volume:
    """A volume stored along ``codes`` with one bright voxel in the right, anterior, superior corner of the patient."""
    world = np.zeros((20, 24, 28), dtype=np.float32)  # R, A, S increasing
    world[:] = np.linspace(0, 0.1, 28)
    world[-1, -1, -1] = 1.0
    ras = nib.Nifti1Image(world, np.diag([1.0, 1.5, 2.0, 1.0]))
    start = nib.orientations.io_orientation(ras.affine)
    end = nib.orientations.axcodes2ornt(tuple(codes))
    stored = ras.as_reoriented(nib.orientations.ornt_transform(start, end))
    assert "".join(nib.aff2axcodes(stored.affine)) == codes
    lengths = np.linalg.norm(stored.affine[:3, :3], axis=0)
    voxel = (float(lengths[0]), float(lengths[1]), float(lengths[2]))
    return Volume(np.asarray(stored.dataobj)[None], voxel, stored.affine)


ALL_48 = [
    "".join(letters)
    for order in itertools.permutations(("RL", "AP", "SI"))
    for letters in itertools.product(*order)
]  # fmt: skip


@pytest.mark.parametrize("codes", ALL_48)
@pytest.mark.parametrize(
    ("plane", "shape", "bright", "voxel"),
    [
        ("axial", (28, 24, 20), (-1, 0, 0), (2.0, 1.5, 1.0)),  # top slice, front row, patient right on image left
        ("coronal", (24, 28, 20), (-1, 0, 0), (1.5, 2.0, 1.0)),  # most anterior slice, top row, patient right on image left
        ("sagittal", (20, 28, 24), (-1, 0, 0), (1.0, 2.0, 1.5)),  # rightmost slice, top row, front on image left
    ],
)
def test_every_stored_orientation_is_displayed_the_same_way(codes, plane, shape, bright, voxel):
    prepared = prepare_volume(_corner_phantom(codes), PLAIN.model_copy(update={"plane": plane}))
    assert prepared.hr.shape == (shape[0], 1, shape[1], shape[2])
    assert prepared.hr[bright[0], 0, bright[1], bright[2]] == 1.0
    assert (prepared.hr == 1.0).sum() == 1
    assert prepared.voxel == pytest.approx(voxel)
    assert prepared.display.plane == plane


def test_all_planes_show_the_same_voxels():
    volume = _corner_phantom("PSR")
    axial, coronal, sagittal = (
        prepare_volume(volume, PLAIN.model_copy(update={"plane": p})).hr[:, 0] for p in ("axial", "coronal", "sagittal")
    )
    np.testing.assert_array_equal(axial, coronal.transpose(1, 0, 2)[::-1, ::-1])  # S,P,L from A,I,L
    np.testing.assert_array_equal(axial, sagittal.transpose(1, 2, 0)[::-1, :, ::-1])  # S,P,L from R,I,P


def test_oblique_axes_count_as_the_nearest_anatomical_ones():
    angle = np.deg2rad(30)
    affine = np.diag([-1.0, -1.0, 4.0, 1.0])
    affine[:3, :3] = (
        np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]) @ affine[:3, :3]
    )
    display = display_of(affine, (1.0, 1.0, 4.0), "native")
    assert (display.plane, display.axes, display.flips) == ("axial", (2, 1, 0), (False, False, False))


@pytest.mark.parametrize(
    ("voxel", "codes", "plane"),
    [
        ((1.0, 1.0, 5.0), "LPS", "axial"),
        ((1.0, 5.0, 1.0), "RAS", "coronal"),
        ((5.0, 1.0, 1.0), "RAS", "sagittal"),
        ((1.0, 1.0, 1.0), "PSR", "sagittal"),  # equal: the last stored axis
        ((0.8593750, 0.8593751, 0.8593749), "RAS", "axial"),  # equal but for rounding
        (NAN, "RSA", "coronal"),
    ],
)
def test_native_plane_is_across_the_thickest_axis(voxel, codes, plane):
    assert display_of(_corner_phantom(codes).affine, voxel, "native").plane == plane


def test_without_an_affine_the_array_is_taken_as_displayed():
    array = np.random.default_rng(0).random((1, 3, 24, 32))
    prepared = prepare_volume(_stack(array), PLAIN)
    np.testing.assert_allclose(prepared.hr[:, 0], array[0] / array.max(), rtol=1e-6)
    assert prepared.notes == ()
    noted = prepare_volume(_stack(array), PLAIN.model_copy(update={"plane": "coronal"}))
    np.testing.assert_array_equal(noted.hr, prepared.hr)
    assert "no affine" in noted.notes[0]


def test_stored_positions_of_a_flipped_slice_axis():
    prepared = prepare_volume(_corner_phantom("RAI"), PLAIN.model_copy(update={"plane": "axial"}))
    assert prepared.positions[:2] == (0, 1)
    assert prepared.stored[:2] == (27, 26)


def test_one_map_for_the_whole_volume_not_for_each_slice(head):
    stack = head(slices=4)
    stack[1] *= 0.25
    prepared = prepare_volume(_stack(stack[None]), PreparationSpec())
    expected = np.percentile(stack.astype(np.float64), 99.9)
    assert prepared.intensity.scale == pytest.approx(expected, rel=1e-6)
    assert prepared.intensity.offset == 0.0
    np.testing.assert_allclose(prepared.hr[:, 0], np.clip(stack / expected, 0, 1), rtol=1e-5, atol=1e-6)
    assert prepared.hr[1].max() < 0.3  # a dim slice stays dim
    assert prepared.hr.max() == 1.0


def test_the_percentile_includes_slices_and_borders_that_are_cut_off(head):
    stack = head(slices=4, side=67)
    stack[0] = 0  # dropped for want of foreground
    stack[:, -1, :40] = 5000.0  # cut off by the crop
    prepared = prepare_volume(_stack(stack[None]), PreparationSpec())
    assert prepared.positions == (1, 2, 3)
    assert prepared.hr.shape[2:] == (64, 64)
    assert prepared.intensity.scale == pytest.approx(np.percentile(stack.astype(np.float64), 99.9), rel=1e-6)
    assert prepared.intensity.scale > 2000


def test_the_map_goes_there_and_back():
    native = np.linspace(-50, 900, 500, dtype=np.float32)
    there = IntensityMap(scale=817.0, offset=-50.0)
    assert there.to_unit(native)[0] == 0.0
    np.testing.assert_allclose(there.to_native(there.to_unit(native)), native, atol=1e-3)


def test_offsets_and_fixed_maps(head):
    stack = head() + 100.0
    low = float(stack.min())
    prepared = prepare_volume(_stack(stack[None]), PreparationSpec(intensity=IntensitySpec(offset="min")))
    assert prepared.intensity.offset == pytest.approx(low)
    assert prepared.hr.min() == 0.0
    fixed = IntensitySpec(kind="fixed", low=100, high=1100, source="fixed", clip=False)
    prepared = prepare_volume(_stack(stack[None]), PreparationSpec(intensity=fixed))
    np.testing.assert_allclose(prepared.hr[:, 0], (stack - 100) / 1000, atol=1e-6)


def test_kind_none_takes_unit_values_and_refuses_others(head):
    unit = head(peak=1.0)
    spec = PreparationSpec(intensity=IntensitySpec(kind="none"))
    prepared = prepare_volume(_stack(np.clip(unit, 0, 1)[None]), spec)
    np.testing.assert_array_equal(prepared.hr[:, 0], np.clip(unit, 0, 1))
    with pytest.raises(DataError, match=r"expects \[0, 1\]"):
        prepare_volume(_stack(head(peak=1000.0)[None]), spec)


def test_negative_values_are_clipped_only_if_asked(head):
    stack = head()
    stack[:, 0, 0] = -500
    assert prepare_volume(_stack(stack[None]), PreparationSpec()).hr.min() == 0.0
    raw = prepare_volume(_stack(stack[None]), PreparationSpec(intensity=IntensitySpec(clip=False)))
    assert raw.hr.min() < -0.4
    assert raw.hr.max() > 1.0


def test_complex_volumes_are_mapped_by_their_magnitude_and_keep_their_phase(head):
    magnitude = head()
    phase = np.random.default_rng(1).uniform(-np.pi, np.pi, magnitude.shape)
    parts = np.stack([magnitude * np.cos(phase), magnitude * np.sin(phase)])
    prepared = prepare_volume(_stack(parts), PreparationSpec())
    assert prepared.hr.shape[1] == 2
    assert prepared.intensity.scale == pytest.approx(np.percentile(magnitude.astype(np.float64), 99.9), rel=1e-5)
    shown = prepared.hr[:, 0] + 1j * prepared.hr[:, 1]
    assert np.abs(shown).max() == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(np.abs(shown), np.minimum(magnitude / prepared.intensity.scale, 1), atol=1e-5)
    difference = np.angle(shown * np.exp(-1j * phase))
    assert np.abs(difference[magnitude > 100]).max() < 1e-4
    assert prepared.mask.mean() > 0.4
    with pytest.raises(DataError, match="phase"):
        prepare_volume(_stack(parts), PreparationSpec(intensity=IntensitySpec(offset="min")))


def test_colour_has_one_joint_map(head):
    grey = head()
    colour = np.stack([grey, grey * 0.5, grey * 0.25])
    prepared = prepare_volume(_stack(colour), PreparationSpec())
    assert prepared.intensity.scale == pytest.approx(np.percentile(colour.astype(np.float64), 99.9), rel=1e-6)
    ratio = prepared.hr[:, 1].sum() / prepared.hr[:, 0].sum()
    assert ratio == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize(
    ("side", "top", "size"), [(64, 0, 64), (65, 0, 64), (66, 1, 64), (69, 2, 64), (71, 3, 64), (72, 0, 72)]
)
def test_centre_crop_takes_the_odd_line_from_the_end(side, top, size):
    array = np.zeros((1, 1, side, 64), dtype=np.float32)
    array[:] = np.arange(side)[:, None]
    prepared = prepare_volume(_stack(array), PreparationSpec(foreground=WHOLE, intensity=IntensitySpec(percentile=100)))
    assert (prepared.window.top, prepared.window.size) == (top, (size, 64))
    native = prepared.intensity.to_native(prepared.hr)[0, 0, :, 0]
    np.testing.assert_allclose(native, np.arange(top, top + size), atol=1e-4)


def test_canvas_pads_and_crops_to_a_fixed_size():
    array = np.random.default_rng(0).random((1, 1, 35, 50)).astype(np.float32) + 0.5
    prepared = prepare_volume(_stack(array), PLAIN.model_copy(update={"canvas": (40, 40)}))
    assert prepared.hr.shape == (1, 1, 40, 40)
    assert (prepared.window.top, prepared.window.left) == (-2, 5)
    shown = prepared.intensity.to_native(prepared.hr)[0, 0]
    np.testing.assert_allclose(shown[2:37], array[0, 0, :, 5:45], atol=1e-6)
    assert not shown[:2].any()
    assert not shown[37:].any()
    assert not prepared.mask[0, :2].any()
    assert prepared.mask[0, 2:37].all()


def test_slices_with_little_foreground_are_reported(head):
    stack = head(slices=5)
    stack[0] = np.abs(np.random.default_rng(0).normal(0, 5, stack[0].shape))
    stack[4] = 0
    prepared = prepare_volume(_stack(stack[None]), PreparationSpec(trim_last=1))
    assert prepared.positions == (1, 2)
    assert len(prepared.fractions) == 5
    reasons = {left.position: left.reason for left in prepared.left_out}
    assert set(reasons) == {0, 3, 4}
    assert "foreground 0.0" in reasons[0]
    assert "trimmed" in reasons[3]
    everything = prepare_volume(_stack(stack[None]), PreparationSpec(foreground=ForegroundSpec(min_fraction=0)))
    assert everything.positions == (0, 1, 2, 3, 4)
    nothing = prepare_volume(_stack(stack[None]), PreparationSpec(trim_first=2, trim_last=7))
    assert nothing.positions == ()


def test_too_small_or_too_few():
    array = np.random.default_rng(0).random((1, 2, 16, 23))
    assert prepare_volume(_stack(array), PreparationSpec(foreground=WHOLE)).hr.shape == (2, 1, 16, 16)
    with pytest.raises(DataError, match="min_slices = 3"):
        prepare_volume(_stack(array), PreparationSpec(min_slices=3))
    with pytest.raises(DataError, match="smaller than 32"):
        prepare_volume(_stack(array), PreparationSpec(min_side=32))
    with pytest.raises(DataError, match="after the crop"):
        prepare_volume(_stack(array), PreparationSpec(crop=CropSpec(multiple=12), foreground=WHOLE))


def test_nearly_empty_volumes_are_refused():
    array = np.zeros((1, 4, 64, 64))
    array[0, 0, 0, 0] = 9
    with pytest.raises(DataError, match="nearly empty"):
        prepare_volume(_stack(array), PreparationSpec())


@pytest.mark.parametrize(
    "bad",
    [
        {"intensity": {"kind": "fixed"}},
        {"intensity": {"kind": "fixed", "low": 3, "high": 3, "source": "fixed"}},
        {"intensity": {"kind": "fixed", "low": 0, "high": 3}},
        {"intensity": {"low": 0}},
        {"intensity": {"source": "fixed"}},
        {"intensity": {"percentile": 0}},
        {"foreground": {"min_fraction": 1.5}},
        {"canvas": [100, 96]},
        {"plan": "axial"},
    ],
)
def test_settings_that_make_no_sense_are_refused(bad):
    with pytest.raises(ValidationError):
        PreparationSpec.model_validate(bad)


def test_default_settings_never_change_unnoticed():
    assert canonical_json(PreparationSpec()) == (
        '{"canvas":null,"crop":{"mode":"centre","multiple":8},"foreground":{"closing":0.02,"method":"dataset_or_otsu",'
        '"min_fraction":0.1,"otsu_factor":0.5},"intensity":{"clip":true,"high":null,"kind":"percentile","low":null,'
        '"offset":"zero","percentile":99.9,"source":"hr"},"min_side":16,"min_slices":1,"plane":"native","trim_first":0,'
        '"trim_last":0}'
    )
    assert PreparationSpec.model_validate_json(canonical_json(PreparationSpec())) == PreparationSpec()
