"""The conformance suite for data sets: built-in ones pass it, and every defect is caught by the check that is named after it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import dicom_support
import fastmri_support
import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mrbench.cli import check
from mrbench.engine.conformance_base import CheckResult, conforms
from mrbench.engine.conformance_datasets import CHECKS, check_dataset
from mrbench.engine.dataset_trial import listings_shuffled
from mrbench.errors import UserError
from mrbench.plugins import discover

BUILT_IN = discover(environ={"MRBENCH_PLUGINS": ""})
NEED_FILES = [n for n in BUILT_IN.datasets.names() if BUILT_IN.datasets.get(n).path_options]
NAMES = [c.name for c in CHECKS]
AXIAL = np.diag([0.9, 0.9, 1.2, 1.0])


def statuses(results: list[CheckResult], *wanted: str) -> dict[str, str]:
    return {r.name: r.detail for r in results if r.status in wanted}


# -- built-in data sets ----------------------------------------------------------------------------------------------
def head(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, 50, shape)
    values[tuple(slice(s // 4, -(s // 4)) for s in shape)] += 500
    return values.astype(np.int16)


def nifti(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(head((24, 26, 20), seed), AXIAL)
    image.set_sform(AXIAL, 1)
    nib.save(image, path)


def analyze(path: Path, side: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.AnalyzeImage(head((26, 24, 28))[..., None], np.diag([side, side, side, 1.0])), path)


def picture(path: Path, seed: int = 0, side: int = 80) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    smooth = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8))
    smooth.resize((side, side), Image.Resampling.BICUBIC).save(path)


def bids(root: Path) -> None:
    for k in (1, 2, 3):
        nifti(root / f"sub-0{k}" / "anat" / f"sub-0{k}_T1w.nii.gz", k)


def brain_tumor(root: Path) -> None:
    for k in range(3):
        picture(root / "Training" / "notumor" / f"Tr-no_{k:04d}.jpg", k)
        picture(root / "Testing" / "notumor" / f"Te-no_{k:04d}.jpg", 10 + k)


def coco(root: Path) -> None:
    for k in range(4):
        picture(root / ("val2017", "train2017")[k % 2] / f"{k:012d}.jpg", k)


def fastmri(root: Path, acquisition: str = "AXT2") -> None:
    for k, split in enumerate(("val", "val", "train")):
        file = root / f"multicoil_{split}" / f"file_{acquisition}_{k:07d}.h5"
        fastmri_support.write_scan(file, f"p{k}", acquisition, seed=k)


def fastmri_knee(root: Path) -> None:
    fastmri(root, "CORPD_FBK")


def fastmri_prostate(root: Path) -> None:
    for k in (1, 2):
        path = root / "test" / f"file_prostate_AXT2_{k:03d}.h5"
        path.parent.mkdir(exist_ok=True)
        fastmri_support.write_prostate(path, seed=k)


def folder(root: Path) -> None:
    for k in range(3):
        picture(root / f"person{k}" / "slice.png", k)


def ixi(root: Path) -> None:
    for k in (2, 12, 116):
        nifti(root / "IXI-T2" / f"IXI{k:03d}-Guys-0828-T2.nii.gz", k)


def oasis1(root: Path) -> None:
    for k in (1, 2):
        for repeat in (1, 2):
            analyze(root / f"OAS1_000{k}_MR1" / "RAW" / f"OAS1_000{k}_MR1_mpr-{repeat}_anon.img", 1.0)


def oasis2(root: Path) -> None:
    for k in (1, 2):
        file = root / f"OAS2_000{k}_MR1" / "RAW" / "mpr-1.nifti.img"
        file.parent.mkdir(parents=True)
        nib.save(nib.Nifti1Pair(head((26, 24, 28)), AXIAL), file)


def prostate(root: Path) -> None:
    for k in (1, 2):
        images = dicom_support.series(dicom_support.phantom(6), PatientID=f"P-{k}", SeriesInstanceUID=f"1.2.3.{k}")
        dicom_support.save_all(images, root / f"series{k}")


TREES: dict[str, Callable[[Path], None]] = {
    "bids": bids, "brain_tumor": brain_tumor, "coco": coco, "fastmri_brain": fastmri, "fastmri_knee": fastmri_knee,
    "fastmri_prostate": fastmri_prostate, "folder": folder, "ixi": ixi, "oasis1": oasis1, "oasis2": oasis2, "prostate": prostate,
}  # fmt: skip


@pytest.mark.parametrize("name", BUILT_IN.datasets.names())
def test_built_in_data_sets_conform_as_far_as_can_be_told_without_files(name: str) -> None:
    results = check_dataset(BUILT_IN.datasets.get(name))
    assert [r.name for r in results] == NAMES
    assert not statuses(results, "fail", "unexpected_pass")
    skipped = statuses(results, "skip")
    if name in NEED_FILES:
        assert list(skipped) == NAMES[NAMES.index("refs") :]
        assert f"mrbench data add {name}" in skipped["refs"]
    else:
        assert list(skipped) == ["missing_path"]


@pytest.mark.parametrize("name", NEED_FILES)
def test_built_in_data_sets_conform_on_small_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree in the data set's own format: every check is judged."""
    monkeypatch.setenv("MRBENCH_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "data"
    root.mkdir()
    TREES[name](root)
    card = BUILT_IN.datasets.get(name)
    results = check_dataset(card, card.parse({"path": str(root)}))
    assert [r.name for r in results if r.status == "pass"] == NAMES, statuses(results, "fail", "unexpected_pass", "skip")


# -- defects ---------------------------------------------------------------------------------------------------------
BODY = """
import os
from pathlib import Path

import numpy as np
from pydantic import Field

import mrbench
from mrbench.data.missing import place_of


class Options(mrbench.Options):
    path: str = Field(default="", description="the folder with SUBJECT/VOLUME.npy")
    mode: str = Field(default="", description="what is wrong with this data set")


class Dataset:
    def __init__(self, options):
        self.options, self.mode = options, options.mode
        self.calls = 0
        {init}

    def refs(self):
        self.calls += 1
        {place}
        root = place_of(CARD, self.options.path)
        files = sorted(root.glob("*/*.npy"))
        {files}
        if not files:
            raise mrbench.errors.UserError("nothing in " + str(root))
        refs = [mrbench.VolumeRef(f.parent.name, f.stem, (f,), split="test", extra={{}}) for f in files]
        {refs}
        return refs

    def read(self, ref):
        try:
            array = np.load(ref.files[0])
        except (OSError, ValueError, EOFError) as error:
            raise mrbench.errors.DataError(ref.files[0], str(error)) from error
        volume = mrbench.Volume(array[None].astype(np.float32), (1.0, 1.0, 1.0))
        {read}
        return volume


FIELDS = dict(
    options=Options, home="https://example.org", licence="CC0-1.0", citation="A. Nobody, 2020", access="open",
    group_key="folder", split_rule="all test", path_options=("path",), steps=("Fetch it.",),
)
CARD = mrbench.DatasetCard("tested", Dataset, "a data set for tests", **{{**FIELDS, {card}}})


@mrbench.hookimpl
def mrbench_datasets():
    return [CARD]
"""

# name: (where the line goes, the line, the check that catches it, words of its detail)
DEFECTS = {
    "no licence": ("card", "'licence': ''", "card", "licence is empty"),
    "no home": ("card", "'home': ''", "card", "home is empty"),
    "no citation": ("card", "'citation': ''", "card", "citation is empty"),
    "no access": ("card", "'access': ' '", "card", "access is empty"),
    "no group key": ("card", "'group_key': ''", "card", "group_key is empty"),
    "no split rule": ("card", "'split_rule': ''", "card", "split_rule is empty"),
    "no steps": ("card", "'steps': ()", "card", "steps are empty"),
    "redistribution": ("card", "'redistribution': 'maybe'", "card", "redistribution 'maybe'"),
    "path option": ("card", "'path_options': ('path', 'place')", "card", "'place', which is no option"),
    "download": ("card", "'download': 'no_such_module_here:fetch'", "card", "no_such_module_here"),
    "looks at once": ("init", "place_of(CARD, options.path)", "load", "no place on this machine"),
    "no message": (
        "place", "if not self.options.path: raise mrbench.errors.UserError('no path')", "missing_path", "mrbench data add tested",
    ),
    "raises": ("files", "if not files: raise IndexError('no files')", "missing_path", "raised IndexError"),
    "empty": ("files", "if not files: return []", "missing_path", "gave 0 entries"),
    "tuple": ("refs", "refs = tuple(refs)", "refs", "gave tuple"),
    "nothing": ("refs", "refs = [mrbench.BadSource('a', 'b', 'file', 'it is bad')]", "refs", "it is bad"),
    "silent": ("refs", "refs.append(mrbench.BadSource('a', 'b', 'file', ' '))", "refs", "no reason"),
    "reads pixels": (
        "files", "from mrbench.data.reading import read_volume; [read_volume(f) for f in files]", "no_pixels", "read_volume",
    ),
    "another time": ("refs", "refs = refs[:-1] if self.calls > 1 else refs", "stable", "called again gives 2 entries"),
    "directory order": (
        "files", "files = [p for d in root.iterdir() if d.is_dir() for p in d.iterdir()]", "stable", "sort what the file system",
    ),
    "scandir order": (
        "files", "files = [Path(b, n) for b, _, names in os.walk(root) for n in names]", "stable", "another order",
    ),
    "same name": ("refs", "refs.append(refs[0])", "ids", "two volumes have the name"),
    "empty id": (
        "refs", "refs[0] = mrbench.VolumeRef('', 'v', refs[0].files)", "ids", "the subject ''",
    ),
    "newline in id": ("refs", "refs[0] = mrbench.VolumeRef('a\\nb', 'v', refs[0].files)", "ids", "cannot be shown"),
    "labels twice": ("refs", "refs[0] = mrbench.VolumeRef('s', 'v', refs[0].files, ('1', '1'))", "ids", "two slices"),
    "unknown split": ("refs", "refs[0] = mrbench.VolumeRef('s', 'v', refs[0].files, split='dev')", "splits", "'dev'"),
    "shared subject": (
        "refs", "refs += [mrbench.VolumeRef(refs[0].subject, 'more', refs[1].files, split='train')]", "splits", "train and test",
    ),
    "files are texts": ("refs", "refs[0] = mrbench.VolumeRef('s', 'v', (str(files[0]),))", "sources", "expected the paths"),
    "file is gone": ("refs", "refs[0] = mrbench.VolumeRef('s', 'v', (root / 'gone.npy',))", "sources", "there is no file"),
    "extra": ("refs", "refs[0] = mrbench.VolumeRef('s', 'v', refs[0].files, extra={'x': {1, 2}})", "sources", "is not JSON"),
    "place in extra": (
        "refs", "refs[0] = mrbench.VolumeRef('s', 'v', refs[0].files, extra={'p': str(files[0])})", "sources", "when it is moved",
    ),
    "float64": ("read", "volume.array = volume.array.astype(np.float64)", "read", "float64"),
    "NaN": ("read", "volume.array[0, 0, 0, 0] = np.nan", "read", "NaN or infinite"),
    "three axes": ("read", "volume.array = volume.array[0]", "read", "expected an array [channels"),
    "voxels": ("read", "volume.voxel = (0.0, 1.0, 1.0)", "read", "voxel sizes must be positive"),
    "affine": ("read", "volume.affine = np.zeros((4, 4))", "read", "invertible"),
    "voxels and affine": ("read", "volume.affine = np.diag([2.0, 1, 1, 1])", "read", "not those of the affine"),
    "mask": ("read", "volume.mask = np.zeros(volume.array.shape[1:], bool)", "read", "mask is empty"),
    "units": ("read", "volume.units = ''", "read", "'arbitrary'"),
    "labels": ("refs", "refs[0] = mrbench.VolumeRef('s', 'v', refs[0].files, ('1', '2'))", "read", "2 slice labels"),
    "not a volume": ("read", "volume = volume.array", "read", "gave ndarray"),
    "damaged": ("read", "raise mrbench.errors.DataError(ref.files[0], 'it is damaged')", "read", "none of 3 volumes"),
    "random": ("read", "volume.array += np.random.default_rng().random()", "read_again", "another volume"),
    "no copy": (
        "read", "self.kept = getattr(self, 'kept', {}); volume = self.kept.setdefault(ref.files, volume)", "read_again", "a copy",
    ),
}  # fmt: skip


def write_plugin(folder: Path, text: str) -> Path:
    file = folder / "tested_plugin.py"
    file.write_text(
        text.replace("mrbench.errors.", "errors.").replace("import mrbench\n", "import mrbench\nfrom mrbench import errors\n")
    )
    return file


def with_defect(where: str = "", line: str = "") -> str:
    holes = dict.fromkeys(("init", "place", "files", "refs", "read"), "pass") | {"card": ""}
    return dedent(BODY).format(**{**holes, where: line} if where else holes)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for k, subject in enumerate("abc"):
        (root / subject).mkdir(parents=True)
        np.save(root / subject / f"volume{k}.npy", np.random.default_rng(k).random((4, 24, 24)))
    return root


def run(file: Path, root: Path) -> list[CheckResult]:
    registry = discover([file])
    assert not [p.reason for p in registry.plugins if p.status != "ok"]
    card = registry.datasets.get("tested")
    return check_dataset(card, card.parse({"path": str(root)}))


def test_a_good_data_set_conforms(tmp_path: Path, tree: Path) -> None:
    results = run(write_plugin(tmp_path, with_defect()), tree)
    assert not statuses(results, "fail", "skip")
    found = statuses(results, "pass")
    assert found["refs"] == "3 volumes of 3 subjects"
    assert found["read"] == "float32 1 x 4 x 24 x 24"
    assert found["splits"] == "subjects in test: 3"


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_caught_by_its_own_check(tmp_path: Path, tree: Path, defect: str) -> None:
    where, line, expected, words = DEFECTS[defect]
    results = run(write_plugin(tmp_path, with_defect(where, line)), tree)
    found = statuses(results, "fail")
    assert set(found) == {expected}, found
    assert words in found[expected]
    assert not conforms(results)


@pytest.mark.parametrize(
    ("caught", "then", "words"),
    [
        ("(OSError, ValueError, EOFError)", "array = np.arange(2304.0).reshape(4, 24, 24)", "empty files are read without"),
        ("(ValueError, EOFError)", "", "files that are gone: read() raised FileNotFoundError"),
    ],
)
def test_damaged_files_that_are_read_or_raise_something_else(
    tmp_path: Path, tree: Path, caught: str, then: str, words: str
) -> None:
    text = with_defect().replace("(OSError, ValueError, EOFError)", caught)
    if then:
        text = text.replace("raise mrbench.errors.DataError(ref.files[0], str(error)) from error", then)
    found = statuses(run(write_plugin(tmp_path, text), tree), "fail")
    assert set(found) == {"damaged"}
    assert words in found["damaged"]


def test_every_check_can_fail() -> None:
    caught = {check for _, _, check, _ in DEFECTS.values()} | {"damaged"}
    assert set(NAMES) - caught == {"options", "unknown_option"}  # their own test below


def test_options_are_documented_and_closed(tmp_path: Path, tree: Path) -> None:
    text = with_defect().replace(
        '    mode: str = Field(default="", description="what is wrong with this data set")', '    mode: str = ""'
    )
    assert "mode" in statuses(run(write_plugin(tmp_path, text), tree), "fail")["options"]
    text = with_defect().replace(
        "class Options(mrbench.Options):", 'class Options(mrbench.Options):\n    model_config = {"extra": "ignore"}'
    )
    assert set(statuses(run(write_plugin(tmp_path, text), tree), "fail")) == {"unknown_option"}


def test_own_files_need_no_page(tmp_path: Path, tree: Path) -> None:
    card = "'licence': 'that of your files', 'home': '', 'citation': '', 'steps': ()"
    assert not statuses(run(write_plugin(tmp_path, with_defect("card", card)), tree), "fail")


def test_listings_are_shuffled_and_given_back(tmp_path: Path) -> None:
    for name in "abcdefgh":
        (tmp_path / name).mkdir()
    plain = sorted(os.listdir(tmp_path))
    before = os.listdir, os.scandir
    with listings_shuffled():
        assert os.listdir(tmp_path) != plain
        assert [p.name for p in tmp_path.iterdir()] != plain
        assert [p.name for p in tmp_path.glob("*")] != plain
        _, folders, _ = next(os.walk(tmp_path))
        assert folders != plain
        assert sorted(folders) == plain
    assert (os.listdir, os.scandir) == before


# -- the command -----------------------------------------------------------------------------------------------------
def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(check.app, list(map(str, arguments)))


def test_command(tmp_path: Path, tree: Path) -> None:
    done = invoke("dataset", "sample")
    assert done.exit_code == 0, done.output
    assert done.stdout.strip().splitlines()[-1] == "sample: 13 passed, 1 skipped. Conforming."
    plugin = write_plugin(tmp_path, with_defect("read", "volume.units = ''"))
    done = invoke("dataset", "mine=tested", "--plugin", plugin, "--set", f"mine.path={tree}", "--json")
    assert done.exit_code == 1
    document = json.loads(done.stdout)
    assert (document["dataset"], document["passed"]) == ("tested", False)
    assert [c["name"] for c in document["checks"]] == NAMES
    assert {c["name"] for c in document["checks"] if c["status"] == "fail"} == {"read"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("sampel",), "Did you mean 'sample'"),
        (("sample", "--set", "sample.path=x"), "has no option 'path'"),
        (("a b=sample",), "bad alias"),
    ],
)
def test_mistakes_are_user_errors(arguments: tuple[str, ...], words: str) -> None:
    done = invoke("dataset", *arguments)
    assert isinstance(done.exception, UserError)
    assert words in str(done.exception)


def test_it_needs_no_torch() -> None:
    code = (
        "import sys; from mrbench.plugins import discover; from mrbench.engine.conformance_datasets import check_dataset as c;"
        "c(discover().datasets.get('sample')); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
