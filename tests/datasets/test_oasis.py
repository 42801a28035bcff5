"""OASIS-1 and OASIS-2: Analyze and NIfTI pairs, products, repeats, visits, orientation."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from mrbench_datasets.oasis import OASIS1, OASIS2, Oasis1Options, Oasis2Options
from mrbench_datasets.oasis.dataset import STORED_AXES, Oasis1Dataset, Oasis2Dataset

from mrbench.data.nifti import read_nifti
from mrbench.data.preparation import prepare_volume
from mrbench.data.records import BadSource, VolumeRef
from mrbench.data.symmetry import mirror_correlations
from mrbench.errors import DataError, UserError
from mrbench.settings import CropSpec, ForegroundSpec, PreparationSpec

RAW = PreparationSpec(plane="axial", foreground=ForegroundSpec(method="whole"), crop=CropSpec(multiple=1))
AXES = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}


def _head():
    """A head ``[R, A, S]`` of 24 x 28 x 26: mirror-symmetric, but for a bright spot at the right, front and top."""
    r, a, s = np.mgrid[:24, :28, :26].astype(float)
    head = 300.0 * ((((r - 11.5) / 10) ** 2 + ((a - 13) / 12) ** 2 + ((s - 12) / 11) ** 2) < 1)
    head += 200.0 * ((((r - 11.5) / 5) ** 2 + ((a - 20) / 4) ** 2 + ((s - 17) / 5) ** 2) < 1)  # a face: front and up
    head[16:18, 20:22, 19:21] = 1000
    return head.astype(np.int16)


def _stored(codes):
    """The head as it lies in a file whose axes run to ``codes``."""
    axes = [AXES[c][0] for c in codes]
    return np.flip(_head().transpose(axes), [k for k, c in enumerate(codes) if AXES[c][1] < 0])


def _analyze(path, codes, orient=0, endianness="<", zooms=(1.0, 1.0, 1.25, 1.0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = _stored(codes)[..., None]  # the trailing axis of length 1 is in the real files
    header = nib.AnalyzeHeader(endianness=endianness)
    header.set_data_dtype(np.dtype("int16").newbyteorder(endianness))
    header.set_data_shape(values.shape)
    header.set_zooms(zooms)
    nib.save(nib.AnalyzeImage(values, None, header), path)
    raw = bytearray(path.with_suffix(".hdr").read_bytes())
    raw[252] = orient
    path.with_suffix(".hdr").write_bytes(bytes(raw))


def _visit1(root, visit, endianness="<", averaged=4, repeats=(1, 2, 3)):
    folder = root / visit
    for repeat in repeats:
        _analyze(folder / "RAW" / f"{visit}_mpr-{repeat}_anon.img", "ASL", 2, endianness)
    processed = folder / "PROCESSED" / "MPRAGE"
    one = (1.0, 1.0, 1.0, 1.0)
    _analyze(processed / "SUBJ_111" / f"{visit}_mpr_n{averaged}_anon_sbj_111.img", "ASL", 0, endianness, one)
    for name in ("gfc", "masked_gfc"):
        _analyze(processed / "T88_111" / f"{visit}_mpr_n{averaged}_anon_111_t88_{name}.img", "LAS", 0, endianness, one)
    (folder / f"{visit}.txt").write_text("SESSION ID")


@pytest.fixture(scope="module")
def oasis1(tmp_path_factory):
    root = tmp_path_factory.mktemp("oasis1")
    _visit1(root / "disc1", "OAS1_0001_MR1", ">")
    _visit1(root / "disc2", "OAS1_0061_MR1", "<", averaged=3)
    _visit1(root / "disc12", "OAS1_0061_MR2", "<", repeats=(2, 3))
    return root


def _one(path, **options):
    return Oasis1Dataset(Oasis1Options(path=str(path), **options))


def _upright(volume):
    """Right, front and top of the person: left, up and last in the picture."""
    shown = prepare_volume(volume, RAW).hr[:, 0]
    top, row, column = np.argwhere(shown > 0.99).mean(0)
    slices, height, width = shown.shape
    return shown.shape, top > slices / 2, row < height / 2, column < width / 2


@pytest.mark.parametrize("product", ["raw", "subj_111", "t88_111", "t88_111_masked"])
def test_every_product_stands_upright(oasis1, product):
    dataset = _one(oasis1, product=product)
    found = dataset.refs()
    assert [r.subject for r in found] == ["OAS1_0001", "OAS1_0061", "OAS1_0061"]
    for ref in found:
        volume = dataset.read(ref)
        assert volume.array.shape[1:] == _stored(STORED_AXES[product]).shape
        assert _upright(volume) == ((26, 28, 24), True, True, True)
        assert "".join(nib.aff2axcodes(volume.affine)) == STORED_AXES[product]
        assert sorted(volume.voxel) == [1, 1, 1.25 if product == "raw" else 1]
    assert not dataset.warnings


def test_repeats_and_visits_are_one_subject(oasis1):
    everything = _one(oasis1, repeats="all").refs()
    assert [r.volume for r in everything] == [
        *(f"OAS1_0001_MR1_mpr-{k}_anon" for k in (1, 2, 3)),
        *(f"OAS1_0061_MR1_mpr-{k}_anon" for k in (1, 2, 3)),
        *(f"OAS1_0061_MR2_mpr-{k}_anon" for k in (2, 3)),
    ]
    for subject in ("OAS1_0001", "OAS1_0061"):
        assert len({r.split for r in everything if r.subject == subject}) == 1
    assert [r.volume[-10:] for r in _one(oasis1).refs()] == ["mpr-1_anon", "mpr-1_anon", "mpr-2_anon"]
    first = _one(oasis1, visits="first", repeats="all").refs()
    assert {r.volume[:13] for r in first} == {"OAS1_0001_MR1", "OAS1_0061_MR1"}


def test_headers_that_speak_against_the_product_are_told(tmp_path):
    _visit1(tmp_path, "OAS1_0002_MR1")
    _analyze(tmp_path / "OAS1_0003_MR1" / "RAW" / "OAS1_0003_MR1_mpr-1_anon.img", "ASL", 1)
    dataset = _one(tmp_path)
    refs = dataset.refs()
    assert "1 header(s) say that the axes run to LSA; ASL is used" in dataset.warnings[0]
    assert _upright(dataset.read(refs[1]))[1:] == (True, True, True)
    wrong = _one(tmp_path, axcodes="LSA")
    with pytest.raises(DataError, match=r"mirror image along axis 2.*oasis1\.axcodes"):
        wrong.read(wrong.refs()[1])


def test_missing_halves_and_copies(oasis1, tmp_path):
    _visit1(tmp_path / "disc1", "OAS1_0001_MR1")
    _visit1(tmp_path / "copy", "OAS1_0001_MR1", repeats=(1,))
    _visit1(tmp_path, "OAS1_0005_MR1", repeats=(1,))
    (tmp_path / "OAS1_0005_MR1" / "RAW" / "OAS1_0005_MR1_mpr-1_anon.hdr").unlink()
    found = _one(tmp_path).refs()
    bad = {b.subject: b for b in found if isinstance(b, BadSource)}
    assert "second copy" in bad["OAS1_0001"].reason
    assert ".hdr file is missing" in bad["OAS1_0005"].reason
    assert len(found) == 3


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="accept the data use terms"):
        _one("").refs()
    with pytest.raises(UserError, match="product=raw"):
        _one(tmp_path).refs()
    with pytest.raises(UserError, match="mpr-1"):
        Oasis2Dataset(Oasis2Options(path=str(tmp_path))).refs()


# -- OASIS-2


def _pair(root, visit, repeat, stored="ASL", codes=(0, 0)):
    values = _stored(stored)[..., None]
    path = root / visit / "RAW" / f"mpr-{repeat}.nifti.img"
    path.parent.mkdir(parents=True, exist_ok=True)
    axes = np.zeros((4, 4))
    axes[3, 3] = 1
    for k, code in enumerate(stored):
        axes[AXES[code][0], k] = AXES[code][1] * (1.25 if code in "LR" else 1.0)
    image = nib.Nifti1Pair(values, axes)
    image.set_sform(axes, codes[0])
    image.set_qform(axes, codes[1])
    nib.save(image, path)
    return path


@pytest.fixture
def oasis2(tmp_path):
    _pair(tmp_path / "OAS2_RAW_PART1", "OAS2_0001_MR1", 1)
    _pair(tmp_path / "OAS2_RAW_PART1", "OAS2_0001_MR1", 2)
    _pair(tmp_path / "OAS2_RAW_PART2", "OAS2_0001_MR2", 1)
    _pair(tmp_path / "OAS2_RAW_PART2", "OAS2_0002_MR1", 1, "LAS", (1, 1))
    return tmp_path


def _two(path, **options):
    return Oasis2Dataset(Oasis2Options(path=str(path), **options))


def test_parts_are_one_data_set(oasis2):
    refs = _two(oasis2, repeats="all").refs()
    assert [(r.subject, r.volume) for r in refs] == [
        ("OAS2_0001", "OAS2_0001_MR1_mpr-1"), ("OAS2_0001", "OAS2_0001_MR1_mpr-2"),
        ("OAS2_0001", "OAS2_0001_MR2_mpr-1"), ("OAS2_0002", "OAS2_0002_MR1_mpr-1"),
    ]  # fmt: skip
    assert len({r.split for r in refs[:3]}) == 1
    assert len(_two(oasis2).refs()) == 3
    assert all(isinstance(r, VolumeRef) and len(r.files) == 2 for r in refs)


def test_without_codes_the_axes_are_deduced_and_checked(oasis2):
    dataset = _two(oasis2)
    refs = dataset.refs()
    with pytest.raises(DataError, match="orientation"):
        read_nifti(refs[0].files[0])
    assert all(_upright(dataset.read(ref)) == ((26, 28, 24), True, True, True) for ref in refs)
    wrong = _two(oasis2, axcodes="LAS")
    with pytest.raises(DataError, match=r"mirror image along axis 2.*oasis2\.axcodes"):
        wrong.read(wrong.refs()[0])
    assert _upright(wrong.read(wrong.refs()[-1]))[1:] == (True, True, True)  # that header says LAS itself
    with pytest.raises(UserError, match="three letters"):
        _two(oasis2, axcodes="AAA")


def test_groups_of_the_table(oasis2):
    table = oasis2 / "demographics.csv"
    table.write_text(
        "\ufeffSubject ID,MRI ID,Group\nOAS2_0001,OAS2_0001_MR1,Nondemented\nOAS2_0001,OAS2_0001_MR2,Nondemented\n"
    )
    dataset = _two(oasis2, group="Nondemented", table=str(table))
    assert {r.subject for r in dataset.refs()} == {"OAS2_0001"}
    assert "OAS2_0002" in dataset.warnings[0]
    for options, message in (
        ({"group": "Demented"}, "needs the demographics table"),
        ({"group": "Demented", "table": str(table)}, "nobody"),
        ({"group": "Demented", "table": str(oasis2 / "no.csv")}, "cannot be read"),
    ):
        with pytest.raises(UserError, match=message):
            _two(oasis2, **options).refs()
    table.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="It has: a, b"):
        _two(oasis2, group="Demented", table=str(table)).refs()


def test_cards():
    assert OASIS1.load() is Oasis1Dataset
    assert OASIS2.load() is Oasis2Dataset
    assert OASIS1.redistribution == OASIS2.redistribution == "none"


@pytest.mark.shared
def test_real_heads_are_most_symmetric_from_left_to_right(shared):
    for file in sorted((shared / "brain_t1_ixi_2mm_nifti").glob("*.nii.gz"))[::4]:
        correlations = mirror_correlations(read_nifti(file).array[0])  # stored P, S, R
        assert int(np.argmax(correlations)) == 2
    average = read_nifti(shared / "raw_formats/analyze/avg152T1.img", assume_axcodes="LAS")
    assert int(np.argmax(mirror_correlations(average.array[0]))) == 0
