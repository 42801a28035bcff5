"""The protocols after papers: what they state, what was filled in, and what they do to images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from tests_support import Done, rows_of

from mrbench.data.preparation import prepare_volume
from mrbench.data.records import Volume
from mrbench.errors import DataError
from mrbench.plugins import discover
from mrbench.protocol import find_protocol, named_protocols, parse_protocol, resolve
from mrbench.settings import CropSpec, IntensitySpec, PreparationSpec, canonical_json

PAPERS = {
    "msp_sr-x2": (2, 2),
    "msp_sr-x4": (4, 4),
    "msp_sr-x8": (8, 8),
    "scale_cascaded-x2": (2, 2),
    "scale_cascaded-x4": (4, 4),
    "res_srdiff_paper": (2, 3, 3),
    "res_srdiff_paper-brain": (4, 4, 4),
    "res_srdiff_code": (4, 4, 4),
}


def volume(shape: tuple[int, int, int] = (20, 48, 40), seed: int = 0, channels: int = 1, spacing: float = 1.5) -> Volume:
    array = np.random.default_rng(seed).uniform(0, 1000, (channels, *shape)).astype(np.float32)
    return Volume(array, (spacing, 1.0, 1.0))


@pytest.mark.parametrize("name", PAPERS)
def test_papers_are_named_with_their_factors_and_every_gap_is_listed(name: str) -> None:
    protocol = named_protocols()[name]
    assert protocol.scales == PAPERS[name]
    assert protocol.assumptions[0].startswith(("Stated", "As published"))
    assert len(protocol.assumptions) >= 5
    assert "psnr" in protocol.metrics
    assert "ssim" in protocol.metrics


def test_what_distinguishes_paper_and_code_of_res_srdiff() -> None:
    paper, code = (resolve(find_protocol(n), discover()).rules for n in ("res_srdiff_paper-brain", "res_srdiff_code"))
    assert paper["through_plane"] == "nearest"
    assert "pre_upsample" not in paper
    assert "slice_scaling" not in paper
    assert (code["pre_upsample"], code["slice_scaling"]) == ("sitk_bspline", "own_min_max")
    assert paper["degradation"] == code["degradation"]
    assert (code["preparation"]["trim_first"], code["preparation"]["trim_last"]) == (40, 20)


def test_settings_that_came_later_are_not_written_at_their_default() -> None:
    text = canonical_json(PreparationSpec())
    assert not any(name in text for name in ("levels", "square", "slice_spacing"))
    used = PreparationSpec(intensity=IntensitySpec(levels=256), crop=CropSpec(square=True), slice_spacing=(1, 2))
    document = used.model_dump(mode="json")
    assert document["intensity"]["levels"] == 256
    assert document["crop"]["square"] is True
    assert document["slice_spacing"] == [1, 2]
    assert PreparationSpec.model_validate(document) == used
    protocol = named_protocols()["res_srdiff_code"]
    again = parse_protocol(protocol.model_dump(mode="json"), "x")
    assert resolve(again, discover()).hash == resolve(protocol, discover()).hash


def test_ground_truth_of_8_bit_files() -> None:
    spec = named_protocols()["msp_sr-x4"].preparation
    found = prepare_volume(volume(), spec)
    levels = found.hr * 255
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-4)
    assert found.hr.shape[2:] == (256, 256)
    assert found.hr.max() == 1
    plain = prepare_volume(volume(), spec.model_copy(update={"intensity": IntensitySpec(percentile=100, offset="min")}))
    assert 0 < np.abs(found.hr - plain.hr).max() <= 0.5 / 255 + 1e-6


def test_grey_levels_are_of_magnitudes() -> None:
    with pytest.raises(DataError, match="grey levels"):
        prepare_volume(volume(channels=2), PreparationSpec(intensity=IntensitySpec(levels=16)))


def test_slices_at_another_distance_are_refused() -> None:
    spec = named_protocols()["res_srdiff_paper"].preparation
    assert len(prepare_volume(volume((60, 48, 40)), spec).positions) == 40
    with pytest.raises(DataError, match=r"slices lie 3 mm apart; this protocol takes 1.4 to 1.6 mm"):
        prepare_volume(volume((60, 48, 40), spacing=3.0), spec)
    with pytest.raises(DataError, match="at an unknown distance"):
        prepare_volume(volume((60, 48, 40), spacing=float("nan")), spec)
    with pytest.raises(DataError, match="fewer than min_slices = 30"):
        prepare_volume(volume((29, 48, 40)), spec)


def test_square_crop_is_centred() -> None:
    given = volume((3, 40, 60))
    found = prepare_volume(given, PreparationSpec(crop=CropSpec(square=True), intensity=IntensitySpec(percentile=100)))
    assert found.hr.shape[2:] == (40, 40)
    assert (found.window.top, found.window.left) == (0, 10)
    np.testing.assert_allclose(found.hr[1, 0] * given.array.max(), given.array[0, 1, :, 10:50], rtol=1e-5)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Two people, 24 slices each, smooth, distances of 2 mm."""
    folder = tmp_path / "scans"
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (32, 40, 24)), indexing="ij")
    for number in (1, 2):
        head = np.exp(-4 * (z**2 + y**2 + x**2)) * (2 + np.sin(9 * number * y) * np.cos(7 * x))
        (folder / f"sub-{number}").mkdir(parents=True)
        nibabel.Nifti1Image((1000 * head).astype(np.int16), np.diag([1, 1, 2, 1])).to_filename(
            folder / f"sub-{number}" / "t1.nii.gz"
        )
    return folder


@pytest.mark.parametrize("protocol", ["uniform-slab-3x3x2", "uniform-thick-x4", "res_srdiff_paper-brain"])
def test_3d_protocols_run_and_refuse_what_needs_an_operator(
    protocol: str, scans: Path, tmp_path: Path, mrbench: Callable[..., Done]
) -> None:
    common = (
        "--dataset",
        "folder",
        "--set",
        f"folder.path={scans}",
        "--protocol",
        protocol,
        "--metrics",
        "psnr,data_consistency",
    )
    done = mrbench("run", "--method", "bicubic", "--method", "gt", *common, "--out", tmp_path / "runs", "--no-pictures")
    assert done.code == 0, done.err
    rows = rows_of(tmp_path / "runs", "bicubic")
    assert set(rows["status"]) == {"ok"}
    assert rows["psnr"].between(10, 60).all()
    assert "data_consistency" not in rows or rows["data_consistency"].isna().all()
    assert np.isinf(rows_of(tmp_path / "runs", "gt")["psnr"]).all()
    refused = mrbench("run", "--method", "pinv", *common, "--out", tmp_path / "runs")
    assert refused.code == 2
    assert "needs a 2-D degradation operator" in refused.err


def test_res_srdiff_code_scales_every_slice_by_its_own_extremes(
    scans: Path, tmp_path: Path, mrbench: Callable[..., Done]
) -> None:
    source = (Path(__file__).resolve().parents[2] / "mrbench" / "protocols" / "res_srdiff_code.yaml").read_text()
    short = tmp_path / "short.yaml"  # the same rules for small volumes
    short.write_text(
        source.replace("trim_first: 40", "trim_first: 2").replace("trim_last: 20", "trim_last: 1").replace("384", "40")
    )
    out = tmp_path / "runs"
    done = mrbench(
        "run", "--method", "bicubic", "--dataset", "folder", "--set", f"folder.path={scans}", "--protocol", short, "--metrics", "psnr",
        "--out", out, "--no-pictures",
    )  # fmt: skip
    assert done.code == 0, done.err
    truths = sorted(out.glob("folder/*/truth-*/*.npz"))
    assert len(truths) == len(rows_of(out))
    for file in truths:
        with np.load(file) as arrays:
            for image in (arrays["hr"], arrays["y"]):
                assert image.shape == (1, 40, 40)
                assert (image.min(), image.max()) == pytest.approx((0, 1), abs=1e-6)
