"""Where restored volumes lie in space: world coordinates, both forms of the header, and agreement with `mrbench run`."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from nibabel.orientations import aff2axcodes
from numpy.typing import NDArray

from mrbench.data.nifti import read_nifti
from mrbench.data.orientation import Display, display_of
from mrbench.engine.entries import DatasetChoice
from mrbench.engine.task import open_task
from mrbench.plugins import Registry
from mrbench.protocol import find_protocol

HR = {"rows": 32, "columns": 48, "slices": 3}


def rotation(x: float, y: float, z: float) -> NDArray[np.float64]:
    """Rotation by angles in degrees about three axes."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.radians([x, y, z])), np.sin(np.radians([x, y, z]))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    turned: NDArray[np.float64] = about_z @ about_y @ about_x
    return turned


def oblique(order: tuple[int, int, int], signs: tuple[int, int, int], thick: int) -> NDArray[np.float64]:
    """An affine whose stored axes run along turned world axes ``order`` with ``signs``; axis ``thick`` is the thick one."""
    axes = rotation(21, -13, 9)[:, list(order)] * np.array(signs)
    size = [1.25, 0.8, 1.25]
    size[thick] = 6.0
    affine = np.eye(4)
    affine[:3, :3] = axes * size
    affine[:3, 3] = (-37.5, 18.25, 60.0)
    return affine


def scene(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """A smooth world, positive: values at ``[..., 3]`` mm. Its waves are far longer than an LR voxel."""
    directions = np.array([[0.11, 0.05, -0.03], [-0.04, 0.12, 0.06], [0.02, -0.07, 0.10]])
    return 500 + 100 * np.sin(points @ directions.T).sum(-1)


def world(affine: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    points: NDArray[np.float64] = index @ affine[:3, :3].T + affine[:3, 3]
    return points


def corners(affine: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """World coordinates of the eight outer corners of the volume (half a voxel beyond the outer centres)."""
    outer = np.array(list(itertools.product(*((-0.5, n - 0.5) for n in shape[:3]))))
    points: NDArray[np.float64] = outer @ affine[:3, :3].T + affine[:3, 3]
    return points


def hr_shape(display: Display) -> tuple[int, int, int]:
    shape = [0, 0, 0]
    for axis, n in zip(display.axes, (HR["slices"], HR["rows"], HR["columns"]), strict=True):
        shape[axis] = n
    return shape[0], shape[1], shape[2]


def measured(
    registry: Registry, affine: NDArray[np.float64], degradation: str, options: dict[str, Any], scale: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[int, int, int]]:
    """LR volume in stored order, its affine (found point by point), and the HR shape in stored order."""
    display = display_of(affine, tuple(np.linalg.norm(affine[:3, :3], axis=0)), "native")
    shape = hr_shape(display)
    hr = scene(world(affine, shape))
    card = registry.degradations.get(degradation)
    operator = card.load()(card.parse(options)).bind((HR["rows"], HR["columns"]), (scale, scale))
    shown = np.ascontiguousarray(display.apply(hr))
    lr = display.undo(operator.forward(torch.from_numpy(shown)[:, None])[:, 0].numpy())

    def place(index: tuple[float, float, float]) -> NDArray[np.float64]:
        """World position of an LR voxel: displayed coordinates are those of the operator's grid."""
        stored = list(index)
        for axis, flip, g in zip(display.axes[1:], display.flips[1:], operator.grid, strict=True):
            i = g.n_lr - 1 - index[axis] if flip else index[axis]
            j = g.offset + g.step * i
            stored[axis] = g.n_hr - 1 - j if flip else j
        found: NDArray[np.float64] = affine[:3, :3] @ np.array(stored) + affine[:3, 3]
        return found

    low = np.eye(4)
    low[:3, 3] = place((0, 0, 0))
    for axis in range(3):
        unit = [0.0, 0.0, 0.0]
        unit[axis] = 1.0
        low[:3, axis] = place((unit[0], unit[1], unit[2])) - low[:3, 3]
    return lr, low, shape


def save(path: Path, array: NDArray[Any], sform: tuple[Any, int], qform: tuple[Any, int], pair: bool = False) -> Path:
    image = (nibabel.Nifti1Pair if pair else nibabel.Nifti1Image)(array, None)
    image.header.set_xyzt_units("mm")
    image.header.set_sform(*sform)
    image.header.set_qform(*qform)
    nibabel.save(image, path)
    return path


AFFINES = {
    "LPS": oblique((0, 1, 2), (-1, -1, 1), 2),
    "RAS": oblique((0, 1, 2), (1, 1, 1), 2),
    "PSR": oblique((1, 2, 0), (-1, 1, 1), 2),
    "SAL": oblique((2, 1, 0), (1, 1, -1), 0),
    "IRP": oblique((2, 0, 1), (-1, 1, -1), 1),
}
OPERATORS: dict[str, tuple[str, dict[str, Any], int]] = {
    "bicubic x2": ("bicubic_aa", {}, 2),
    "bicubic x4": ("bicubic_aa", {}, 4),
    "k-space, corner-aligned": ("kspace_crop", {"align": "corner", "domain": "real"}, 2),
    "decimation": ("sitk_resample", {}, 2),
}


@pytest.mark.parametrize("codes", list(AFFINES))
@pytest.mark.parametrize("operator", list(OPERATORS))
def test_world_coordinates_stay_right(mrbench, tmp_path: Path, registry: Registry, operator: str, codes: str) -> None:
    affine = AFFINES[codes]
    assert "".join(aff2axcodes(affine)) == codes
    name, options, scale = OPERATORS[operator]
    lr, low, shape = measured(registry, affine, name, options, scale)
    source = save(tmp_path / "lr.nii.gz", lr.astype(np.float32), (low, 1), (low, 1))
    flags = [part for key, value in options.items() for part in ("--set", f"degradation.{key}={value}")]
    done = mrbench("predict", "-m", "bicubic", "--scale", scale, "--degradation", name, *flags, source, tmp_path / "sr.nii.gz")
    assert done.code == 0, done.err
    result = nibabel.load(tmp_path / "sr.nii.gz")
    assert result.shape == shape
    np.testing.assert_allclose(result.header.get_sform(), affine, atol=2e-5)
    np.testing.assert_allclose(result.header.get_qform(), affine, atol=2e-4)  # a quaternion in float32
    np.testing.assert_allclose(corners(result.affine, shape), corners(affine, shape), atol=1e-3)
    if "corner" not in operator and operator != "decimation":  # the field of view is that of the input
        np.testing.assert_allclose(corners(result.affine, shape), corners(low, lr.shape), atol=1e-3)
    inside = tuple(slice(2 * scale, -2 * scale) if n > HR["slices"] else slice(None) for n in shape)
    if name != "kspace_crop":  # periodic: a world that is not does ring
        truth = scene(world(result.affine, result.shape))
        assert np.abs(result.get_fdata() - truth)[inside].max() < 2.0
        assert np.ptp(truth[inside]) > 150


def test_only_the_forms_that_the_input_has(mrbench, tmp_path: Path) -> None:
    """qform alone, sform alone, two different ones: each is moved, none is invented, and codes stay."""
    rng = np.random.default_rng(0)
    array = rng.integers(0, 900, (12, 10, 4)).astype(np.int16)
    straight, turned = np.diag([2.0, 2.0, 6.0, 1.0]), oblique((0, 1, 2), (-1, 1, 1), 2)
    sheared = turned.copy()
    sheared[:3, 0] += 0.1 * sheared[:3, 1]
    cases = {
        "both": ((sheared, 2), (turned, 1)),
        "sform": ((sheared, 4), (None, 0)),
        "qform": ((None, 0), (turned, 1)),
        "differ": ((straight, 1), (turned, 3)),
    }
    for name, (sform, qform) in cases.items():
        source = save(tmp_path / f"{name}.nii", array, sform, qform)
        before = nibabel.load(source).header
        done = mrbench("predict", "-m", "nearest", "--scale", 2, source, tmp_path / f"{name}_sr.nii")
        assert done.code == 0, done.err
        after = nibabel.load(tmp_path / f"{name}_sr.nii").header
        assert (int(after["sform_code"]), int(after["qform_code"])) == (sform[1], qform[1])
        half = np.diag([0.5, 0.5, 1.0, 1.0])
        half[:2, 3] = -0.25  # LR voxel 0 sits between HR voxels 0 and 1
        if sform[1]:
            np.testing.assert_allclose(after.get_sform(), before.get_sform() @ half, atol=1e-5)
        if qform[1]:
            np.testing.assert_allclose(after.get_qform(), before.get_qform() @ half, atol=1e-4)
        zooms = np.array(before.get_zooms())
        np.testing.assert_allclose(after.get_zooms(), zooms * [0.5, 0.5, 1], rtol=1e-5)


def test_the_plane_that_is_asked_for(mrbench, tmp_path: Path) -> None:
    array = np.random.default_rng(0).random((8, 10, 12)).astype(np.float32)
    source = save(tmp_path / "v.nii", array, (np.diag([2.0, 2.0, 5.0, 1.0]), 1), (None, 0))
    expected = {"native": (16, 20, 12), "axial": (16, 20, 12), "coronal": (16, 10, 24), "sagittal": (8, 20, 24)}
    for plane, shape in expected.items():
        done = mrbench("predict", "-m", "bicubic", "--scale", 2, "--plane", plane, source, tmp_path / f"{plane}.nii", "--json")
        assert done.code == 0, done.err
        assert done.json["images"][0]["plane"] == ("axial" if plane == "native" else plane)
        result = nibabel.load(tmp_path / f"{plane}.nii")
        assert result.shape == shape
        np.testing.assert_allclose(corners(result.affine, shape), corners(nibabel.load(source).affine, array.shape), atol=1e-5)
    wrong = mrbench("predict", "-m", "bicubic", "--plane", "oblique", source, tmp_path / "x.nii")
    assert wrong.code == 2
    assert "--plane oblique: unknown. Known: native, axial, coronal, sagittal" in wrong.err


def test_round_trip_with_what_run_measures(mrbench, tmp_path: Path, registry: Registry) -> None:
    """The measurement of `mrbench run`, saved as a volume, restored by `predict`: the volume that `run` restores, in place."""
    affine = AFFINES["IRP"]
    voxel = tuple(np.linalg.norm(affine[:3, :3], axis=0))
    display = display_of(affine, voxel, "native")
    shape = hr_shape(display)
    hr = scene(world(affine, shape)).astype(np.float32)
    hr[tuple(n // 2 for n in shape)] += 400  # above the percentile, so that run clips it
    folder = tmp_path / "data"
    folder.mkdir()
    save(folder / "hr.nii.gz", hr, (affine, 1), (affine, 1))
    card = registry.datasets.get("folder")
    rules = find_protocol("uniform-x4")
    task = open_task(DatasetChoice("folder", card, card.parse({"path": str(folder)})), rules, registry)
    batch = task.load(list(task.items))
    assert len(task.items) == HR["slices"]
    scale = task.items[0].intensity.scale
    (gy, gx) = batch.measurement.grid
    lr = display.undo((batch.measurement.y[:, 0] * scale).numpy())
    low = affine.copy()
    for axis, g in zip(display.axes[1:], (gy, gx), strict=True):  # centre-aligned: the same from either end
        low[:3, 3] += affine[:3, axis] * g.offset
        low[:3, axis] *= g.step
    source = save(tmp_path / "lr.nii.gz", lr, (low, 1), (low, 1))
    for method in ("bicubic", "lanczos"):
        done = mrbench("predict", "-m", method, "--scale", 4, source, tmp_path / f"{method}.nii.gz")
        assert done.code == 0, done.err
        result = read_nifti(tmp_path / f"{method}.nii.gz")
        from mrbench import upsample

        expected = upsample(batch.measurement, kernel=method)[:, 0].numpy() * scale  # what run gives, in native units
        np.testing.assert_allclose(display.apply(result.array[0]), expected, rtol=2e-5, atol=2e-3)
        np.testing.assert_allclose(result.affine, affine, atol=2e-5)
