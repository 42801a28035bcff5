"""`mrbench predict`: what the restored values are, in which type they are stored, and that they are the same every time."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from tests_support import write_plugin

from mrbench.data.foreground import percentile

NOISY = """
    import mrbench

    class Noisy:
        def __init__(self, options):
            pass

        def restore(self, measurement, draws):
            base = mrbench.upsample(measurement, kernel="bilinear")
            return base[:, None] + 0.05 * measurement.noise(draws).normal(base.shape[1:])

    @mrbench.hookimpl
    def mrbench_methods():
        return [mrbench.MethodCard("noisy", Noisy, "bilinear and noise", deterministic=False)]
"""


def picture(rows: int = 20, columns: int = 24, top: float = 200, seed: int = 0) -> NDArray[np.float64]:
    """A smooth picture between 0 and ``top``."""
    y, x = np.mgrid[0:rows, 0:columns]
    waves = np.sin(0.5 * x + seed) + np.cos(0.4 * y + 0.1 * x)
    values: NDArray[np.float64] = (waves - waves.min()) / np.ptp(waves) * top
    return values


def read(path: Path) -> NDArray[Any]:
    name = path.name
    if name.endswith((".nii", ".nii.gz", ".hdr", ".img")):
        return np.asarray(nibabel.load(path).dataobj)
    if name.endswith(".npy"):
        return np.load(path)
    return tifffile.imread(path) if name.endswith((".tif", ".tiff")) else np.asarray(Image.open(path))


# -- stored types ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("ending", "dtype", "top"),
    [
        (".png", "uint8", 200),
        (".png", "uint16", 40000),
        (".tif", "uint8", 200),
        (".tif", "uint16", 40000),
        (".tif", "int16", 20000),
        (".tif", "float32", 0.003),
        (".npy", "float64", 1e-4),
        (".npy", "float16", 900),
        (".npy", ">i4", 1000000),
        (".npy", "int8", 100),
        (".nii", "int16", 3000),
        (".nii.gz", "uint8", 200),
        (".nii", ">f4", 1e7),
        (".hdr", "uint16", 40000),
    ],
)
def test_units_and_type_of_the_input(mrbench, tmp_path: Path, ending: str, dtype: str, top: float) -> None:
    """Restored values are those of bicubic interpolation in the input's units, rounded only where the type is an integer."""
    values = picture(top=top).astype(dtype)
    source, target = tmp_path / f"lr{ending}", tmp_path / "out" / f"sr{ending}"
    if ending == ".npy":
        np.save(source, values)
    elif ending in (".png", ".tif"):
        tifffile.imwrite(source, values) if ending == ".tif" else Image.fromarray(values).save(source)
    else:
        header = nibabel.Nifti1Header(endianness=">" if dtype[0] == ">" else "<")
        header.set_data_dtype(dtype)
        kind = nibabel.Nifti1Pair if ending == ".hdr" else nibabel.Nifti1Image
        nibabel.save(kind(values[..., None], np.diag([2.0, 2.0, 6.0, 1.0]), header), source)
    done = mrbench("predict", "-m", "bicubic", "--scale", 2, source, target)
    assert done.code == 0, done.err
    result = read(target)
    plain = np.dtype(dtype).newbyteorder("=")
    if ending in (".nii", ".nii.gz", ".hdr"):
        assert nibabel.load(target).get_data_dtype().newbyteorder("=") == plain
        result, values = result[..., 0], np.asarray(nibabel.load(source).dataobj)[..., 0]
    else:
        assert result.dtype == plain
    assert result.shape == (40, 48)
    exact = interpolated(mrbench, tmp_path, values.astype(np.float32))
    limits = np.iinfo(plain) if plain.kind in "iu" else None
    inside = np.clip(exact, limits.min, limits.max) if limits else exact
    step = 0.5001 if limits else 0.0
    assert np.abs(result.astype(np.float64) - inside).max() <= step + top * (1e-3 if dtype == "float16" else 1e-5)
    assert result.max() > 0.9 * top


def interpolated(mrbench, folder: Path, values: NDArray[np.float32]) -> NDArray[np.float64]:
    """The same through a float array."""
    np.save(folder / "plain.npy", values)
    assert mrbench("predict", "-m", "bicubic", "--scale", 2, "--force", folder / "plain.npy", folder / "plain_sr.npy").code == 0
    return np.load(folder / "plain_sr.npy").astype(np.float64)


def test_slope_and_intercept_of_a_header_stay(mrbench, tmp_path: Path) -> None:
    stored = picture(top=3000).astype(np.int16)[..., None]
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    header["descrip"] = b"T1 of somebody"
    header["cal_max"] = 600
    header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"a comment"))
    image = nibabel.Nifti1Image(stored, np.diag([2.0, 2.0, 6.0, 1.0]), header)
    image.header.set_slope_inter(0.25, -100.0)
    nibabel.save(image, tmp_path / "lr.nii")
    assert np.asarray(nibabel.load(tmp_path / "lr.nii").dataobj).max() == pytest.approx(650)
    done = mrbench("predict", "-m", "bicubic", "--scale", 2, tmp_path / "lr.nii", tmp_path / "sr.nii", "--json")
    assert done.code == 0, done.err
    result: Any = nibabel.load(tmp_path / "sr.nii")
    assert (result.dataobj.slope, result.dataobj.inter) == (0.25, -100.0)
    assert result.get_data_dtype() == np.int16
    assert bytes(result.header["descrip"]).startswith(b"T1 of somebody")
    assert [e.get_content() for e in result.header.extensions] == [b"a comment"]
    native = np.asarray(nibabel.load(tmp_path / "lr.nii").dataobj)[..., 0]
    exact = interpolated(mrbench, tmp_path, native.astype(np.float32))
    assert np.abs(np.asarray(result.dataobj)[..., 0] - exact).max() <= 0.126  # half a stored step
    top = percentile(native.astype(np.float32), 99.9)
    assert done.json["images"][0]["intensity"] == {"scale": pytest.approx(top), "offset": 0.0}


def test_other_nifti_kinds(mrbench, tmp_path: Path) -> None:
    """NIfTI-2, one volume of a 4-D file, and Analyze, whose directions have to be told."""
    values = np.stack([picture(seed=s) for s in range(3)], -1).astype(np.float32)
    affine = np.diag([2.0, 2.0, 6.0, 1.0])
    nibabel.save(nibabel.Nifti2Image(values, affine), tmp_path / "two.nii")
    assert mrbench("predict", "-m", "bicubic", "--scale", 2, tmp_path / "two.nii", tmp_path / "two_sr.nii").code == 0
    assert isinstance(nibabel.load(tmp_path / "two_sr.nii"), nibabel.Nifti2Image)
    four = np.stack([values * 2, values], -1)
    nibabel.save(nibabel.Nifti1Image(four, affine), tmp_path / "four.nii")
    several = mrbench("predict", "-m", "bicubic", "--scale", 2, tmp_path / "four.nii", tmp_path / "x.nii")
    assert several.code == 2
    assert "it is 4-D" in several.err
    done = mrbench("predict", "-m", "bicubic", "--scale", 2, "--volume-index", 1, tmp_path / "four.nii", tmp_path / "one.nii")
    assert done.code == 0, done.err
    np.testing.assert_allclose(read(tmp_path / "one.nii"), read(tmp_path / "two_sr.nii"), rtol=1e-5, atol=1e-3)
    analyze = nibabel.Spm2AnalyzeImage(values, None)
    analyze.header.set_zooms((2.0, 2.0, 6.0))
    nibabel.save(analyze, tmp_path / "old.img")
    for left in tmp_path.glob("old.mat"):
        left.unlink()
    untold = mrbench("predict", "-m", "bicubic", "--scale", 2, tmp_path / "old.hdr", tmp_path / "new.nii")
    assert untold.code == 2
    assert "its header says nothing about orientation" in untold.err
    told = ("--assume-axcodes", "RAS")
    assert mrbench("predict", "-m", "bicubic", "--scale", 2, *told, tmp_path / "old.hdr", tmp_path / "new.nii").code == 0
    new: Any = nibabel.load(tmp_path / "new.nii")
    assert (int(new.header["sform_code"]), int(new.header["qform_code"])) == (0, 0)  # it does not say more than the input
    np.testing.assert_allclose(new.header.get_zooms(), (1, 1, 6))
    np.testing.assert_allclose(read(tmp_path / "new.nii"), read(tmp_path / "two_sr.nii"), rtol=1e-5, atol=1e-3)


def test_clipping_is_reported(mrbench, tmp_path: Path) -> None:
    """Cubic interpolation overshoots at edges: what does not fit the type is cut, and counted."""
    step = np.zeros((16, 16), np.uint8)
    step[:, 8:] = 255
    Image.fromarray(step).save(tmp_path / "lr.png")
    done = mrbench("predict", "-m", "bicubic", "--scale", 2, tmp_path / "lr.png", tmp_path / "sr.png", "--json")
    assert done.code == 0, done.err
    exact = interpolated(mrbench, tmp_path, step.astype(np.float32))
    beyond = int(((np.rint(exact) < 0) | (np.rint(exact) > 255)).sum())
    assert beyond > 0
    assert done.json["images"][0]["clipped"] == beyond
    assert f"{beyond} of 1024 values lay beyond the range of uint8 and were cut to it" in done.err
    result = read(tmp_path / "sr.png")
    assert (result.min(), result.max()) == (0, 255)


def test_several_slices_share_one_scale(mrbench, tmp_path: Path) -> None:
    """Pages of a TIFF and slices of an array are one volume, scaled by its percentile, and come back as such."""
    pages = np.stack([picture(top=100), picture(top=4000, seed=1)]).astype(np.uint16)
    tifffile.imwrite(tmp_path / "stack.tif", pages, photometric="minisblack")
    np.save(tmp_path / "stack.npy", pages)
    np.savez(tmp_path / "both.npz", scan=pages, other=pages[0])
    for name, more in (("stack.tif", ()), ("stack.npy", ()), ("both.npz", ("--key", "scan"))):
        done = mrbench("predict", "-m", "bicubic", "--scale", 2, *more, tmp_path / name, tmp_path / "out" / name, "--json")
        assert done.code == 0, done.err
        (image,) = done.json["images"]
        assert image["slices"] == 2
        assert image["intensity"]["scale"] == pytest.approx(percentile(pages.astype(np.float32), 99.9))
    expected = read(tmp_path / "out" / "stack.npy")
    assert expected.shape == (2, 40, 48)
    assert expected.dtype == np.uint16
    np.testing.assert_array_equal(read(tmp_path / "out" / "stack.tif"), expected)
    with np.load(tmp_path / "out" / "both.npz") as archive:
        assert archive.files == ["scan"]
        np.testing.assert_array_equal(archive["scan"], expected)


CUT = """
    import mrbench

    @mrbench.hookimpl
    def mrbench_methods():
        return [mrbench.MethodCard("cut", lambda m: mrbench.upsample(m).clamp(0, 1), "bicubic that cuts, as networks do")]
"""


def test_the_range_can_be_declared(mrbench, tmp_path: Path) -> None:
    """A method that returns [0, 1] cuts what lies above the volume's percentile, unless another white is declared."""
    values = picture(top=100)
    values[5:7, 5:7] = 300
    np.save(tmp_path / "lr.npy", values.astype(np.float32))
    cut = ("predict", "--plugin", write_plugin(tmp_path, "cut_plugin", CUT), "-m", "cut", "--scale", 2, tmp_path / "lr.npy")
    done = mrbench(*cut, tmp_path / "own.npy", "--json")
    white = percentile(values.astype(np.float32), 99.9)
    assert done.json["images"][0]["intensity"] == {"scale": pytest.approx(white), "offset": 0.0}
    assert np.load(tmp_path / "own.npy").max() == pytest.approx(white)
    done = mrbench(*cut, tmp_path / "told.npy", "--range", "-50,450", "--json")
    assert done.code == 0, done.err
    assert done.json["images"][0]["intensity"] == {"scale": 500.0, "offset": -50.0}
    exact = interpolated(mrbench, tmp_path, values.astype(np.float32))
    np.testing.assert_allclose(np.load(tmp_path / "told.npy"), exact, atol=1e-3)
    assert exact.max() > white
    assert mrbench(*cut, tmp_path / "x.npy", "--range", "5,5").code == 2


def test_colour_and_complex(mrbench, tmp_path: Path) -> None:
    colour = np.stack([picture(top=t) for t in (200, 120, 60)], -1).astype(np.uint8)
    Image.fromarray(colour).save(tmp_path / "lr.png")
    assert mrbench("predict", "-m", "bicubic", "--scale", 2, tmp_path / "lr.png", tmp_path / "sr.png").code == 0
    result = read(tmp_path / "sr.png")
    assert result.shape == (40, 48, 3)
    exact = interpolated(mrbench, tmp_path, colour[..., 1].astype(np.float32))
    assert np.abs(result[..., 1] - exact.clip(0, 255)).max() <= 0.501
    waves = (picture(top=1) * np.exp(1j * picture(top=2, seed=3))).astype(np.complex64)
    np.save(tmp_path / "lr.npy", waves)
    assert mrbench("predict", "-m", "bicubic", "--scale", 2, tmp_path / "lr.npy", tmp_path / "sr.npy").code == 0
    restored = read(tmp_path / "sr.npy")
    assert restored.dtype == np.complex64
    for part in ("real", "imag"):
        exact = interpolated(mrbench, tmp_path, np.ascontiguousarray(getattr(waves, part)))
        np.testing.assert_allclose(getattr(restored, part), exact, atol=1e-5)


# -- draws and determinism -------------------------------------------------------------------------------------------
@pytest.fixture
def noisy(tmp_path: Path) -> tuple[Any, ...]:
    return ("--plugin", write_plugin(tmp_path, "noisy_plugin", NOISY), "-m", "noisy", "--scale", 2)


def test_draws_mean_and_sd(mrbench, tmp_path: Path, noisy) -> None:
    np.save(tmp_path / "lr.npy", picture().astype(np.float32))
    done = mrbench("predict", *noisy, "--draws", 12, "--all-draws", tmp_path / "lr.npy", tmp_path / "sr.npy", "--json")
    assert done.code == 0, done.err
    outputs = done.json["images"][0]["outputs"]
    assert list(outputs) == ["image", "mean", "sd", *(f"draw{k:02d}" for k in range(2, 13))]
    draws = np.stack([np.load(outputs[k][0]) for k in outputs if k not in ("mean", "sd")]).astype(np.float64)
    np.testing.assert_allclose(np.load(tmp_path / "sr_mean.npy"), draws.mean(0), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(np.load(tmp_path / "sr_sd.npy"), draws.std(0, ddof=1), rtol=1e-3, atol=1e-4)
    scale = done.json["images"][0]["intensity"]["scale"]
    assert np.load(tmp_path / "sr_sd.npy").mean() == pytest.approx(0.05 * scale, rel=0.05)  # in the input's units
    alone = mrbench("predict", *noisy, tmp_path / "lr.npy", tmp_path / "alone.npy")
    assert alone.code == 0, alone.err
    np.testing.assert_array_equal(np.load(tmp_path / "alone.npy"), draws[0].astype(np.float32))
    assert sorted(p.name for p in tmp_path.glob("alone*")) == ["alone.npy"]


def test_sd_of_integers_is_float(mrbench, tmp_path: Path, noisy) -> None:
    values = picture(top=40000).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "lr.png")
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint16)
    header["cal_max"] = 20000
    volume = nibabel.Nifti1Image(values[..., None], np.diag([2, 2, 6, 1]), header)
    volume.header.set_slope_inter(0.5, 10)
    nibabel.save(volume, tmp_path / "lr.nii.gz")
    for name, sd_name, scale in (("sr.png", "sr_sd.tif", 1.0), ("sr.nii.gz", "sr_sd.nii.gz", 0.5)):
        source = tmp_path / name.replace("sr", "lr")
        done = mrbench("predict", *noisy, "--draws", 3, source, tmp_path / name, "--json")
        assert done.code == 0, done.err
        assert read(tmp_path / name.replace("sr", "sr_mean")).shape[:2] == (40, 48)
        if name.endswith("png"):
            assert read(tmp_path / "sr_mean.png").dtype == np.uint16
            assert read(tmp_path / sd_name).dtype == np.float32
        else:
            image: Any = nibabel.load(tmp_path / sd_name)
            assert image.get_data_dtype() == np.float32
            assert (image.dataobj.slope, image.dataobj.inter) == (1.0, 0.0)
            assert float(image.header["cal_max"]) == 0.0
        unit = done.json["images"][0]["intensity"]["scale"]
        assert np.median(read(tmp_path / sd_name)) == pytest.approx(0.05 * unit, rel=0.3)
        assert unit == pytest.approx(40000 * scale + (10 if scale < 1 else 0), rel=0.05)


def test_the_same_input_gives_the_same_image(mrbench, tmp_path: Path, noisy) -> None:
    """Whatever it is called, in batches of any size, compressed outputs included; other content gives other noise."""
    values = np.stack([picture(seed=s) for s in range(5)], -1).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([2.0, 2.0, 9.0, 1.0])), tmp_path / "a.nii.gz")
    (tmp_path / "b.nii.gz").write_bytes((tmp_path / "a.nii.gz").read_bytes())
    for name, batch in (("a", 1), ("b", 3)):
        done = mrbench("predict", *noisy, "--batch", batch, tmp_path / f"{name}.nii.gz", tmp_path / f"{name}_sr.nii.gz")
        assert done.code == 0, done.err
    assert (tmp_path / "a_sr.nii.gz").read_bytes() == (tmp_path / "b_sr.nii.gz").read_bytes()
    first = read(tmp_path / "a_sr.nii.gz")
    assert np.abs(first[..., 0] - first[..., 1]).max() > 1
    content = gzip.decompress((tmp_path / "a.nii.gz").read_bytes())
    (tmp_path / "c.nii").write_bytes(content)
    other = values.copy()
    other[0, 0, 0] += 1e-3
    nibabel.save(nibabel.Nifti1Image(other, np.diag([2.0, 2.0, 9.0, 1.0])), tmp_path / "d.nii.gz")
    assert mrbench("predict", *noisy, tmp_path / "d.nii.gz", tmp_path / "d_sr.nii.gz").code == 0
    assert np.abs(read(tmp_path / "d_sr.nii.gz") - first).max() > 1


def test_a_folder_with_a_manifest_is_scaled_by_volume(mrbench, tmp_path: Path) -> None:
    folder = tmp_path / "slices"
    (folder / "s").mkdir(parents=True)
    lines = ["file,subject,volume,slice_index"]
    for i, top in enumerate((50, 255, 120)):
        Image.fromarray(picture(top=top, seed=i).astype(np.uint8)).save(folder / "s" / f"{i}.png")
        lines.append(f"s/{i}.png,ann,t1,{2 - i}")
    Image.fromarray(picture(top=30).astype(np.uint8)).save(folder / "alone.png")
    Image.fromarray(picture(top=30).astype(np.uint8)).save(folder / "unlisted.png")
    lines.append("alone.png,bob,t1,0")
    (folder / "manifest.csv").write_text("\n".join(lines))
    done = mrbench("predict", "-m", "bicubic", "--scale", 2, folder, tmp_path / "out", "--json")
    assert done.code == 0, done.err
    ann, bob = done.json["images"]
    assert [Path(f).name for f in ann["input"]] == ["2.png", "1.png", "0.png"]
    joint = np.stack([np.asarray(Image.open(folder / "s" / f"{i}.png")) for i in range(3)]).astype(np.float32)
    assert ann["intensity"]["scale"] == pytest.approx(percentile(joint, 99.9))
    assert bob["intensity"]["scale"] < 31
    written = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*"))
    assert written == ["alone.png", "s/0.png", "s/1.png", "s/2.png"]
    assert "1 file(s) not listed in manifest.csv are not used: unlisted.png" in done.err
    exact = interpolated(mrbench, tmp_path, np.asarray(Image.open(folder / "s" / "2.png")).astype(np.float32))
    assert np.abs(read(tmp_path / "out" / "s" / "2.png") - exact.clip(0, 255)).max() <= 0.501
