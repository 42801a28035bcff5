"""Damaged copies of HDF5 files, in a process of their own: each is read or refused, without a crash, a hang or much memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SUPPORT = Path(__file__).resolve().parents[1] / "support"

CHILD = """
import faulthandler, random, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import h5py, numpy as np, scipy.fft, scipy.ndimage
from corruption import corrupted
from fastmri_support import write_prostate, write_scan
from mrbench.data.fastmri import inspect_scan, read_complex, read_scan
from mrbench.data.hdf5 import read_hdf5
from mrbench.errors import DataError

folder, count = Path(sys.argv[2]), int(sys.argv[3])
stack = np.random.default_rng(0).integers(0, 3000, (3, 24, 20)).astype(np.int16)

def plain(name, version, **settings):
    with h5py.File(folder / name, "w", libver=version) as file:
        made = file.create_dataset("group/volume", data=stack, **settings)
        made.attrs["voxel_size_mm"] = [1.0, 2.0, 3.0]
    return folder / name

sources = [
    write_scan(folder / "brain.h5", slices=2, coils=4, full=(32, 24), size=(16, 16)),
    write_scan(folder / "knee.h5", acquisition="CORPD_FBK", slices=2, coils=0, full=(32, 24), size=(16, 16)),
    write_prostate(folder / "prostate.h5", slices=2),
    plain("contiguous.h5", "earliest"),
    plain("gzip.h5", "earliest", chunks=(1, 12, 20), compression="gzip", shuffle=True, fletcher32=True),
    plain("lzf.h5", "latest", chunks=(2, 12, 20), compression="lzf"),
    plain("chunks.h5", "earliest", chunks=(2, 12, 20)),
]

def read_all(path):
    info = inspect_scan(path)
    for name in info.images:
        read_scan(path, name, True)
    read_complex(path, True)

def attempt(read, path):
    try:
        read(path)
        return 1
    except DataError as error:
        assert error.file == str(path), error
        return 0

good = [attempt(read_all, s) for s in sources[:2]] + [attempt(read_hdf5, s) for s in sources[3:]]
assert all(good), "the undamaged files must be readable"
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
copy, read = folder / "copy.h5", 0
originals = [s.read_bytes() for s in sources]
for seed in range(count):
    copy.write_bytes(corrupted(originals[seed % len(originals)], random.Random(seed)))
    faulthandler.dump_traceback_later(60, exit=True)  # a hang
    read += attempt(read_all, copy) + attempt(read_hdf5, copy)
    faulthandler.cancel_dump_traceback_later()
status = Path("/proc/self/status")  # ru_maxrss would begin with the parent's
peak = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) // 1024
print(count, read, peak)
"""


def _run(tmp_path, count):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-W", "ignore", "-c", CHILD, str(SUPPORT), str(tmp_path), str(count)]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    copies, read, peak = map(int, done.stdout.split())
    assert copies == count
    assert 0 < read < 2 * count  # some of the damage is harmless, some is not
    assert peak < 600  # MiB; the files are of kilobytes


def test_some_damaged_copies(tmp_path):
    _run(tmp_path, 60)


@pytest.mark.slow
def test_a_thousand_damaged_copies(tmp_path):
    _run(tmp_path, 1000)
