"""Damaged copies of NIfTI, Analyze, PNG, JPEG, TIFF and numpy files: a volume or a DataError, nothing else."""

from __future__ import annotations

import gzip
import io
import os
import random
import resource
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from corruption import corrupted
from PIL import Image

from mrbench.data.checks import check_volume
from mrbench.data.nifti import nifti_files, read_nifti, stated_axcodes
from mrbench.data.reading import read_volume
from mrbench.errors import DataError

SHAPE = (24, 20, 18)
SECONDS = 5  # of CPU time, of one file


def _values():
    return np.random.default_rng(0).integers(0, 2000, SHAPE).astype(np.int16)


def _nifti(kind, ending, **more):
    def make(folder):
        image = kind(_values(), np.diag([1.0, 1.0, 2.0, 1.0]), **more)
        if hasattr(image, "set_sform"):
            image.set_sform(image.affine, 1)
        path = folder / f"v{ending}"
        nib.save(image, path)
        return path

    return make


def _picture(format_name, ending, colour):
    def make(folder):
        rng = np.random.default_rng(1)
        shape = (40, 32, 3) if colour else (40, 32)
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(stream, format_name)
        path = folder / f"p{ending}"
        path.write_bytes(stream.getvalue())
        return path

    return make


def _array(ending):
    def make(folder):
        path = folder / f"a{ending}"
        if ending == ".npz":
            np.savez_compressed(path, image=_values())
        else:
            np.save(path, _values())
        return path

    return make


KINDS = {
    "nii": _nifti(nib.Nifti1Image, ".nii"),
    "nii.gz": _nifti(nib.Nifti1Image, ".nii.gz"),
    "nifti2": _nifti(nib.Nifti2Image, ".nii"),
    "pair": _nifti(nib.Nifti1Pair, ".nifti.img"),
    "analyze": _nifti(nib.Spm2AnalyzeImage, ".img"),
    "png": _picture("PNG", ".png", False),
    "jpeg": _picture("JPEG", ".jpg", True),
    "tiff": _picture("TIFF", ".tif", False),
    "npy": _array(".npy"),
    "npz": _array(".npz"),
}


def _damage(folder, kind, rng):
    """A file of the kind with damage (in either half of a pair; inside of gzip every other time), as its path."""
    path = KINDS[kind](folder)
    victim = path
    if kind in ("pair", "analyze"):
        victim = rng.choice(nifti_files(path))
    data = victim.read_bytes()
    if kind == "nii.gz" and rng.random() < 0.5:
        data = gzip.compress(corrupted(gzip.decompress(data), rng))
    else:
        data = corrupted(data, rng)
    victim.write_bytes(data)
    return path


def _read(path):
    """``ok`` or the DataError's text; everything else is a failure of the test."""
    try:
        if path.suffix in (".nii", ".gz", ".img"):
            stated_axcodes(path)
        volume = read_volume(path, 0, "LAS")
        check_volume(volume, path)
        return "ok"
    except DataError as error:
        return error.reason


def _too_long(number, frame):
    raise TimeoutError(f"a damaged file takes more than {SECONDS} s")


def _try_many(folder, kind, seeds):
    outcomes = []
    before = signal.signal(signal.SIGPROF, _too_long)
    try:
        for seed in seeds:
            rng = random.Random(f"{kind}-{seed}")
            path = _damage(folder, kind, rng)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                signal.setitimer(signal.ITIMER_PROF, SECONDS)
                outcomes.append(_read(path))
                signal.setitimer(signal.ITIMER_PROF, 0)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    return outcomes


@pytest.mark.parametrize("kind", KINDS)
def test_whole_files_are_read(tmp_path, kind):
    assert _read(KINDS[kind](tmp_path)) == "ok"


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files(tmp_path, kind):
    outcomes = _try_many(tmp_path, kind, range(9))
    assert any(o != "ok" for o in outcomes)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_damaged_files(tmp_path, kind):
    """In a process of its own: a crash of a decoder shows, and the memory is the process's."""
    support = Path(__file__).resolve().parents[1] / "support"
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path), kind], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(support)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    tried, refused, grown = map(int, done.stdout.split())
    assert tried == 1000
    assert 100 < refused < 1000
    assert grown < 512  # MiB; the files are of kilobytes


def test_stated_axcodes_and_reading_agree(tmp_path):
    path = KINDS["nii.gz"](tmp_path)
    assert stated_axcodes(path) == "RAS"
    np.testing.assert_array_equal(read_nifti(path).array[0], _values())


if __name__ == "__main__":
    place, chosen = Path(sys.argv[1]), sys.argv[2]
    _read(KINDS[chosen](place))
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = _try_many(place, chosen, range(1000))
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) // 1024
    sys.stdout.write(f"{len(found)} {sum(o != 'ok' for o in found)} {grown_mib}\n")
