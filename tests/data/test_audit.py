"""The audit: planted people, copies, turns and intensities are found; what is usual is not."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mrbench.data.audit import Audited, audit, slice_image
from mrbench.data.foreground import otsu_threshold, slice_mask
from mrbench.data.near_copies import DETAIL, by_volume, detail_correlation, near_copies, picture_of, shrink
from mrbench.data.outliers import VolumeLook, outliers
from mrbench.data.records import BadSource, Volume, VolumeRef
from mrbench.plugins import discover
from mrbench.report.audit_text import audit_document, audit_lines, audit_markdown

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("MRBENCH_SHARED_DATA", ROOT.parent / "shared" / "data"))
FOLDER = discover().datasets.get("folder")


def head(seed: int, slices: int = 6, size: tuple[int, int] = (72, 60)) -> NDArray[np.float32]:
    """A head of its own: an egg (pointed at the bottom, so that turns show) with folds that differ between seeds, ``[S, H, W]``."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size[0] * 1j, -1 : 1 : size[1] * 1j]
    egg = (x / (0.8 - 0.25 * y)) ** 2 + (y / 0.9) ** 2 < 1
    images = []
    waves = rng.uniform(4, 14, (8, 2)) * rng.choice([-1, 1], (8, 2))
    phases = rng.uniform(0, 6.28, 8)
    for s in range(slices):
        folds = sum(np.sin(a * x + b * y + p + 0.5 * s) for (a, b), p in zip(waves, phases, strict=True))
        images.append(np.where(egg, 400 + 60 * folds + 150 * (y > 0.2), 0))
    return np.clip(np.stack(images) + rng.normal(0, 4, (slices, *size)), 0, None).astype(np.float32)


class Toy:
    """Arrays ``[S, H, W]`` by (subject, volume, split)."""

    def __init__(self, volumes: dict[tuple[str, str, str], NDArray[np.float32]]) -> None:
        self.volumes, self.warnings = volumes, []

    def refs(self) -> list[VolumeRef | BadSource]:
        return [VolumeRef(s, v, (), split=k) for s, v, k in self.volumes]

    def read(self, ref: VolumeRef) -> Volume:
        return Volume(self.volumes[ref.subject, ref.volume, ref.split][None], (3.0, 1.0, 1.0))


def people(count: int = 6, **more: Any) -> dict[tuple[str, str, str], NDArray[np.float32]]:
    return {(f"p{i}", "t1", "train" if i % 2 else "test"): head(i) for i in range(count)} | more


def test_what_is_usual_is_not_reported() -> None:
    seen: list[tuple[int, int, str]] = []
    found = audit([Audited("toy", Toy(people()))], progress=lambda *a: seen.append(a))
    assert (found.volumes, found.slices, found.leaks) == (6, 36, False)
    assert (found.shared, found.copies, found.outliers) == ([], [], [])
    assert seen[0] == (0, 6, "toy: p0/t1")
    assert seen[-1] == (6, 6, "comparing")
    assert "No person and no picture is on several sides." in audit_markdown(found, {})
    assert audit([Audited("toy", Toy(people()))], slices=2).slices == 12


def test_a_planted_subject_is_found_within_and_between_data_sets() -> None:
    within = people()
    within["p1", "t2", "test"] = head(77)
    found = audit([Audited("toy", Toy(within))])
    assert [(s.subject, s.sides) for s in found.shared] == [("p1", (("toy", "test"), ("toy", "train")))]
    assert found.leaks
    other = {("p3", "x", "test"): head(88), ("q", "x", "test"): head(89)}
    found = audit([Audited("toy", Toy(people())), Audited("other", Toy(other))])
    assert [(s.subject, s.sides) for s in found.shared] == [("p3", (("other", "test"), ("toy", "train")))]
    assert "1 subject is on several sides: p3 (other test, toy train)" in audit_lines(found)
    nameless = audit([Audited("toy", Toy(people())), Audited("other", Toy(other), subjects=False)])
    assert nameless.shared == []
    assert any("other: nobody knows who is who" in n for n in nameless.notes)
    unknown = {("unknown", "x", "test"): head(5)}
    assert audit([Audited("a", Toy(unknown)), Audited("b", Toy({("unknown", "y", "test"): head(6)}))]).shared == []


def copies_of(image: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(1)
    top = float(image.max())
    stream = io.BytesIO()
    Image.fromarray(np.round(image / top * 255).astype(np.uint8)).save(stream, "JPEG", quality=60)
    half = Image.fromarray(image).resize((image.shape[1] // 2, image.shape[0] // 2), Image.Resampling.BICUBIC)
    return {
        "brighter": image * 3.7,
        "jpeg": np.asarray(Image.open(stream), dtype=np.float32),
        "noisy": image + rng.normal(0, 0.03 * top, image.shape).astype(np.float32),
        "half": np.asarray(half, dtype=np.float32),
        "gamma": (image / top) ** np.float32(1.2),
    }


@pytest.mark.parametrize("kind", ["brighter", "jpeg", "noisy", "half", "gamma"])
def test_planted_near_copies_are_found(kind: str) -> None:
    volumes = people()
    volumes["stranger", "2d", "test"] = copies_of(volumes["p3", "t1", "train"][2])[kind][None]
    found = audit([Audited("toy", Toy(volumes))])
    assert {frozenset((c.first.subject, c.second.subject)) for c in found.copies} == {frozenset(("p3", "stranger"))}
    best = found.copies[0]
    assert best.sides == "splits"
    assert {(p.subject, p.position) for p in (best.first, best.second)} == {("p3", 2), ("stranger", 0)}
    assert found.leaks
    document = audit_document(found)
    assert document["near_copies"][0]["sides"] == "splits"
    assert "of near-copies in different splits: " in "\n".join(audit_lines(found))


def test_copies_on_one_side_are_told_and_are_no_leak() -> None:
    volumes = people()
    volumes["twin", "t1", "train"] = volumes["p1", "t1", "train"] * 2
    found = audit([Audited("toy", Toy(volumes))])
    assert {c.sides for c in found.copies} == {"subjects"}
    assert not found.leaks
    ((pair, count),) = by_volume(found.copies)
    assert count == len(found.copies) >= 6
    assert pair.detail == max(c.detail for c in found.copies)
    across = audit([Audited("a", Toy(people())), Audited("b", Toy({("q", "v", "test"): head(0) * 2}))])
    assert {c.sides for c in across.copies} == {"data sets"}
    assert across.leaks


def test_empty_pictures_are_no_copies() -> None:
    flat = np.full((40, 40), 3.0, np.float32)
    pictures = [picture_of(flat, "d", s, "v", "test", 0) for s in "ab"]
    assert near_copies(pictures) == []
    assert detail_correlation(shrink(flat), shrink(flat)) == 0.0


def turned(volume: NDArray[np.float32], how: str) -> NDArray[np.float32]:
    return {
        "mirrored top-bottom": volume[:, ::-1],
        "turned by 90 degrees (right)": np.rot90(volume, -1, (1, 2)),
        "turned by 90 degrees (left)": np.rot90(volume, 1, (1, 2)),
    }[how].copy()


@pytest.mark.parametrize("how", ["mirrored top-bottom", "turned by 90 degrees (right)", "turned by 90 degrees (left)"])
def test_a_turned_volume_is_found(how: str) -> None:
    volumes = people(7)
    volumes["p2", "t1", "test"] = turned(head(2), how)
    found = audit([Audited("toy", Toy(volumes))])
    assert [(o.look.subject, o.kind) for o in found.outliers] == [("p2", "orientation")]
    named, _, fit = found.outliers[0].reason.partition(": undone, it correlates ")
    assert how in named.removeprefix("it looks ").split(" or ")
    assert float(fit[:4]) > 0.9
    assert (
        audit([Audited("toy", Toy({k: v for k, v in volumes.items() if k[0] in ("p1", "p2")}))]).outliers == []
    )  # two say nothing


def test_strange_intensities_are_found() -> None:
    volumes = people(8)
    volumes["p1", "t1", "train"] = head(1) * 60
    volumes["p2", "t1", "test"] = np.minimum(head(2), 300)
    volumes["p3", "t1", "train"] = head(3) - 20
    reasons = {}
    for outlier in audit([Audited("toy", Toy(volumes))]).outliers:
        assert outlier.kind == "intensity"
        reasons.setdefault(outlier.look.subject, []).append(outlier.reason)
    assert set(reasons) == {"p1", "p2", "p3"}
    assert "its 99.9th percentile is" in reasons["p1"][0]
    assert any("have the highest stored value: it was clipped" in r for r in reasons["p2"])
    assert any("are negative, which a magnitude image has none of" in r for r in reasons["p3"])


def test_strange_geometry_is_found() -> None:
    def look(name: str, voxel: tuple[float, float, float] = (3, 1, 1), plane: str = "axial") -> VolumeLook:
        return VolumeLook("d", name, "v", np.random.default_rng(0).random((48, 48)), 1, 0.5, 0.4, 0, 0, voxel, plane, "SPL", 0)

    usual = [look(str(i)) for i in range(6)]
    nan = float("nan")
    found = outliers([*usual, look("thick", (9, 1, 1)), look("side", plane="sagittal"), look("unknown", (nan, nan, nan), "")])
    assert [(o.look.subject, o.kind) for o in found] == [("thick", "geometry"), ("side", "geometry")]
    assert "9 x 1 x 1 mm (slices, rows, columns); usual: 3 x 1 x 1 mm" in found[0].reason
    assert "sagittal; usual: axial" in found[1].reason


def test_unusable_volumes_are_told_and_passed_over() -> None:
    volumes = people()
    volumes["p1", "t1", "train"] = np.full((3, 40, 40), np.nan, np.float32)
    found = audit([Audited("toy", Toy(volumes))])
    assert [b.subject for b in found.bad["toy"]] == ["p1"]
    assert found.volumes == 5
    assert "NaN" in audit_markdown(found, {})


def test_one_slice_as_it_is_shown() -> None:
    data = Toy(people(1))
    (ref,) = (r for r in data.refs() if isinstance(r, VolumeRef))
    image, aspect = slice_image(data, ref, 2)
    assert image.shape == (72, 60)
    assert aspect == 1.0
    assert 0 <= image.min() < image.max() <= 1


def body(image: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The foreground of a slice."""
    return slice_mask(image, otsu_threshold(image, 0.5), 0.02)


def test_copies_that_were_moved_padded_or_cropped_are_found() -> None:
    volumes = people(4)
    original = head(0)
    volumes["moved", "t1", "train"] = np.roll(original, (2, -3), (1, 2))
    volumes["padded", "t1", "train"] = np.pad(original, ((0, 0), (10, 10), (16, 16)))
    volumes["cropped", "t1", "train"] = original[:, 2:-2, 4:-4]
    found = audit([Audited("toy", Toy(volumes))]).copies
    assert {c.second.subject for c in found if c.first.subject == "p0"} == {"moved", "padded", "cropped"}
    assert not any({c.first.subject, c.second.subject} <= {f"p{i}" for i in range(4)} for c in found)


@pytest.mark.shared
def test_real_people_are_told_apart() -> None:
    """150 aligned people at 2 mm are the hardest case: none is taken for another, a copy is found."""
    folder = SHARED / "brain_t1_ixi_2mm"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    with (folder / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))[::3]
    images = [np.asarray(Image.open(folder / r["file"]), dtype=np.float32) for r in rows]
    pictures = [
        picture_of(image, "ixi", r["subject"], r["volume"], "test", i, body(image))
        for i, (image, r) in enumerate(zip(images, rows, strict=True))
    ]
    assert near_copies(pictures) == []
    copies = [picture_of(c, "copy", "x", k, "test", 0) for k, c in copies_of(images[200]).items()]
    found = near_copies([*pictures, *copies])
    against = {c.second.volume for c in found if c.first.position == 200 and c.second.dataset == "copy"}
    assert against == {"brighter", "jpeg", "noisy", "half", "gamma"}
    assert all(c.detail >= DETAIL for c in found)
    for number in range(10, len(images), 60):
        placed = {"moved": np.roll(images[number], 2, 1), "padded": np.pad(images[number], ((0, 0), (15, 15)))}
        copies = [picture_of(c, "copy", "x", k, "test", 0, body(c)) for k, c in placed.items()]
        found = near_copies([pictures[number], *copies])
        assert {c.second.volume for c in found if c.first.dataset == "ixi"} == set(placed)
