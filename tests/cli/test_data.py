"""``mrbench data``: add, list, info, check, remove, get, audit, preview; and the commands that use remembered places."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests_support import rows_of, write_plugin

Command = Callable[..., object]
ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("MRBENCH_SHARED_DATA", ROOT.parent / "shared" / "data"))
FAST = ("--metrics", "psnr", "--no-pictures", "--threads", "1", "--device", "cpu")


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MRBENCH_DATA", str(tmp_path / "own"))
    monkeypatch.chdir(tmp_path)


def slices(seed: int, count: int = 2) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:64j, -1:1:56j]
    waves = rng.uniform(4, 14, (6, 2)) * rng.choice([-1, 1], (6, 2))
    body = (x / 0.8) ** 2 + (y / 0.9) ** 2 < 1
    texture = [sum(np.sin(a * x + b * y + 0.6 * s + seed) for a, b in waves) for s in range(count)]
    return [np.where(body, 2000 + 300 * t, 0).clip(0).astype(np.uint16) for t in texture]


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """A folder with a manifest: five people of two slices each, two of them train."""
    folder = tmp_path / "people"
    folder.mkdir()
    lines = ["file,subject,volume,slice_index,split,spacing_mm,voxel_row_mm,voxel_col_mm"]
    for i in range(5):
        for s, image in enumerate(slices(i)):
            Image.fromarray(image).save(folder / f"p{i}_{s}.png")
            lines.append(f"p{i}_{s}.png,p{i},p{i}_t1,{s},{'train' if i < 2 else 'test'},4,1,1")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_added_once_used_everywhere(mrbench, people: Path, tmp_path: Path) -> None:
    done = mrbench("data", "add", "folder", "people", "--as", "study1", "--set", "licence=CC0")
    assert done.code == 0, done.err
    assert f"study1 (folder): {people}, remembered in {tmp_path / 'own' / 'places.json'}" in done.out
    lines = [line.split() for line in done.out.splitlines()]
    assert ["train", "2", "2", "4"] in lines
    assert ["test", "3", "3", "6"] in lines
    assert ["all", "5", "5", "10"] in lines
    assert "read p2/p2_t1: 2 x 64 x 56, voxels 4 x 1 x 1 mm, values 0 to" in done.out
    assert "Use it: mrbench run --method bicubic --dataset study1" in done.out

    done = mrbench("run", "-m", "bicubic", "-d", "study1", "--out", "runs", "--json", *FAST)
    assert done.code == 0, done.err
    (run,) = done.json["runs"]
    assert (run["dataset"], run["items"], run["n_subjects"]) == ("study1", 6, 3)
    done = mrbench("costs", "-m", "bicubic", "-d", "study1", "--device", "cpu", "--json", "--threads", 1)
    assert done.code == 0, done.err
    done = mrbench("protocols", "show", "uniform-x4", "--dataset", "study1", "--json")
    assert done.json[0]["task"]["items"] == 6
    done = mrbench("datasets", "study1", "--json")
    assert done.json[0]["name"] == "folder"
    assert done.json[0]["place"]["options"] == {"licence": "CC0", "path": str(people)}
    done = mrbench("tune", "scale_cascaded", "-d", "study1", "--trials", 2)
    assert done.code == 2
    assert "data set study1 has no validation subjects" in done.err  # so it was found


def test_where_the_files_lie_is_no_part_of_a_run(mrbench, people: Path) -> None:
    command = ("run", "-m", "bicubic", "--out", "runs", "--json", *FAST)
    assert mrbench("data", "add", "folder", people, "--as", "study1").code == 0
    assert mrbench(*command, "-d", "study1").code == 0
    (first,) = Path("runs/study1/uniform-x4").glob("bicubic-*")
    people.rename("elsewhere")
    done = mrbench(*command, "-d", "study1")
    assert done.code == 2
    assert "mrbench data add folder PATH" in done.err or "no such folder" in done.err
    assert mrbench("data", "list", "--json").json[0]["status"] == "folder is gone"

    assert mrbench("data", "add", "folder", "elsewhere", "--as", "study1").code == 2  # another folder: --replace is asked for
    assert mrbench("data", "add", "folder", "elsewhere", "--as", "study1", "--replace").code == 0
    before = rows_of(Path("runs"))
    assert mrbench(*command, "-d", "study1").code == 0
    assert [p.name for p in Path("runs/study1/uniform-x4").glob("bicubic-*")] == [
        first.name
    ]  # the same run: nothing is computed again
    assert rows_of(Path("runs")).equals(before)
    done = mrbench("verify", first, "--items", 2)  # its manifest names the old folder
    assert done.code == 0, done.err

    typed = ("-d", "study1=folder", "--set", "study1.path=elsewhere")
    assert mrbench(*command, *typed).code == 0
    assert [p.name for p in Path("runs/study1/uniform-x4").glob("bicubic-*")] == [first.name]
    Image.fromarray(slices(99)[0]).save("elsewhere/p4_1.png")  # other content is another run
    assert mrbench(*command, *typed).code == 0
    assert len(list(Path("runs/study1/uniform-x4").glob("bicubic-*"))) == 2


def test_adding_refuses_what_could_not_be_used(mrbench, people: Path, tmp_path: Path) -> None:
    cases = [
        (("folder", "nowhere"), "there is no folder nowhere"),
        (("folder", people, "--as", "sample"), "--as sample: that is the name of another data set"),
        (("folder", people, "--as", "a/b"), "bad label 'a/b'"),
        (("folder", people, "--as", "metric"), "'metric' is taken"),
        (("folder", people, "--set", "colour=red"), "folder has no option 'colour'"),
        (("folder", people, "--set", "split"), "expected TARGET.KEY=VALUE"),
        (("folder", people, "--set", "other.split=hash"), "there is no 'other' here"),
        (("folder", people, "--set", "path=x"), "the folder is the argument PATH"),
        (("sample", people), "sample needs no files: use it as it is, --dataset sample"),
        (("foldr", people), "Did you mean 'folder'"),
    ]
    for arguments, message in cases:
        done = mrbench("data", "add", *arguments)
        assert (done.code, message in done.err) == (2, True), (arguments, done.err)
    assert not (tmp_path / "own" / "places.json").exists()

    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "a.png").write_bytes((people / "p0_0.png").read_bytes()[:200])
    done = mrbench("data", "add", "folder", broken)
    assert done.code == 2
    assert "a.png" in done.err
    rows = (people / "manifest.csv").read_text().replace("p2_1.png,p2,p2_t1,1,test", "p2_1.png,p2,p2_b,1,train")
    (people / "manifest.csv").write_text(rows)
    done = mrbench("data", "add", "folder", people)
    assert done.code == 2
    assert "subject 'p2' is train here and test in line" in done.err
    done = mrbench("data", "add", "folder", people, "--set", "shared_subjects=true")
    assert done.code == 0
    assert "1 subject(s) are in several splits, as was asked for: p2 (train and test)" in done.err
    done = mrbench("data", "audit", "folder")
    assert done.code == 1
    assert "1 subject is on several sides: p2 (folder test, folder train)" in done.out


def test_adding_as_json(mrbench, people: Path) -> None:
    (people / "p3_1.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    done = mrbench("data", "add", "folder", people, "--as", "s", "--json")
    assert done.code == 0, done.err
    document = done.json
    assert (document["alias"], document["status"], document["path"]) == ("s", "ok", str(people))
    assert document["counts"]["train"] == {"subjects": 2, "volumes": 2, "slices": 4}
    assert document["example"]["voxel_mm"] == [4, 1, 1]
    assert document["options"] == {"path": str(people)}


def test_listing_info_and_forgetting(mrbench, people: Path) -> None:
    listed = {row["alias"]: row for row in mrbench("data", "list", "--json").json}
    assert listed["sample"]["status"] == "ready"
    assert listed["folder"] == {**listed["folder"], "status": "mrbench data add", "path": None}
    assert mrbench("data", "add", "folder", people, "--as", "s").code == 0
    listed = {row["alias"]: row for row in mrbench("data", "list", "--json").json}
    assert (listed["s"]["status"], listed["s"]["path"], listed["s"]["dataset"]) == ("ready", str(people), "folder")
    table = mrbench("data", "list")
    assert table.code == 0
    assert "s " in table.out
    info = mrbench("data", "info", "s", "--json").json[0]
    assert info["counts"]["all"]["subjects"] == 5
    assert info["place"]["alias"] == "s"
    assert mrbench("data", "info", "sample", "--json").json[0]["counts"]["test"] == {"subjects": 2, "volumes": 2, "slices": 16}
    assert "redistribution: none" in mrbench("data", "info", "folder").out
    done = mrbench("data", "remove", "s")
    assert done.code == 0
    assert f"s is forgotten; the files in {people} are untouched." in done.out
    assert (people / "p0_0.png").is_file()
    assert mrbench("data", "remove", "s").code == 2
    assert "no data set named 's'" in mrbench("data", "info", "s").err


def test_checking_reads_every_file(mrbench, people: Path) -> None:
    assert mrbench("data", "check", "sample").code == 0
    assert mrbench("data", "add", "folder", people).code == 0
    done = mrbench("data", "check", "folder")
    assert done.code == 0, done.err
    assert "folder: every file can be used" in done.out
    whole = (people / "p3_1.png").read_bytes()
    (people / "p3_1.png").write_bytes(whole[: len(whole) // 2])  # its header is good
    done = mrbench("data", "check", "folder")
    assert done.code == 1
    assert "folder: 1 file cannot be used (see above)" in done.out
    assert "p3_1.png" in done.err
    assert "5/5" in done.err  # the bar
    document = mrbench("data", "check", "folder", "--json").json
    assert document["status"] == "unusable files"
    assert [Path(b["file"]).name for b in document["unusable"]] == ["p3_1.png"]
    assert document["counts"]["all"] == {"subjects": 4, "volumes": 4, "slices": 8}


GETTER = """
    from pathlib import Path
    import numpy as np
    from pydantic import Field
    import mrbench

    class ToyOptions(mrbench.Options):
        path: str = ""
        part: str = Field(default="a")

    class Toy:
        def __init__(self, options):
            self.options = options
        def refs(self):
            from mrbench.data.records import VolumeRef
            files = sorted(Path(self.options.path).glob("*.npy"))
            return [VolumeRef(f.stem, f.stem, (f,), split="test") for f in files]
        def read(self, ref):
            from mrbench.data.records import Volume
            return Volume(np.load(ref.files[0])[None].astype(np.float32), (1.0, 1.0, 1.0))

    def fetch(target, part, report):
        if part == "none":
            raise mrbench.errors.UserError("there is no such part.")
        for i in range(2):
            report(0, 10)
            np.save(target / f"{part}{i}.npy", np.random.default_rng(i).random((2, 40, 40)))
            report(10, 10)

    def protocol_filters(refs):
        return [f"p would drop {len(refs)} volumes"]

    @mrbench.hookimpl
    def mrbench_datasets():
        own = dict(options=ToyOptions, path_options=("path",), licence="CC0", home="https://example.org", steps=("Look it up",))
        return [
            mrbench.DatasetCard("toy_open", Toy, download=f"{__name__}:fetch", expected="2 people", redistribution="open", **own),
            mrbench.DatasetCard("toy_closed", Toy, **own),
        ]
"""


def test_getting(mrbench, tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, "getter", GETTER.replace("import mrbench\n", "import mrbench, mrbench.errors\n"))
    done = mrbench("data", "get", "toy_open", "--plugin", plugin)
    assert done.code == 0, done.err
    assert "licence of toy_open: CC0" in done.err
    assert "p would drop 2 volumes" in done.err
    assert "published: 2 people" in done.out
    assert sorted(p.name for p in Path("data/toy_open").iterdir()) == ["a0.npy", "a1.npy"]
    done = mrbench("run", "-m", "bicubic", "-d", "toy_open", "--plugin", plugin, "--out", "runs", "--json", *FAST)
    assert done.json["runs"][0]["items"] == 4
    done = mrbench("data", "get", "toy_open", "--plugin", plugin, "--out", "other")
    assert done.code == 2
    assert "'toy_open' is taken" in done.err
    assert not Path("other").exists()  # told before anything is downloaded
    done = mrbench("data", "get", "toy_open", "--plugin", plugin, "--as", "b", "--set", "part=b", "--out", "other", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["options"] == {"part": "b", "path": str(tmp_path / "other")}
    done = mrbench("data", "get", "toy_open", "--plugin", plugin, "--set", "part=none")
    assert done.code == 2
    assert "there is no such part. The download takes --set part=VALUE." in done.err

    done = mrbench("data", "get", "toy_closed", "--plugin", plugin)
    assert done.code == 1
    assert "Page: https://example.org" in done.out
    assert "1. Look it up" in done.out
    assert "Then: mrbench data add toy_closed PATH" in done.out
    assert mrbench("data", "get", "toy_closed", "--plugin", plugin, "--json").json["status"] == "by hand"
    assert mrbench("data", "add", "toy_closed", "data/toy_open", "--plugin", plugin).code == 0
    done = mrbench("data", "get", "toy_closed", "--plugin", plugin)
    assert done.code == 0
    assert "toy_closed is there already" in done.out
    assert mrbench("data", "list", "--json").json[0]["status"] == "plugin not installed"


def test_audit_writes_a_report_with_pictures(mrbench, people: Path, tmp_path: Path) -> None:
    assert mrbench("data", "add", "folder", people, "--as", "clean").code == 0
    done = mrbench("data", "audit", "clean", "--out", "report")
    assert done.code == 0, done.err
    assert sorted(p.name for p in Path("report").iterdir()) == ["audit.json", "audit.md"]

    copy = Image.fromarray((slices(0)[1] / 4).astype(np.uint16))  # p0 is train
    copy.resize((28, 32), Image.Resampling.BOX).save(people / "stranger.png")
    with (people / "manifest.csv").open("a") as file:
        file.write("stranger.png,stranger,s_t1,0,test,4,2,2\n")
    done = mrbench("data", "audit", "clean", "--out", "report")
    assert done.code == 1
    assert (
        "1 pair of near-copies in different splits: clean train: p0/p0_t1, slice 1 = clean test: stranger/s_t1, slice 0"
        in done.out
    )
    text = Path("report/audit.md").read_text()
    assert "![near-copies](near-copies.png)" in text
    with Image.open("report/near-copies.png") as picture:
        assert picture.width > 300
        assert np.asarray(picture.convert("L")).std() > 5
    document = json.loads(Path("report/audit.json").read_text())
    assert document["leaks"] is True
    assert len(document["near_copies"]) == 1

    other = tmp_path / "other"
    other.mkdir()
    Image.fromarray(slices(50)[0]).save(other / "x.png")
    done = mrbench("data", "audit", "clean", "b=folder", "--set", f"b.path={other}", "--set", "b.subject=(x)", "--json")
    assert done.json["datasets"]["b"]["counts"]["all"] == {"subjects": 1, "volumes": 1}
    assert done.json["report"] == "audit-clean-b/audit.md"
    done = mrbench("data", "audit", "clean", "clean")
    assert done.code == 2
    assert "'clean' is named twice" in done.err


def test_preview(mrbench, people: Path, tmp_path: Path) -> None:
    done = mrbench("data", "preview", "sample", "--out", "sheet.png", "--slices", 3)
    assert done.code == 0, done.err
    with Image.open("sheet.png") as picture:
        assert picture.width > picture.height / 2
        colours = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
    assert ((colours[:, 0] > 200) & (colours[:, 2] < 80)).sum() > 200  # the outline
    assert mrbench("data", "add", "folder", people).code == 0
    done = mrbench("data", "preview", "folder", "--out", "own.png", "--split", "train", "--subjects", 1)
    assert done.code == 0
    assert "own.png: 1 subjects" in done.out
    assert "pictures of folder are for your own use" in done.err
    for arguments, message in (
        (("sample", "--out", "x.jpg"), "pictures are written as PNG"),
        (("sample", "--out", "x.png", "--plane", "oblique"), "--plane oblique: unknown. Known: native"),
        (("sample", "--out", "x.png", "--split", "some"), "--split some: unknown"),
        (("sample", "--out", "x.png", "--split", "train"), "nothing to show (split train)"),
    ):
        done = mrbench("data", "preview", *arguments)
        assert (done.code, message in done.err) == (2, True), done.err


@pytest.mark.shared
def test_the_development_data(mrbench) -> None:
    folder = SHARED / "brain_t1_ixi_2mm"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    assert mrbench("data", "add", "folder", folder, "--as", "ixi2mm", "--set", "split=hash").code == 0
    info = mrbench("data", "info", "ixi2mm", "--json").json[0]
    assert info["counts"]["all"] == {"subjects": 150, "volumes": 150, "slices": 1500}
    assert info["counts"]["train"]["subjects"] > 90
    done = mrbench("data", "preview", "ixi2mm", "--out", "sheet.png", "--subjects", 2, "--slices", 2)
    assert done.code == 0, done.err
