"""IXI: names, folders, contrasts, the short stack, two grids of one person."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from mrbench_datasets.ixi import CARD, IxiOptions
from mrbench_datasets.ixi import download as downloading
from mrbench_datasets.ixi.dataset import IxiDataset

from mrbench.data.preparation import prepare_volume
from mrbench.data.records import BadSource, VolumeRef
from mrbench.errors import DataError, UserError
from mrbench.settings import CropSpec, ForegroundSpec, PreparationSpec

AXIAL = np.array([[-0.94, 0, 0, 90], [0, 0.94, 0, -120], [0, 0, 1.25, -70], [0, 0, 0, 1.0]])  # L, A, S
SAGITTAL = np.array([[0, 0, 1.2, -90], [-0.94, 0, 0, 120], [0, 0.94, 0, -120], [0, 0, 0, 1.0]])  # P, S, R
RAW = PreparationSpec(plane="axial", foreground=ForegroundSpec(method="whole"), crop=CropSpec(multiple=1))


def _world_phantom(affine, shape):
    """A head-like block with one bright corner: right, front, top of world space."""
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    world = grid @ affine[:3, :3].T + affine[:3, 3]
    values = np.full(shape, 100.0)
    middle = (world.reshape(-1, 3).max(0) + world.reshape(-1, 3).min(0)) / 2
    values[(world > middle).all(-1)] = 1000
    return values.astype(np.int16)


def _save(path, affine=AXIAL, shape=(24, 26, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(_world_phantom(affine, shape), affine)
    image.set_sform(affine, 1)
    nib.save(image, path)
    return path


@pytest.fixture
def tree(tmp_path):
    thick = AXIAL @ np.diag([1, 1, 4, 1])
    for contrast, affine in (("T1", SAGITTAL), ("T2", AXIAL), ("PD", AXIAL)):
        folder = tmp_path / f"IXI-{contrast}"
        _save(folder / f"IXI002-Guys-0828-{contrast}.nii.gz", affine)
        _save(folder / f"IXI012-HH-1211-{contrast}.nii.gz", affine)
        if contrast != "T2":
            _save(folder / f"IXI116-Guys-0739-{contrast}.nii.gz", affine)
        _save(folder / f"IXI014-HH-1236-{contrast}.nii.gz", SAGITTAL if contrast == "T1" else thick, (24, 26, 3))
    return tmp_path


def _refs(path, **options):
    return IxiDataset(IxiOptions(path=str(path), **options)).refs()


def test_subjects_sites_and_the_short_stack(tree):
    found = _refs(tree)
    assert [(r.subject, r.volume) for r in found] == [
        ("IXI002", "IXI002-Guys-0828-T2"), ("IXI012", "IXI012-HH-1211-T2"), ("IXI014", "IXI014-HH-1236-T2"),
    ]  # fmt: skip
    assert isinstance(found[2], BadSource)
    assert "28 slices of 5 mm" in found[2].reason
    assert [r.extra["site"] for r in found[:2]] == ["Guys", "HH"]
    assert not isinstance(_refs(tree, contrast="T1")[2], BadSource)
    assert isinstance(_refs(tree, contrast="PD")[2], BadSource)


def test_contrasts_share_the_split(tree):
    splits = [{r.subject: r.split for r in _refs(tree, contrast=c) if isinstance(r, VolumeRef)} for c in ("T1", "T2", "PD")]
    for subject in ("IXI002", "IXI012"):
        assert len({s[subject] for s in splits}) == 1
    assert "IXI116" in splits[0]
    assert "IXI116" not in splits[1]  # a person without T2


def test_site_and_layouts(tree, tmp_path):
    assert [r.subject for r in _refs(tree, site="HH", contrast="T1")] == ["IXI012", "IXI014"]
    (tree / "IXI-T2").rename(tree / "T2")
    assert len(_refs(tree)) == 3
    assert len(_refs(tree / "T2")) == 3  # the files themselves


def test_both_grids_show_the_same_anatomy(tree):
    for contrast in ("T1", "T2"):
        dataset = IxiDataset(IxiOptions(path=str(tree), contrast=contrast))
        volume = dataset.read(dataset.refs()[0])
        assert sorted(volume.voxel) == pytest.approx(sorted([0.94, 0.94, 1.2 if contrast == "T1" else 1.25]))
        shown = prepare_volume(volume, RAW).hr[:, 0]
        height, width = shown.shape[1:]
        bright = shown > 0.5
        assert bright[-1].any()  # top of the head: the last slice
        assert not bright[0].any()
        last = bright[-1]
        assert last[: height // 2, : width // 2 - 1].all()  # front up, right side of the person on the left
        assert not last[height // 2 + 1 :].any()
        assert not last[:, width // 2 + 1 :].any()


def test_thick_stacks_under_other_names_are_refused(tree):
    _save(tree / "IXI-T2" / "IXI777-Guys-0001-T2.nii.gz", AXIAL @ np.diag([1, 1, 4, 1]), (24, 26, 4))
    dataset = IxiDataset(IxiOptions(path=str(tree)))
    ref = next(r for r in dataset.refs() if r.subject == "IXI777")
    with pytest.raises(DataError, match="5 mm thick"):
        dataset.read(ref)


def test_copies_and_strangers(tree):
    _save(tree / "copy" / "IXI002-Guys-0828-T2.nii.gz")
    _save(tree / "other.nii.gz")
    dataset = IxiDataset(IxiOptions(path=str(tree)))
    bad = [r for r in dataset.refs() if isinstance(r, BadSource)]
    assert "second file of this name" in next(b.reason for b in bad if b.subject == "IXI002")
    assert "other.nii.gz" in dataset.warnings[0]


def test_nothing_there(tmp_path, tree):
    with pytest.raises(UserError, match="mrbench data add ixi"):
        _refs("")
    with pytest.raises(UserError, match="no folder"):
        _refs(tmp_path / "gone")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="Fetch IXI"):
        _refs(empty)
    (empty / "IXI-T2.tar").write_bytes(b"x")
    with pytest.raises(UserError, match="unpack it"):
        _refs(empty)
    with pytest.raises(UserError, match=r"There are: .*T1 \(HH\)"):
        _refs(tree / "IXI-T1", contrast="T2")


def test_download_is_pinned_and_unpacked(tmp_path, monkeypatch):
    calls = []

    def fake_download(url, target, *, sha256=None, md5=None, size=None, report=None):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"tar")
        calls.append((url, md5))
        report(3, 3)
        return target

    monkeypatch.setattr(downloading, "download", fake_download)
    monkeypatch.setattr(downloading, "unpack", lambda archive, folder, limit: [_save(folder / "IXI002-Guys-0828-PD.nii.gz")])
    fetch = CARD.download.split(":")
    assert fetch == [downloading.__name__, "fetch"]
    said = []
    files = downloading.fetch(tmp_path / "ixi", "PD", lambda done, total: said.append((done, total)))
    assert calls == [(f"{downloading._BASE}/IXI-PD.tar", "88ecd9d1fa33cb4a2278183b42ffd749")]
    assert said == [(3, 3)]
    assert files[0].parent == tmp_path / "ixi" / "IXI-PD"
    assert not (tmp_path / "ixi" / "IXI-PD.tar").exists()
    assert [r.subject for r in _refs(tmp_path / "ixi", contrast="PD")] == ["IXI002"]
    with pytest.raises(UserError, match="T1, T2, PD"):
        downloading.fetch(tmp_path, "MRA", lambda done, total: None)


@pytest.mark.shared
def test_real_people(shared, tmp_path):
    """Volumes of IXI at 2 mm under their original names."""
    for file in (shared / "brain_t1_ixi_2mm_nifti").glob("*_t1.nii.gz"):
        (tmp_path / file.name.replace("_t1", "-T1")).symlink_to(file)
    dataset = IxiDataset(IxiOptions(path=str(tmp_path), contrast="T1"))
    refs = dataset.refs()
    assert len(refs) == 40
    assert {r.extra["site"] for r in refs} == {"HH"}
    assert {"train", "val", "test"} == {r.split for r in refs}
    shown = prepare_volume(dataset.read(refs[0]), PreparationSpec(plane="axial"))
    assert shown.hr.shape[2:] == (120, 88)
    assert shown.display.axcodes == "SPL"
