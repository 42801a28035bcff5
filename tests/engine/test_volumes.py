"""Restored slices back in one volume: order, place in space, units, gaps."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import typer
from numpy.typing import NDArray
from tests_support import Done, write_plugin
from typer.testing import CliRunner

from mrbench.cli.volumes import volumes
from mrbench.errors import UserError

SHARED_DATA = Path(os.environ.get("MRBENCH_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
SHAPE = (30, 26, 22)  # stored axes: posterior, superior, left
AFFINE = np.array(
    [[0.1, 0, -2.0, 40], [-1.5, 0.1, 0, 50], [0, 1.2, 0.05, -30], [0, 0, 0, 1]]
)  # oblique, axes swapped and flipped

TEXT = """
name: three
scale: [2, 2, 2]
dimensions: 3
preparation:
  plane: {plane}
  intensity: {{kind: percentile, percentile: 100}}
  foreground: {{min_fraction: {least}}}
  crop: {{multiple: 8}}
degradation: {{name: slab, options: {{in_plane: area}}}}
metrics: [psnr]
"""

SAMPLER = """
    import torch
    import mrbench

    class Noisy:
        def __init__(self, options): pass
        def restore(self, measurement, draws):
            return 0.5 + 0.1 * measurement.noise(draws).normal((measurement.y.shape[1], *measurement.size))

    @mrbench.hookimpl
    def mrbench_methods():
        return [mrbench.MethodCard("noisy", Noisy, "noise", deterministic=False, needs_operator=False)]
"""


def call(*arguments: object) -> tuple[int, str]:
    """Exit code and output of the command; a user's mistake is raised."""
    app = typer.Typer()
    app.command()(volumes)
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if isinstance(result.exception, UserError):
        raise result.exception
    assert result.exit_code in (0, 2), result.output
    return result.exit_code, result.output


def table(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text().splitlines()))


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """One volume, different everywhere, in a folder of its own."""
    folder = tmp_path / "data" / "sub-1"
    folder.mkdir(parents=True)
    grid = np.meshgrid(*(np.linspace(0, 1, n) for n in SHAPE), indexing="ij")
    values = 100 + 300 * grid[0] + 200 * grid[1] ** 2 + 100 * np.sin(5 * grid[2]) + 40 * np.sin(30 * grid[0] * grid[2])
    nibabel.Nifti1Image(values.astype(np.float32), AFFINE).to_filename(folder / "t1.nii.gz")
    return tmp_path / "data"


Run = Callable[..., tuple[Done, Path]]


@pytest.fixture
def run(scan: Path, tmp_path: Path, mrbench: Callable[..., Done]) -> Run:
    """Run methods on the scan under a 3-D protocol."""

    def start(*arguments: object, plane: str = "axial", least: float = 0.0) -> tuple[Done, Path]:
        protocol = tmp_path / "three.yaml"
        protocol.write_text(TEXT.format(plane=plane, least=least))
        common = ("--dataset", "folder", "--set", f"folder.path={scan}", "--protocol", protocol, "--no-pictures")
        done = mrbench("run", *common, "--out", tmp_path / "runs", *arguments)
        assert done.code == 0, done.err
        return done, tmp_path / "runs"

    return start


def at_world(image: Any, reference: Any) -> NDArray[np.float64]:
    """The values of ``reference`` at the voxel centres of ``image``, which fall on voxels of the reference."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in image.shape), indexing="ij"), -1).reshape(-1, 3)
    found = nibabel.affines.apply_affine(np.linalg.inv(reference.affine) @ image.affine, index)
    nearest = np.round(found).astype(int)
    assert np.abs(found - nearest).max() < 1e-4
    return np.asarray(reference.get_fdata()[tuple(nearest.T)]).reshape(image.shape)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_ground_truth_comes_back_to_its_place_in_native_units(plane: str, run: Run, scan: Path, tmp_path: Path) -> None:
    _, runs = run("--method", "gt", plane=plane)
    call(runs, "--out", tmp_path / "out")
    file = next((tmp_path / "out").glob("gt-*/sub-1__t1.nii.gz"))
    image, source = nibabel.load(file), nibabel.load(scan / "sub-1" / "t1.nii.gz")
    assert nibabel.aff2axcodes(image.affine) == nibabel.aff2axcodes(AFFINE)  # the source's own axes
    np.testing.assert_allclose(image.header.get_zooms(), source.header.get_zooms(), rtol=1e-5)
    np.testing.assert_allclose(image.get_fdata(), at_world(image, source), rtol=1e-5)
    across = {"axial": 1, "coronal": 0, "sagittal": 2}[plane]
    assert image.shape[across] == SHAPE[across]
    assert all(n % 8 == 0 for axis, n in enumerate(image.shape) if axis != across)


def test_consistency_of_the_ground_truth_is_perfect_and_of_others_is_not(run: Run) -> None:
    _, runs = run("--method", "gt", "--method", "bicubic")
    _, output = call(runs)
    assert "gradient ratio" in output
    lines = {f.parent.name.split("-")[0]: table(f)[0] for f in runs.rglob("volumes.csv")}
    assert float(lines["gt"]["gradient_ratio"]) == 1
    assert float(lines["gt"]["ssim_rows"]) == pytest.approx(1)
    assert lines["gt"]["psnr"] == "inf"
    assert 0.5 < float(lines["bicubic"]["gradient_ratio"]) < 1  # thick slices are alike
    assert 0 < float(lines["bicubic"]["ssim_columns"]) < 1
    assert (lines["bicubic"]["first"], lines["bicubic"]["slices"], lines["bicubic"]["missing"]) == ("0", str(SHAPE[1]), "0")
    assert lines["bicubic"]["signature"].startswith("interslice|")
    call(runs, "--json")  # and again, over what is there


def test_several_draws_give_mean_and_spread(run: Run, tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, "noisy", SAMPLER)
    _, runs = run("--plugin", plugin, "--method", "noisy", "--draws", 3)
    call(runs, "--out", tmp_path / "out", "--truth")
    folder = next((tmp_path / "out").glob("noisy-*"))
    assert {f.name for f in folder.iterdir()} == {f"sub-1__t1{k}.nii.gz" for k in ("", "_mean", "_sd", "_truth")}
    draw, mean, sd = (nibabel.load(folder / f"sub-1__t1{k}.nii.gz").get_fdata() for k in ("", "_mean", "_sd"))
    top = nibabel.load(folder / "sub-1__t1_truth.nii.gz").get_fdata().max()
    assert sd.mean() == pytest.approx(0.1 * top * 0.886, rel=0.1)  # mean of a standard deviation of 3
    assert np.std(mean) == pytest.approx(np.std(draw) / np.sqrt(3), rel=0.05)
    lines = table(next(runs.rglob("volumes.csv")))
    assert [line["of"] for line in lines] == ["draw1", "mean of 3 draws"]
    assert float(lines[0]["gradient_ratio"]) > float(lines[1]["gradient_ratio"]) > 1  # draws flicker, their mean less


def test_incomplete_volumes_are_refused_unless_told(run: Run, tmp_path: Path) -> None:
    _, runs = run("--method", "gt", "--subset", 20)
    with pytest.raises(UserError, match=r"1 of 1 volumes lack slices that this run has not restored.*--incomplete"):
        call(runs, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    call(runs, "--out", tmp_path / "out", "--incomplete")
    image = nibabel.load(next((tmp_path / "out").rglob("*.nii.gz"))).get_fdata()
    missing = np.isnan(image).all(axis=(0, 2))  # superior is stored axis 1
    assert missing.sum() == SHAPE[1] - 20
    assert np.isfinite(image[:, ~missing]).all()
    line = table(next(runs.rglob("volumes.csv")))[0]
    assert line["missing"] == str(SHAPE[1] - 20)
    assert float(line["gradient_ratio"]) == pytest.approx(1)
    assert line["ssim_rows"] == "nan"


def test_slices_that_the_protocol_leaves_out_at_the_ends_are_no_gaps(run: Run, scan: Path, tmp_path: Path) -> None:
    file = scan / "sub-1" / "t1.nii.gz"
    source = nibabel.load(file)
    values = source.get_fdata(dtype=np.float32).copy()
    values[:, :4] = values[:, -7:] = 0  # superior is stored axis 1
    nibabel.Nifti1Image(values, AFFINE).to_filename(file)
    _, runs = run("--method", "gt", least=0.35)
    call(runs, "--out", tmp_path / "out")
    image = nibabel.load(next((tmp_path / "out").rglob("*.nii.gz")))
    assert image.shape[1] == SHAPE[1] - 11
    np.testing.assert_allclose(image.get_fdata(), at_world(image, source), rtol=1e-5)
    line = table(next(runs.rglob("volumes.csv")))[0]
    assert (line["first"], line["slices"], line["missing"]) == ("4", str(SHAPE[1] - 11), "0")


def test_files_are_not_overwritten_and_images_are_needed(run: Run, tmp_path: Path) -> None:
    _, runs = run("--method", "gt")
    call(runs, "--out", tmp_path / "out")
    with pytest.raises(UserError, match=r"exists already.*--force"):
        call(runs, "--out", tmp_path / "out")
    call(runs, "--out", tmp_path / "out", "--force")
    with pytest.raises(UserError, match="--truth writes files"):
        call(runs, "--truth")
    _, runs = run("--method", "nearest", "--images", "none")
    with pytest.raises(UserError, match=r"no restored images are stored.*--images all"):
        call(next(runs.glob("*/*/nearest-*")))


def test_stacks_without_affine_keep_their_voxel_sizes(tmp_path: Path, mrbench: Callable[..., Done]) -> None:
    """Images of a manifest have a place in a stack but none in space; 2-D protocols give volumes too."""
    from PIL import Image

    folder = tmp_path / "stack"
    folder.mkdir()
    y, x = np.mgrid[:24, :32] / 32
    lines = ["file,subject,volume,slice_index,voxel_row_mm,voxel_col_mm,spacing_mm"]
    for s in range(12):
        Image.fromarray((120 + 100 * np.sin(6 * x * y + 0.4 * s)).astype(np.uint8)).save(folder / f"{s:02d}.png")
        lines.append(f"{s:02d}.png,a,v,{s},0.5,0.75,3")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    out = tmp_path / "runs"
    done = mrbench(
        "run", "--method", "gt", "--dataset", "folder", "--set", f"folder.path={folder}", "--scale", 2, "--metrics", "psnr", "--out", out,
        "--no-pictures",
    )  # fmt: skip
    assert done.code == 0, done.err
    call(out, "--out", tmp_path / "files")
    image = nibabel.load(next((tmp_path / "files").rglob("*.nii.gz")))
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (0, 0)
    assert image.shape == (12, 24, 32)
    stored = image.get_fdata()
    expected = np.stack([np.asarray(Image.open(folder / f"{s:02d}.png")) for s in range(12)])
    np.testing.assert_allclose(stored, np.minimum(expected, stored.max()), atol=1e-3)


def test_single_slices_beyond_a_slice_that_the_protocol_leaves_out_stand_apart(run: Run, scan: Path, tmp_path: Path) -> None:
    file = scan / "sub-1" / "t1.nii.gz"
    values = nibabel.load(file).get_fdata(dtype=np.float32).copy()
    values[:, 3] = 0  # the fourth slice from below has no foreground, the three below it have
    nibabel.Nifti1Image(values, AFFINE).to_filename(file)
    _, runs = run("--method", "gt", least=0.2)
    call(runs, "--out", tmp_path / "out")
    line = table(next(runs.rglob("volumes.csv")))[0]
    assert (line["first"], line["slices"], line["missing"], line["apart"]) == ("4", str(SHAPE[1] - 4), "0", "3")
    assert nibabel.load(next((tmp_path / "out").rglob("*.nii.gz"))).shape[1] == SHAPE[1] - 4


REAL = SHARED_DATA / "brain_t1_ixi_2mm_nifti" / "IXI033-HH-1259_t1.nii.gz"


@pytest.mark.skipif(not REAL.is_file(), reason=f"a real volume is not at {REAL}")
def test_a_real_volume_under_a_3d_protocol(tmp_path: Path, mrbench: Callable[..., Done]) -> None:
    """Stored posterior, superior, right; degraded across its last axis; back in place, and thick slices are seen as such."""
    folder = tmp_path / "real"
    folder.mkdir()
    shutil.copy(REAL, folder)
    done = mrbench(
        "run", "--method", "gt", "--method", "bicubic", "--dataset", "folder", "--set", f"folder.path={folder}", "--protocol",
        "uniform-thick-x4", "--metrics", "psnr", "--no-pictures", "--out", tmp_path / "runs",
    )  # fmt: skip
    assert done.code == 0, done.err
    call(tmp_path / "runs", "--out", tmp_path / "out")
    image = nibabel.load(next((tmp_path / "out").glob("gt-*/*.nii.gz")))
    assert nibabel.aff2axcodes(image.affine) == ("P", "S", "R")
    found = image.get_fdata()
    expected = np.minimum(at_world(image, nibabel.load(REAL)), found.max())  # clipped at the 99.9th percentile
    np.testing.assert_allclose(found, expected, atol=1e-4)
    line = next(table(f)[0] for f in (tmp_path / "runs").rglob("volumes.csv") if f.parent.name.startswith("bicubic"))
    assert 0.05 < float(line["gradient_ratio"]) < 0.25
    assert int(line["slices"]) == image.shape[2]
