"""fastMRI brain and knee on tiny files in their true formats."""

from __future__ import annotations

from pathlib import PurePosixPath

import h5py
import numpy as np
import pytest
from fastmri_support import centre, header, phantom, profiles, to_kspace, truncate, write_prostate, write_scan
from mrbench_datasets.fastmri import BrainOptions, KneeOptions, ProstateOptions, mrbench_datasets
from mrbench_datasets.fastmri.dataset import BrainDataset, KneeDataset, contrast_of
from mrbench_datasets.fastmri.scans import folder_split
from mrbench_datasets.folder import FolderOptions
from mrbench_datasets.folder.dataset import FolderDataset

from mrbench.data import kspace as kspace_module
from mrbench.data.fastmri import image_size, inspect_scan, read_complex, read_scan
from mrbench.data.items import list_items
from mrbench.data.kspace import combine_coils, crop_centre, root_sum_of_squares, to_image
from mrbench.data.records import BadSource, VolumeRef
from mrbench.data.splits import hash_split
from mrbench.errors import DataError, UserError
from mrbench.settings import ForegroundSpec, PreparationSpec


def _brain(path, **options):
    dataset = BrainDataset(BrainOptions(path=str(path), **options))
    return dataset, dataset.refs()


def _knee(path, **options):
    dataset = KneeDataset(KneeOptions(path=str(path), **options))
    return dataset, dataset.refs()


def _usable(refs):
    return [ref for ref in refs if isinstance(ref, VolumeRef)]


def _bad(refs):
    return {ref.file: ref.reason for ref in refs if isinstance(ref, BadSource)}


@pytest.fixture
def brain(tmp_path):
    """Two sizes, two contrasts of one patient, a masked test file, a truncated one, and hidden ones."""
    write_scan(tmp_path / "multicoil_val/file_brain_AXT2_200_0000001.h5", "p1", "AXT2", seed=1)
    write_scan(
        tmp_path / "multicoil_val/file_brain_AXFLAIR_200_0000002.h5", "p1", "AXFLAIR", full=(80, 54), size=(27, 27), seed=2
    )
    write_scan(tmp_path / "multicoil_train/file_brain_AXT2_201_0000003.h5", "p2", "AXT2", seed=3)
    write_scan(tmp_path / "multicoil_test/file_brain_AXT2_201_0000004.h5", "p3", "AXT2", target=False, seed=4)
    truncate(write_scan(tmp_path / "multicoil_val/file_brain_AXT1_202_0000005.h5", "p4", "AXT1", seed=5))
    for name in ("multicoil_val/.hidden.h5", "multicoil_val/._file_brain_AXT2_200_0000001.h5", ".cache/x.h5", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"junk")
    return tmp_path


def test_cards_say_how_to_get_the_files():
    cards = {card.name: card for card in mrbench_datasets()}
    assert set(cards) == {"fastmri_brain", "fastmri_knee", "fastmri_prostate"}
    for card in cards.values():
        dataset = card.load()(card.parse({}))
        with pytest.raises(UserError, match=f"mrbench data add {card.name} PATH") as error:
            dataset.refs()
        assert "https://fastmri.med.nyu.edu/" in str(error.value)
        assert "data sharing agreement" in str(error.value)
        assert not card.download
        assert card.redistribution == "none"
        assert card.path_options[0] == "path"
        for name, field in card.options.model_fields.items():
            assert field.description, name


def test_what_is_found_and_what_is_not(brain):
    dataset, refs = _brain(brain)
    names = [(r.subject, r.volume, r.split) for r in _usable(refs)]
    assert ("p1", "file_brain_AXT2_200_0000001", "test") in names
    assert ("p1", "file_brain_AXFLAIR_200_0000002", "test") in names
    assert len(names) == 3
    bad = _bad(refs)
    assert set(bad) == {
        "multicoil_test/file_brain_AXT2_201_0000004.h5", "multicoil_val/file_brain_AXT1_202_0000005.h5",
    }  # fmt: skip
    assert "no ground truth (it is a masked test scan)" in bad["multicoil_test/file_brain_AXT2_201_0000004.h5"]
    assert "truncated" in bad["multicoil_val/file_brain_AXT1_202_0000005.h5"]
    assert dataset.warnings == []
    assert dataset.refs() == refs  # again, in the same order


def test_images_voxels_and_orientation(brain):
    dataset, refs = _brain(brain)
    for ref, size in zip(sorted(_usable(refs), key=lambda r: r.volume), ((27, 27), (32, 32), (32, 32)), strict=True):
        volume = dataset.read(ref)
        assert volume.array.shape == (1, 3, *size)
        assert volume.voxel == pytest.approx((5.0, 0.7, 0.6))  # slices, readout, phase encoding
        assert volume.affine is None
        front, back = volume.array[0, 1, : size[0] // 2], volume.array[0, 1, size[0] // 2 :]
        assert front[front > 0].mean() > 1.3 * back[back > 0].mean()  # the bright front is at the top
        with h5py.File(ref.files[0]) as file:
            np.testing.assert_array_equal(volume.array[0], file["reconstruction_rss"][:][:, ::-1])
            assert volume.array.max() == pytest.approx(file.attrs["max"])  # no slice has been scaled


def test_one_scale_a_volume(brain, tmp_path_factory):
    dataset, _ = _brain(brain)
    found = list_items("fastmri_brain", "1", dataset, PreparationSpec(), cache_dir=tmp_path_factory.mktemp("c"))
    assert len(found.items) == 6
    assert len({item.intensity.scale for item in found.items}) == 2
    assert {item.item_id.split("/")[3] for item in found.items} == {"000", "001", "002"}
    assert len(found.skipped) == 2


def test_contrasts(brain):
    _, refs = _brain(brain, acquisition="AXT2")
    assert {r.volume.split("_")[2] for r in _usable(refs)} == {"AXT2"}
    _, refs = _brain(brain, acquisition="axflair, AXT2")
    assert len(_usable(refs)) == 3
    with pytest.raises(UserError, match=r"acquisition AXT1\. Acquisitions here: AXFLAIR: 1, AXT2: 3"):
        _brain(brain, acquisition="AXT1")  # AXT1PRE and AXT1POST are contrasts of their own
    assert contrast_of("CORPD_FBK") == "CORPD" != contrast_of("CORPDFS_FBK")
    assert contrast_of("CORPDF") == contrast_of("corpdfs_fbk") == "CORPDFS"


def test_split_rules(tmp_path):
    for number in range(12):
        write_scan(tmp_path / f"multicoil_train/t{number}.h5", f"t{number}", slices=1, full=(20, 18), size=(16, 16))
    write_scan(tmp_path / "multicoil_val/v.h5", "v", slices=1, full=(20, 18), size=(16, 16))
    write_scan(tmp_path / "multicoil_test_full/f.h5", "f", slices=1, full=(20, 18), size=(16, 16))
    write_scan(tmp_path / "multicoil_test/f.h5", "f", slices=1, full=(20, 18), size=(16, 16), target=False)

    def sides(**options):
        dataset, refs = _brain(tmp_path, **options)
        assert _bad(refs) == {}
        return dataset, {r.subject: r.split for r in _usable(refs)}

    dataset, default = sides()
    assert dataset.warnings == ["1 scan(s) without ground truth are there with it, too, and not reported"]
    assert (default["v"], default["f"]) == ("test", "test")
    assert {default[f"t{n}"] for n in range(12)} == {"train", "val"}
    assert default["t0"] == hash_split("t0", 0, (0.9, 0.1, 0.0))
    _, official = sides(split="official")
    assert (official["v"], official["f"], official["t3"]) == ("val", "test", "train")
    _, hashed = sides(split="hash", split_seed=7)
    assert hashed == {subject: hash_split(subject, 7) for subject in hashed}


def test_files_in_no_split_folder(tmp_path):
    write_scan(tmp_path / "scans/a.h5", "a")
    dataset, refs = _brain(tmp_path)
    assert _usable(refs)[0].split == hash_split("a")
    assert any("no folder that names an official split" in text for text in dataset.warnings)
    (tmp_path / "multicoil_val").mkdir()
    (tmp_path / "scans/a.h5").rename(tmp_path / "multicoil_val/a.h5")
    dataset, refs = _brain(tmp_path / "multicoil_val")  # pointed at the folder itself
    assert (_usable(refs)[0].split, dataset.warnings) == ("test", [])


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("multicoil_train/a.h5", "train"), ("knee_singlecoil_val/a.h5", "val"), ("brain_multicoil_train_batch_7/a.h5", "train"),
        ("brain_multicoil_test_full_batch_0/a.h5", "test"), ("multicoil_test_v2/a.h5", "test"), ("multicoil_challenge/a.h5", "test"),
        ("Training/T2/a.h5", "train"), ("test/multicoil_train/a.h5", "train"), ("my_test_data/a.h5", None), ("a.h5", None),
        ("trained/a.h5", None),
    ],
)  # fmt: skip
def test_folders_that_name_a_split(name, split):
    assert folder_split(PurePosixPath(name), "downloads") == split


def test_a_patient_on_two_sides(tmp_path):
    for name, patient in (("multicoil_train/a.h5", "p"), ("multicoil_val/b.h5", "p"), ("multicoil_train/c.h5", "q")):
        write_scan(tmp_path / name, patient)
    dataset, refs = _brain(tmp_path, split="official")
    assert {(r.volume, r.split) for r in _usable(refs)} == {("b", "val"), ("c", "train")}
    assert "nobody is on two sides" in _bad(refs)["multicoil_train/a.h5"]
    assert any("1 patient(s) have scans in several splits" in text for text in dataset.warnings)
    _, refs = _brain(tmp_path, split="hash")  # by patient: no conflict can arise
    assert _bad(refs) == {}


def test_files_without_patient_or_header(tmp_path):
    write_scan(tmp_path / "multicoil_val/a.h5", without=("patient_id", "ismrmrd_header"))
    write_scan(tmp_path / "multicoil_val/b.h5", "b", arrays={"ismrmrd_header": "<!DOCTYPE x><x/>"})
    dataset, refs = _brain(tmp_path)
    assert [r.subject for r in _usable(refs)] == ["a", "b"]
    assert any("1 of 2 files have no patient_id" in text for text in dataset.warnings)
    assert any("2 file(s) have no voxel size" in text for text in dataset.warnings)
    for ref in _usable(refs):
        assert np.isnan(dataset.read(ref).voxel).all()


def test_only_some_patients(tmp_path):
    for number in range(5):
        for contrast in ("AXT1", "AXT2"):
            write_scan(tmp_path / f"multicoil_val/{contrast}{number}.h5", f"p{number}", contrast, slices=1)
    _, all_refs = _brain(tmp_path)
    _, two = _brain(tmp_path, patients=2)
    assert len(all_refs) == 10
    assert len(two) == 4  # both contrasts of two patients
    assert len({r.subject for r in two}) == 2
    assert {r.subject for r in two} <= {r.subject for r in _brain(tmp_path, patients=3)[1]}


def test_other_sets_are_told_apart(tmp_path):
    write_scan(tmp_path / "multicoil_val/brain.h5", "b", "AXT2")
    write_scan(tmp_path / "multicoil_val/knee.h5", "k", "CORPD_FBK")
    write_prostate(tmp_path / "multicoil_val/file_prostate_AXT2_001.h5")
    _, refs = _brain(tmp_path)
    bad = _bad(refs)
    assert [r.volume for r in _usable(refs)] == ["brain"]
    assert "Use the data set fastmri_knee" in bad["multicoil_val/knee.h5"]
    assert "five axes" in bad["multicoil_val/file_prostate_AXT2_001.h5"]
    _, refs = _knee(tmp_path)
    assert [r.volume for r in _usable(refs)] == ["knee"]


def test_folders_without_scans(tmp_path):
    with pytest.raises(UserError, match=r"no \.h5 file"):
        _brain(tmp_path)
    (tmp_path / "brain_multicoil_val_batch_0.tar.xz").write_bytes(b"x")
    with pytest.raises(UserError, match=r"Unpack brain_multicoil_val_batch_0\.tar\.xz"):
        _brain(tmp_path)
    with pytest.raises(UserError, match="there is no folder"):
        _brain(tmp_path / "absent")


def test_a_scan_twice(tmp_path):
    for batch in ("a", "b"):
        write_scan(tmp_path / batch / "multicoil_val/x.h5", "p")
    with pytest.raises(UserError, match=r"a/multicoil_val/x\.h5 and b/multicoil_val/x\.h5"):
        _brain(tmp_path)


def test_damage_behind_the_header_is_found_when_reading(tmp_path, tmp_path_factory):
    path = write_scan(tmp_path / "multicoil_val/a.h5")
    with h5py.File(path, "r+") as file:
        file["reconstruction_rss"][2, 5, 5] = np.nan
    dataset, refs = _brain(tmp_path)
    with pytest.raises(UserError, match="1 of its 3072 values are NaN"):
        list_items("b", "1", dataset, PreparationSpec(), cache_dir=tmp_path_factory.mktemp("c"))
    with h5py.File(path, "r+") as file:
        rss = file["reconstruction_rss"][:2]
        del file["reconstruction_rss"]
        file["reconstruction_rss"] = rss
    assert "differ in the number of slices (reconstruction_rss: 2, kspace: 3)" in next(iter(_bad(dataset.refs()).values()))
    with pytest.raises(DataError, match="differ in the number of slices"):
        dataset.read(refs[0])


# --- complex images


def test_centred_transform_against_its_definition():
    rng = np.random.default_rng(0)
    for shape in ((6, 5), (8, 9)):
        image = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)
        rows, columns = ((np.arange(n) - n // 2) for n in shape)
        left = np.exp(2j * np.pi * np.outer(rows, rows) / shape[0]) / np.sqrt(shape[0])
        right = np.exp(2j * np.pi * np.outer(columns, columns) / shape[1]) / np.sqrt(shape[1])
        np.testing.assert_allclose(to_image(image), left @ image @ right, atol=1e-5)
        np.testing.assert_allclose(to_image(to_kspace(image)), image, atol=1e-5)


def test_crop_of_odd_differences():
    assert crop_centre(np.arange(54, dtype=np.complex64)[None], (1, 27))[0, 0] == 13  # floor((54 - 27) / 2)
    with pytest.raises(ValueError, match="cannot crop"):
        crop_centre(np.zeros((4, 4), np.complex64), (5, 4))


def test_single_coil_knee(tmp_path):
    path = write_scan(tmp_path / "singlecoil_val/file1000001.h5", "k", "CORPD_FBK", coils=0)
    dataset, refs = _knee(tmp_path, image="complex")
    volume = dataset.read(_usable(refs)[0])
    assert volume.array.shape == (2, 3, 32, 32)
    expected = centre(phantom(3, (64, 40), (32, 32)), (32, 32))[:, ::-1]
    np.testing.assert_allclose(volume.array[0] + 1j * volume.array[1], expected, atol=1e-9)
    esc, esc_refs = _knee(tmp_path, image="esc")
    rss, rss_refs = _knee(tmp_path)
    np.testing.assert_allclose(np.hypot(*volume.array), esc.read(esc_refs[0]).array[0], atol=1e-9)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(rss.read(rss_refs[0]).array[0], file["reconstruction_rss"][:][:, ::-1])
    assert esc_refs[0].extra != rss_refs[0].extra != refs[0].extra  # other pixels, other cache keys


def test_both_kinds_of_knee_files(tmp_path):
    write_scan(tmp_path / "singlecoil_val/file1000001.h5", "k", "CORPD_FBK", coils=0)
    write_scan(tmp_path / "multicoil_val/file1000001.h5", "k", "CORPD_FBK", coils=4)
    with pytest.raises(UserError, match="coils=singlecoil or coils=multicoil"):
        _knee(tmp_path)
    for coils in ("singlecoil", "multicoil"):
        (ref,) = _knee(tmp_path, coils=coils)[1]
        assert ref.files[0].parent.name == f"{coils}_val"
    (esc,) = (r for r in _knee(tmp_path, coils="multicoil", image="esc")[1])
    assert "only the emulated single-coil files have it" in esc.reason


def test_coil_combination_reaches_the_root_sum_of_squares(brain):
    """The combined magnitude is at most the RSS (a unit vector's projection), and close to it inside the head."""
    dataset, refs = _brain(brain, image="complex", acquisition="AXT2")
    rss_dataset, rss_refs = _brain(brain, acquisition="AXT2")
    combined, rss = dataset.read(_usable(refs)[0]).array, rss_dataset.read(_usable(rss_refs)[0]).array[0]
    magnitude = np.hypot(*combined)
    assert (magnitude <= rss * (1 + 1e-4) + 1e-9).all()
    inside = rss > 0.2 * rss.max()
    assert np.median(magnitude[inside] / rss[inside]) > 0.99
    assert np.abs(magnitude - rss)[inside].max() < 0.05 * rss.max()


def test_coil_combination_keeps_the_objects_phase():
    """Up to a slowly varying phase of the coils: neighbouring pixels differ by the object's phase step and little more."""
    full, size = (64, 48), (40, 40)
    rho = phantom(1, full, size)[0]
    sharp = rho * np.exp(1j * np.pi * (np.indices(full)[1] % 6 < 3))  # stripes of alternating sign
    image = combine_coils(to_kspace(sharp * profiles(8, full, size)), size)
    truth = centre(sharp, size)
    inside = np.abs(centre(rho, size)) > 2e-5
    ratio = image / np.where(np.abs(truth) > 0, truth, 1)
    steps = np.angle(ratio[:, 1:] * np.conj(ratio[:, :-1]))[inside[:, 1:] & inside[:, :-1]]
    assert np.percentile(np.abs(steps), 99) < 0.3  # without the object's sign it would be pi at the stripes


def test_coil_combination_of_noise_and_of_nothing():
    """Background: the RSS of n coils adds up their noise, the combination does not."""
    rng = np.random.default_rng(0)
    full, size = (64, 48), (40, 40)
    images = phantom(1, full, size)[0] * profiles(8, full, size)
    noise = (rng.normal(size=images.shape) + 1j * rng.normal(size=images.shape)).astype(np.complex64) * 2e-6
    noisy = to_kspace(images + noise)
    background = np.abs(centre(phantom(1, full, size)[0], size)) == 0
    combined = np.abs(combine_coils(noisy, size))[background].mean()
    rss = centre(root_sum_of_squares(to_image(noisy)), size)[background].mean()
    assert combined < 0.6 * rss
    nothing = combine_coils(np.zeros((4, 20, 20), np.complex64), (16, 16))
    assert not nothing.any()
    one = to_kspace(phantom(1, full, size))
    np.testing.assert_allclose(np.abs(combine_coils(one, size)), centre(np.abs(to_image(one))[0], size), rtol=1e-4, atol=1e-10)


def test_a_whole_volume_is_never_in_memory_as_kspace(brain, monkeypatch):
    """k-space is read a slice at a time."""
    shapes = []
    original = kspace_module.to_image
    monkeypatch.setattr(kspace_module, "to_image", lambda k: shapes.append(k.shape) or original(k))
    dataset, refs = _brain(brain, image="complex", acquisition="AXT2")
    dataset.read(_usable(refs)[0])
    assert set(shapes) == {(4, 64, 40)}


def test_masked_scans_give_no_complex_images(brain):
    _, refs = _brain(brain, image="complex")
    bad = _bad(refs)
    assert "undersampled" in bad["multicoil_test/file_brain_AXT2_201_0000004.h5"]
    with pytest.raises(DataError, match="undersampled"):
        read_complex(brain / "multicoil_test/file_brain_AXT2_201_0000004.h5", True)
    assert len(_usable(refs)) == 3
    full = write_scan(brain / "full.h5", arrays={"mask": np.ones(40, bool)})  # a mask without gaps
    assert not inspect_scan(full).undersampled


def test_narrow_volumes_and_sizes_from_the_header(tmp_path):
    """Without stored images the header's size counts; k-space narrower than that gives a square of its columns (FLAIR 203)."""
    drop = {"without": ("reconstruction_rss",)}
    plain = inspect_scan(write_scan(tmp_path / "a.h5", **drop))
    assert image_size(plain) == (32, 32)
    narrow = {"ismrmrd_header": header((64, 25), (32, 32))}
    info = inspect_scan(write_scan(tmp_path / "b.h5", full=(64, 25), size=(25, 25), arrays=narrow, **drop))
    assert image_size(info) == (25, 25)
    assert read_complex(tmp_path / "b.h5", True).array.shape == (2, 3, 25, 25)
    stored = inspect_scan(write_scan(tmp_path / "c.h5", full=(64, 25), size=(25, 25), arrays=narrow))
    assert image_size(stored) == (25, 25)
    bare = inspect_scan(write_scan(tmp_path / "d.h5", without=("reconstruction_rss", "ismrmrd_header")))
    assert image_size(bare) == (64, 40)


def test_complex_slices_through_the_preparation(brain, tmp_path_factory):
    dataset, _ = _brain(brain, image="complex", acquisition="AXT2")
    found = list_items("fastmri_brain", "1", dataset, PreparationSpec(), cache_dir=tmp_path_factory.mktemp("c"))
    assert {item.shape for item in found.items} == {(2, 32, 32)}


def test_odd_files_are_named(tmp_path):
    with h5py.File(tmp_path / "none.h5", "w") as file:
        file["other"] = [1, 2]
    with pytest.raises(DataError, match="neither images nor k-space"):
        inspect_scan(tmp_path / "none.h5")
    write_scan(tmp_path / "real.h5", arrays={"kspace": np.zeros((3, 64, 40), np.float32)})
    with pytest.raises(DataError, match="its k-space has the shape"):
        inspect_scan(tmp_path / "real.h5")
    path = write_scan(tmp_path / "nan.h5", coils=0)
    with h5py.File(path, "r+") as file:
        file["kspace"][1, 3, 3] = np.nan
    with pytest.raises(DataError, match="not finite in slice 1"):
        read_complex(path, True)
    with pytest.raises(DataError, match="no images 'reconstruction_x'"):
        read_scan(path, "reconstruction_x", True)


def test_options_are_checked():
    for dataset, options in ((BrainDataset, KneeOptions()), (KneeDataset, BrainOptions()), (BrainDataset, ProstateOptions())):
        with pytest.raises(TypeError, match="expected"):
            dataset(options)


def test_hdf5_files_in_a_plain_folder(tmp_path, tmp_path_factory):
    """The data set ``folder`` reads .h5 files, too: one array each, or the one named by ``key``."""
    write_scan(tmp_path / "anna/scan.h5")
    with h5py.File(tmp_path / "anna/plain.h5", "w") as file:
        file["volume"] = np.random.default_rng(0).random((2, 24, 24))
    (tmp_path / "anna/broken.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50))
    spec = PreparationSpec(foreground=ForegroundSpec(method="whole"))
    found = list_items("f", "1", FolderDataset(FolderOptions(path=str(tmp_path))), spec, cache_dir=tmp_path_factory.mktemp("c"))
    assert {item.volume for item in found.items} == {"plain"}
    reasons = {skipped.volume: skipped.reason for skipped in found.skipped}
    assert "fastmri_brain" in reasons["scan"]
    assert "damaged" in reasons["broken"]
    keyed = FolderDataset(FolderOptions(path=str(tmp_path), key="reconstruction_rss"))
    found = list_items("f", "1", keyed, spec, cache_dir=tmp_path_factory.mktemp("c"))
    assert [item.volume for item in found.items] == ["scan"] * 3
    assert {s.volume for s in found.skipped} == {"plain", "broken"}
