"""`mrbench predict` from the user's side: mistakes, folders, what is never overwritten, and what is left when it fails."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image
from tests_support import write_plugin

METHODS = """
    import mrbench

    def grey(m):
        if "fail" in {flag!r} and m.y.shape[2] == 13:
            raise ValueError("thirteen rows")
        return mrbench.upsample(m)

    @mrbench.hookimpl
    def mrbench_methods():
        return [mrbench.MethodCard("grey", grey, "bicubic of grey images", channels=(1,), scales=(2, 4))]
"""


def image(path: Path, rows: int = 16, columns: int = 20, value: Any = None) -> Path:
    array = np.random.default_rng(rows).random((rows, columns)).astype(np.float32)
    if value is not None:
        array[1, 2:4] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    return path


def png(path: Path, *channels: int, size: tuple[int, int] = (16, 20)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(1).integers(0, 255, (*size, *channels)).astype(np.uint8)
    Image.fromarray(values).save(path)
    return path


def refused(done: Any, message: str) -> None:
    assert done.code == 2, done.err
    assert message in done.err
    assert "Traceback" not in done.err
    assert not done.out


def test_bad_inputs(mrbench, tmp_path: Path) -> None:
    """Each with one message that says what is wrong, exit code 2, and nothing written."""
    bicubic = ("predict", "-m", "bicubic", "--scale", 2)
    out = tmp_path / "out" / "sr.npy"
    refused(mrbench(*bicubic, tmp_path / "no.npy", out), "no such file or folder")
    (tmp_path / "text.txt").write_text("not an image")
    refused(mrbench(*bicubic, tmp_path / "text.txt", out), "the format is not recognised")
    (tmp_path / "empty.png").write_bytes(b"")
    refused(mrbench(*bicubic, tmp_path / "empty.png", out), "the file is empty")
    (tmp_path / "cut.png").write_bytes(png(tmp_path / "whole.png").read_bytes()[:60])
    refused(mrbench(*bicubic, tmp_path / "cut.png", tmp_path / "out" / "sr.png"), "it cannot be decoded")
    (tmp_path / "code.npy").write_bytes(pickle.dumps({"a": 1}, protocol=4))
    refused(mrbench(*bicubic, tmp_path / "code.npy", out), "it is a Python pickle, which is never opened")
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    refused(mrbench(*bicubic, tmp_path / "object.npy", out), "it holds pickled Python objects")
    refused(mrbench(*bicubic, image(tmp_path / "nan.npy", value=np.nan), out), "2 of its 320 values are NaN or infinite")
    refused(mrbench(*bicubic, image(tmp_path / "inf.npy", value=np.inf), out), "2 of its 320 values are NaN or infinite")
    np.save(tmp_path / "line.npy", np.arange(9.0))
    refused(mrbench(*bicubic, tmp_path / "line.npy", out), "Expected [rows, columns] or [slices, rows, columns]")
    np.save(tmp_path / "flat.npy", np.full((9, 9), 7.0))
    refused(mrbench(*bicubic, tmp_path / "flat.npy", out), "all its values are 7: there is no image in it")
    refused(mrbench(*bicubic, image(tmp_path / "tiny.npy", 3, 9), out), "3 x 9 pixels, smaller than 4")
    np.save(tmp_path / "last.npy", np.random.default_rng(0).random((16, 16, 4)))
    refused(mrbench(*bicubic, tmp_path / "last.npy", out), "arrays are [rows, columns] or [slices, rows, columns]")
    Image.fromarray(np.eye(16, dtype=bool)).save(tmp_path / "mask.png")
    refused(mrbench(*bicubic, tmp_path / "mask.png", tmp_path / "out" / "sr.png"), "1 bit a pixel: a mask")
    thin = nibabel.Nifti1Image(np.random.default_rng(0).random((9, 9, 2)).astype(np.float32), np.diag([5.0, 1, 1, 1]))
    nibabel.save(thin, tmp_path / "thin.nii")
    refused(mrbench(*bicubic, tmp_path / "thin.nii", tmp_path / "out" / "sr.nii"), "Cut it along another plane with --plane")
    blind = nibabel.Nifti1Image(np.random.default_rng(0).random((9, 9, 9)).astype(np.float32), None)
    nibabel.save(blind, tmp_path / "blind.nii")
    refused(mrbench(*bicubic, tmp_path / "blind.nii", tmp_path / "out" / "sr.nii"), "says nothing about orientation")
    np.savez(tmp_path / "two.npz", a=np.eye(8), b=np.eye(8))
    refused(mrbench(*bicubic, tmp_path / "two.npz", tmp_path / "out" / "sr.npz"), "it holds 2 arrays (a, b)")
    (tmp_path / "void").mkdir()
    refused(mrbench(*bicubic, tmp_path / "void", tmp_path / "out"), "holds no image that can be read")
    assert not (tmp_path / "out").exists()


def test_wrong_requests(mrbench, tmp_path: Path) -> None:
    source = image(tmp_path / "lr.npy")
    plugin = ("--plugin", write_plugin(tmp_path, "grey_plugin", METHODS.format(flag="")))
    out = tmp_path / "sr.npy"
    refused(mrbench("predict", source, out), "no method given")
    refused(mrbench("predict", "-m", "bicubik", source, out), "Did you mean 'bicubic'")
    refused(mrbench("predict", "-m", "bicubic", "-m", "lanczos", source, out), "--method is given twice")
    refused(mrbench("predict", "-m", "bicubic", "--scale", 3, source, out), "no uniform protocol for scale 3")
    refused(mrbench("predict", "-m", "bicubic", "--set", "bicubic.a=1", source, out), "bicubic has no option 'a'")
    refused(mrbench("predict", "-m", "bicubic", "--set", "degradation.b=1", source, out), "has no option 'b'")
    refused(mrbench("predict", "-m", "bicubic", "--degradation", "blur", source, out), "no degradation named 'blur'")
    refused(mrbench("predict", "-m", "bicubic", "--precision", "fp8", source, out), "--precision fp8: unknown")
    refused(mrbench("predict", "-m", "bicubic", "--all-draws", source, out), "there is one draw")
    refused(mrbench("predict", "-m", "res_srdiff@nothing", source, out), "no checkpoint 'nothing'")
    for control in ("gt", "pinv", "impostor"):
        refused(mrbench("predict", "-m", control, source, out), f"method {control} is a control")
    refused(
        mrbench("predict", *plugin, "-m", "grey", "--scale", 8, source, out), "method grey works at 2x, 4x; protocol uniform-x8"
    )
    colour = png(tmp_path / "colour.png", 3)
    message = "is colour (3 channels), and method grey takes 1 channel(s)"
    refused(mrbench("predict", *plugin, "-m", "grey", colour, tmp_path / "sr.png"), message)
    (tmp_path / "volumes.yaml").write_text("name: volumes\nscale: 2\ndimensions: 3\nmetrics: [psnr]\n")
    refused(mrbench("predict", "-m", "bicubic", "-p", tmp_path / "volumes.yaml", source, out), "predict works slice by slice")
    assert not out.exists()
    assert not (tmp_path / "sr.png").exists()


def test_outputs_that_cannot_hold_the_image(mrbench, tmp_path: Path) -> None:
    bicubic = ("predict", "-m", "bicubic", "--scale", 2)
    array, grey = image(tmp_path / "lr.npy"), png(tmp_path / "lr.png")
    volume = tmp_path / "lr.nii"
    nibabel.save(
        nibabel.Nifti1Image(np.random.default_rng(0).random((8, 9, 5)).astype(np.float32), np.diag([1, 1, 5, 1])), volume
    )
    np.save(tmp_path / "stack.npy", np.random.default_rng(0).integers(0, 99, (5, 8, 9)).astype(np.uint8))
    np.save(tmp_path / "wave.npy", np.exp(1j * np.random.default_rng(0).random((8, 9))))
    refused(mrbench(*bicubic, grey, tmp_path / "sr.jpg"), "JPEG would lose again what was restored")
    refused(mrbench(*bicubic, grey, tmp_path / "sr"), "it has no ending")
    refused(mrbench(*bicubic, grey, tmp_path / "sr.nii"), "nothing is known of the position in space")
    refused(mrbench(*bicubic, volume, tmp_path / "sr.npy"), ".npy would lose the position in space")
    refused(mrbench(*bicubic, array, tmp_path / "sr.png"), "the input's values are float32, and PNG holds uint8 or uint16")
    refused(mrbench(*bicubic, tmp_path / "stack.npy", tmp_path / "sr.png"), "PNG holds one image, and the input has 5")
    refused(mrbench(*bicubic, tmp_path / "wave.npy", tmp_path / "sr.tif"), "TIFF holds no complex numbers here")
    assert not list(tmp_path.glob("sr*"))


def test_nothing_is_overwritten_unless_told(mrbench, tmp_path: Path) -> None:
    source = image(tmp_path / "lr.npy")
    before = source.read_bytes()
    command = ("predict", "-m", "bicubic", "--scale", 2)
    (tmp_path / "sr.npy").write_text("precious")
    refused(mrbench(*command, source, tmp_path / "sr.npy"), "exists already. Name another output, or overwrite with --force")
    assert (tmp_path / "sr.npy").read_text() == "precious"
    assert mrbench(*command, "--force", source, tmp_path / "sr.npy").code == 0
    assert np.load(tmp_path / "sr.npy").shape == (32, 40)
    for target in (source, tmp_path / "." / "lr.npy"):
        refused(mrbench(*command, "--force", source, target), "is an input")
    (tmp_path / "link.npy").symlink_to(source)
    refused(mrbench(*command, "--force", source, tmp_path / "link.npy"), "is an input")
    assert source.read_bytes() == before
    refused(mrbench(*command, source, source / "below" / "sr.npy"), "is a file, not a folder")
    assert mrbench(*command, source, f"{tmp_path}/into/").code == 0
    assert (tmp_path / "into" / "lr.npy").is_file()
    assert mrbench(*command, source, tmp_path / "into" / "nested" / "x.npy").code == 0


def test_a_folder_is_mirrored_and_goes_on(mrbench, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    png(folder / "a" / "one.png")
    Image.open(png(folder / "b" / "grey.png")).save(folder / "b" / "photo.jpg", quality=95)
    image(folder / "x.npy")
    nibabel.save(
        nibabel.Nifti1Image(np.random.default_rng(0).random((8, 9, 5)).astype(np.float32), np.diag([1, 1, 5, 1])),
        folder / "v.nii.gz",
    )
    nibabel.save(
        nibabel.Nifti1Pair(np.random.default_rng(0).random((8, 9, 5)).astype(np.float32), np.diag([1, 1, 5, 1])),
        folder / "p.hdr",
    )
    (folder / "notes.txt").write_text("hello")
    command = ("predict", "-m", "bicubic", "--scale", 2, folder, out)
    done = mrbench(*command)
    assert done.code == 0, done.err
    written = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
    assert written == ["a/one.png", "b/grey.png", "b/photo.png", "p.hdr", "p.img", "v.nii.gz", "x.npy"]
    assert "3 pictures without a manifest.csv: each is a volume of its own" in done.err
    assert nibabel.load(out / "p.hdr").shape == nibabel.load(out / "v.nii.gz").shape == (16, 18, 5)
    refused(mrbench(*command), "exist already")
    (out / "x.npy").unlink()
    kept = (out / "v.nii.gz").stat().st_mtime_ns
    again = mrbench(*command, "--skip-existing", "--json")
    assert again.code == 0, again.err
    assert [Path(i["input"][0]).name for i in again.json["images"]] == ["x.npy"]
    assert again.json["there_before"] == 5
    assert (out / "v.nii.gz").stat().st_mtime_ns == kept
    refused(mrbench("predict", "-m", "bicubic", folder, folder / "sr"), "lies in the input folder")
    refused(mrbench("predict", "-m", "bicubic", folder, tmp_path / "in" / "x.npy"), "is a file, and the input is a folder")
    png(folder / "b" / "photo.png")
    refused(
        mrbench("predict", "-m", "bicubic", folder, tmp_path / "other"),
        "would be written twice, for b/photo.jpg and b/photo.png",
    )
    assert not (tmp_path / "other").exists()


def test_one_bad_file_does_not_stop_a_folder(mrbench, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    for name, rows, value in (("a", 16, None), ("b", 16, np.nan), ("c", 13, None), ("d", 12, None)):
        image(folder / f"{name}.npy", rows, value=value)
    plugin = ("--plugin", write_plugin(tmp_path, "grey_plugin", METHODS.format(flag="fail")))
    done = mrbench("predict", *plugin, "-m", "grey", "--scale", 2, folder, out, "--json")
    assert done.code == 1
    assert "Traceback" not in done.err
    assert [Path(i["input"][0]).name for i in done.json["images"]] == ["a.npy", "d.npy"]
    assert [f["input"] for f in done.json["failed"]] == ["b.npy", "c.npy"]
    last = done.err.strip().splitlines()[-1]
    assert last.startswith("failed: 2 of 4 inputs: ")
    assert "2 of its 320 values are NaN" in last
    assert "c.npy: ValueError: thirteen rows" in last
    assert sorted(p.name for p in out.iterdir()) == ["a.npy", "d.npy"]
    alone = mrbench("predict", *plugin, "-m", "grey", "--scale", 2, folder / "c.npy", tmp_path / "c.npy")
    assert alone.code == 1
    assert alone.err.strip().splitlines()[-1] == f"failed: {folder / 'c.npy'}: ValueError: thirteen rows"
    assert not (tmp_path / "c.npy").exists()


def test_a_full_disk_leaves_no_half_image(mrbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image itself comes last: where it is, its companions are. What is there before stays whole."""
    import mrbench.engine.predict as module

    real, calls = module.write_atomic, []

    def full(path: Path, write: Any) -> None:
        calls.append(path.name)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, write)

    monkeypatch.setattr(module, "write_atomic", full)
    source = image(tmp_path / "lr.npy")
    plugin = write_plugin(
        tmp_path,
        "two",
        """
        import mrbench
        class Two:
            def __init__(self, options): pass
            def restore(self, m, draws):
                return mrbench.upsample(m)[:, None] + 0.01 * m.noise(draws).normal((1, *m.size))
        @mrbench.hookimpl
        def mrbench_methods():
            return [mrbench.MethodCard("two", Two, deterministic=False)]
        """,
    )
    done = mrbench("predict", "--plugin", plugin, "-m", "two", "--draws", 2, "--scale", 2, source, tmp_path / "o" / "sr.npy")
    assert done.code == 2
    assert "No space left on device" in done.err
    assert calls == ["sr_sd.npy", "sr_mean.npy"]
    assert [p.name for p in (tmp_path / "o").iterdir()] == ["sr_sd.npy"]


def test_deterministic_methods_say_so(mrbench, tmp_path: Path) -> None:
    done = mrbench("predict", "-m", "mine=bicubic", "--draws", 5, image(tmp_path / "lr.npy"), tmp_path / "sr.npy", "--json")
    assert done.code == 0, done.err
    assert "mine is deterministic: one image, without mean and sd" in done.err
    assert list(done.json["images"][0]["outputs"]) == ["image"]
    assert done.json["draws"] == 1
    assert not list(tmp_path.glob("sr_*"))


def test_a_plane_that_is_not_clear_is_named(mrbench, tmp_path: Path) -> None:
    cube = np.random.default_rng(0).random((9, 10, 11)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(cube, np.diag([2.0, 2.0, 2.0, 1.0])), tmp_path / "cube.nii")
    nibabel.save(nibabel.Nifti1Image(cube, np.diag([1.0, 1.0, 5.0, 1.0])), tmp_path / "thick.nii")
    done = mrbench("predict", "-m", "bicubic", tmp_path / "cube.nii", tmp_path / "a.nii")
    assert "cut into axial slices" in done.err
    assert "--plane axial, coronal or sagittal" in done.err
    for more in ((tmp_path / "thick.nii", tmp_path / "b.nii"), ("--plane", "axial", tmp_path / "cube.nii", tmp_path / "c.nii")):
        done = mrbench("predict", "-m", "bicubic", *more)
        assert done.code == 0
        assert "cut into" not in done.err
