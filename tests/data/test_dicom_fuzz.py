"""Damaged DICOM files end in a volume or in a DataError, soon and in bounded memory."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import dicom_support as dicom
import numpy as np
import pytest
from corruption import corrupted
from pydicom.filereader import dcmread

from mrbench.data.checks import check_volume
from mrbench.data.dicom import arrange, find_series, read_dicom
from mrbench.data.reading import read_volume
from mrbench.data.sniffing import sniff
from mrbench.errors import DataError

SECONDS = 5  # an alarm, not a measurement: what hangs is stopped there
MEMORY = 96 * 2**20
SHARED = Path(os.environ.get("MRBENCH_SHARED_DATA", Path(__file__).resolve().parents[2].parent / "shared" / "data"))
WRONG_NUMBERS = (0, 1, 3, 7, 19, 255, 4096, 32768, 65535)
WRONG_TEXTS = ("", "0", "-1", "x", "1e308", "nan", "inf", "9" * 16, "0\\0", "1\\2\\3\\4\\5\\6\\7", "0.1\\-0.1", "\\\\\\")
UNSIGNED = (
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel", "PlanarConfiguration",
)  # fmt: skip
DECIMAL = (
    "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept", "EchoTime",
    "SliceThickness", "NumberOfFrames", "SeriesNumber",
)  # fmt: skip


class _Hung(BaseException):
    """Not an ``Exception``, so that no reader can catch it."""


def _originals(folder: Path) -> dict[str, bytes]:
    """One small file of each kind, and the real ones of the development data where they are at hand."""
    files = [
        dicom.save(dicom.image(dicom.phantom(1)[0]), folder / kind, kind)
        for kind in ("explicit", "implicit", "big", "rle", "bare", "bare_implicit")
    ]
    files += [dicom.save(dicom.enhanced(dicom.phantom(4)), folder / f"enhanced_{kind}", kind) for kind in ("explicit", "rle")]
    files += sorted((SHARED / "raw_formats" / "dicom_single").glob("MR_small*.dcm"))
    return {file.name: file.read_bytes() for file in files}


def _wrong_elements(data: bytes, rng: random.Random, scratch: Path) -> bytes:
    """A well-formed file that declares nonsense: wrong shapes, types, positions; elements that are missing."""
    scratch.write_bytes(data)
    dataset = dcmread(scratch, force=True)
    for _ in range(rng.choice((1, 1, 2, 4))):
        keyword = rng.choice((*UNSIGNED, *DECIMAL))
        if rng.random() < 0.15:
            if keyword in dataset:
                del dataset[keyword]
        elif keyword in UNSIGNED:
            setattr(dataset, keyword, rng.choice(WRONG_NUMBERS))
        else:
            text = rng.choice(WRONG_TEXTS)
            dataset[keyword] = _raw(dataset, keyword, text)
    if getattr(dataset, "file_meta", None) and "TransferSyntaxUID" in dataset.file_meta:
        dataset.save_as(scratch, enforce_file_format=False)
    else:
        dataset.save_as(scratch, implicit_vr=dataset.original_encoding[0], little_endian=True, enforce_file_format=False)
    return scratch.read_bytes()


def _raw(dataset, keyword: str, text: str):
    from pydicom.datadict import dictionary_VR, tag_for_keyword
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    value = text.encode() + b" " * (len(text) % 2)
    implicit, little = dataset.original_encoding
    tag = Tag(tag_for_keyword(keyword))
    return RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, bool(implicit), bool(little))


def _attempt(path: Path) -> str:
    """Read a file in every way that a data set does; what came out."""

    def hung(number: int, frame: object) -> None:
        raise _Hung(f"{path} takes more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, hung)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    texts = []
    try:
        sniff(path)
        for series in find_series([path]).series:
            texts += [series.name, series.subject, series.plane]
            try:
                arrange(series)
            except DataError as error:
                texts.append(str(error))
        try:
            read_dicom([path])
            check_volume(read_volume(path), path)
            outcome = "volume"
        except DataError as error:
            texts.append(str(error))
            outcome = "refused"
        assert "Secret" not in "".join(texts)  # whatever is said, no person is named
        return outcome
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _fuzz(folder: Path, copies: int, seed: int) -> dict[str, int]:
    originals = _originals(folder / "originals")
    rng = random.Random(seed)
    counts = {"volume": 0, "refused": 0}
    for k in range(copies):
        name = rng.choice(sorted(originals))
        damaged = corrupted(originals[name], rng) if k % 3 else _wrong_elements(originals[name], rng, folder / "scratch")
        file = folder / f"{k}-{name}"
        file.write_bytes(damaged)
        counts[_attempt(file)] += 1
        file.unlink()
    return counts


@pytest.mark.filterwarnings("ignore")  # of pydicom, while it writes nonsense
def test_some_damaged_copies(tmp_path):
    for original in _originals(tmp_path / "first"):
        assert original
    _attempt(next((tmp_path / "first").iterdir()))  # imports
    tracemalloc.start()
    counts = _fuzz(tmp_path, 60, seed=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counts["refused"] >= 10
    assert counts["volume"] >= 5
    assert peak < MEMORY


@pytest.mark.slow
def test_a_thousand_damaged_copies(tmp_path):
    """In a process of its own: a crash of a decoder shows, and the memory that counts is the process's."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, str(tmp_path)], capture_output=True, text=True, timeout=280, check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1] / "support")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    refused, volumes, grown = map(int, done.stdout.split())
    assert refused + volumes == 1000
    assert min(refused, volumes) > 150
    assert grown < 2 * MEMORY


def test_the_same_seed_gives_the_same_damage():
    data = bytes(range(256)) * 40
    copies = [corrupted(data, random.Random(7)), corrupted(data, random.Random(7)), corrupted(data, random.Random(8))]
    assert copies[0] == copies[1]
    assert copies[0] != copies[2]
    changed = [corrupted(data, random.Random(seed)) for seed in range(200)]
    assert sum(copy != data for copy in changed) > 190
    assert min(map(len, changed)) < len(data) // 2
    assert max(map(len, changed)) > len(data)
    assert corrupted(b"", random.Random(0)) == b""


if __name__ == "__main__":
    place = Path(sys.argv[1])
    warm = dicom.save(dicom.image(np.arange(400, dtype=np.uint16).reshape(20, 20)), place / "warm", "rle")
    _attempt(warm)
    for one in _originals(place / "first").values():
        (place / "warm").write_bytes(one)
        _attempt(place / "warm")
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = _fuzz(place, 1000, seed=2)
    grown_bytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) * 1024
    sys.stdout.write(f"{result['refused']} {result['volume']} {grown_bytes}\n")
