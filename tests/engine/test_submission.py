"""`mrbench submit` and `mrbench verify PACKAGE`: what is packed, what a manipulation meets, and when a board says "verified"."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mrbench.engine.package_check import choose_items
from mrbench.engine.stripping import Stripper
from mrbench.engine.submission import Submission, image_hash
from mrbench.store.images import read_images
from mrbench.store.manifest import Manifest
from mrbench.store.runs import RunFolder, find_runs
from mrbench.store.verifications import claims_digest, standing_of, tables_digest

QUICK = ("--metrics", "psnr,ssim,gmsd", "--no-pictures")
Files = dict[str, bytes]
COLUMNS = {"psnr", "psnr_fg", "ssim", "ssim_fg", "gmsd", "gmsd_fg"}


@pytest.fixture
def mrbench(mrbench: Any) -> Any:
    """The command, with those that this file is about."""
    from mrbench.cli import main, submit

    if "submit" not in {c.name for c in main.app.registered_commands}:
        main.app.command("submit")(submit.submit)
    return mrbench


@pytest.fixture(scope="module")
def _place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("made")


@pytest.fixture
def run(mrbench: Any, _place: Path) -> Path:
    """A run folder of bicubic on all of `sample`."""
    if not any(_place.iterdir()):
        done = mrbench("run", "-m", "bicubic", "-d", "sample", "--scale", 4, *QUICK, "--out", _place / "runs")
        assert done.code == 0, done.err
    return find_runs([_place / "runs"])[0]


@pytest.fixture
def package(mrbench: Any, run: Path, tmp_path: Path) -> Path:
    done = mrbench("submit", run, "--out", tmp_path / "p.zip", "--images", 3)
    assert done.code == 0, done.err
    return tmp_path / "p.zip"


def contents(package: Path) -> Files:
    with zipfile.ZipFile(package) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(path: Path, files: Files) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def forged(path: Path, files: Files, change: Callable[[Files], None]) -> Path:
    """A package with other contents, whose hashes and digests all fit: what a careful cheat would send."""
    files = dict(files)
    change(files)
    record = Submission.model_validate(json.loads(files.pop("submission.json")))
    parts = [pq.read_table(io.BytesIO(c)) for n, c in sorted(files.items()) if n.startswith("rows/")]
    record = record.model_copy(
        update={
            "rows": tables_digest(parts),
            "claims": claims_digest(Manifest.model_validate(json.loads(files["manifest.json"]))),
            "files": {n: hashlib.sha256(c).hexdigest() for n, c in files.items()},
        }
    )
    return zipped(path, {**files, "submission.json": json.dumps(record.signed().model_dump(mode="json")).encode()})


def edited_rows(files: Files, change: Callable[[pd.DataFrame], None], only: str = "rows/") -> None:
    for name in [n for n in files if n.startswith(only)]:
        table = pq.read_table(io.BytesIO(files[name]))
        frame = table.to_pandas()
        change(frame)
        stream = io.BytesIO()
        pq.write_table(pa.Table.from_pandas(frame, schema=table.schema, preserve_index=False), stream)
        files[name] = stream.getvalue()


def edited_manifest(files: Files, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(files["manifest.json"])
    change(document)
    files["manifest.json"] = json.dumps(document).encode()


# -- packing -------------------------------------------------------------------------------------------------------
def test_equal_runs_give_equal_bytes_without_places_on_this_disk(
    mrbench: Any, run: Path, package: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "else where" / run.name
    shutil.copytree(run, moved)
    again = mrbench("submit", moved, "--out", tmp_path / "again.zip", "--images", 3, "--json")
    assert (tmp_path / "again.zip").read_bytes() == package.read_bytes()
    record = again.json
    assert record["sha256"] == hashlib.sha256(package.read_bytes()).hexdigest()
    assert (record["items"], record["ok"], record["label"], record["tier"], record["images"]) == (
        16,
        16,
        "bicubic",
        "none",
        True,
    )
    assert set(record["signatures"]) == COLUMNS
    files = contents(package)
    assert {n.partition("/")[0] for n in files} == {
        "README.md",
        "manifest.json",
        "plan.json",
        "submission.json",
        "rows",
        "images",
    }
    folder = RunFolder(run)
    shards = {i: s.number for s in folder.plan()[1] for i in s.items}
    assert len(record["sample"]) == 3
    for item, expected in record["sample"].items():
        image = read_images(run, shards[item])[item]
        assert image_hash(image) == expected
        with np.load(io.BytesIO(files[f"images/shard-{shards[item]:05d}.npz"])) as arrays:
            ids = json.loads(arrays["ids"].tobytes())
            np.testing.assert_array_equal(arrays[f"item{ids.index(item)}"], image)


def test_places_on_the_disk_are_taken_out_of_texts() -> None:
    paths = Stripper(["/data/my lab/study"])
    for text, expected in {
        "/home/jo/a b/c.nii": "c.nii",
        "read from /data/my lab/study/p 1/x.npy: bad": "read from p 1/x.npy: bad",
        "n/a and https://a.b/c hf://o/r@c/f sample/s1/v/003": "n/a and https://a.b/c hf://o/r@c/f sample/s1/v/003",
        "plugin (/srv/x/y.py), ~/.cache/z.bin": "plugin (y.py), z.bin",
        "file:///srv/a/b.h5: no": "b.h5: no",
        "C:\\Users\\Jo\\x.pt: bad": "x.pt: bad",
        "mean / sd": "mean / sd",
    }.items():
        assert paths.text(text) == expected
    assert paths.value({"a": ["/x/y/z", 3]}) == {"a": ["z", 3]}


def test_private_data_leave_hashes_alone(mrbench: Any, tmp_path: Path) -> None:
    lab = tmp_path / "private lab"
    for subject in ("s1", "s2"):
        (lab / subject).mkdir(parents=True)
        image = np.zeros((48, 48), np.float32)
        image[8:40, 6:34] = 100 + 50 * np.random.default_rng(len(subject)).random((32, 28), dtype=np.float32)
        np.save(lab / subject / "scan.npy", image)
    np.save(lab / "s2" / "broken.npy", np.full((4, 4), np.nan))
    data = ("--set", f"folder.path={lab}")
    out = tmp_path / "runs"
    done = mrbench("run", "-m", "bicubic", "-d", "folder", *data, "--scale", 2, *QUICK, "--out", out)
    assert done.code == 0, done.err
    done = mrbench("submit", out, "--out", tmp_path / "p.zip")
    assert done.code == 0, done.err
    assert "may not be passed on" in done.err
    files = contents(tmp_path / "p.zip")
    assert not any(n.startswith("images/") for n in files)
    assert len(json.loads(files["submission.json"])["sample"]) == 2
    for name, content in files.items():
        assert str(tmp_path).encode() not in content, name
        assert b"private lab" not in content, name
    done = mrbench("verify", tmp_path / "p.zip", "--out", tmp_path / "v")
    assert done.code == 2
    assert "mrbench data add folder PATH" in done.err or "folder.path" in done.err
    done = mrbench("verify", tmp_path / "p.zip", *data, "--out", tmp_path / "v", "--json")
    assert done.code == 0, done.err
    assert (done.json["of"], len(done.json["bit_equal"])) == (2, 2)  # on the same machine: the very same bits
    again = mrbench("verify", tmp_path / "p.zip", *data, "--out", out)  # where the run itself lies
    assert again.code == 0, again.err
    (own,) = find_runs([out])
    assert standing_of(own, RunFolder(own).manifest()).valid is not None


def test_what_cannot_be_packed(mrbench: Any, run: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ((run, "--out", tmp_path / "p.tar"), "ends in .zip"),
        ((tmp_path, "--out", tmp_path / "p.zip"), "holds no run folder"),
        ((tmp_path / "no", "--out", tmp_path / "p.zip"), "no such file"),
    ):
        done = mrbench("submit", *arguments)
        assert (done.code, message in done.err) == (2, True), done.err


# -- verifying -----------------------------------------------------------------------------------------------------
def test_a_true_package_is_verified_and_the_board_says_so(mrbench: Any, run: Path, package: Path, tmp_path: Path) -> None:
    before = mrbench("leaderboard", run)
    assert "verified" not in before.out
    done = mrbench("verify", package, "--items", 5, "--out", tmp_path / "v", "--by", "the maintainer", "--seed", 3)
    assert done.code == 0, done.err
    assert "5 of 5 recomputed items agree (of 16; seed 3)" in done.out
    assert "metrics of 3 of 3 enclosed images agree" in done.out
    (filed,) = find_runs([tmp_path / "v"])
    assert filed == tmp_path / "v" / "sample" / "uniform-x4" / run.name
    assert filed.stat().st_mode == filed.parent.stat().st_mode  # others may read it as they may the folders around it
    (record,) = (json.loads(p.read_text()) for p in (filed / "verifications").iterdir())
    assert (record["by"], record["of"], len(record["recomputed"]), record["rescored"]) == ("the maintainer", 16, 5, 3)
    assert record["package"] == hashlib.sha256(package.read_bytes()).hexdigest()
    assert record["tolerance"]["psnr"] == 0.01
    assert set(record["columns"]) == COLUMNS
    for format in ("terminal", "markdown", "html", "latex"):
        board = mrbench("leaderboard", filed, "--format", format).out
        assert "none, verified" in board
        assert "5 of 16 slices recomputed by the maintainer" in " ".join(board.split())
    assert mrbench("leaderboard", filed, "--format", "json").json["rows"][0]["verified"] is True
    assert "verified" not in mrbench("leaderboard", run).out  # the record is where it was put
    again = mrbench("verify", package, "--items", 1, "--out", tmp_path / "v", "--json")
    assert again.code == 0, again.err
    assert again.json["filed"] == str(filed)
    board = mrbench("leaderboard", filed, "--format", "csv").out
    edited_part = next((filed / "rows").glob("*.parquet"))
    table = {"rows/x": edited_part.read_bytes()}
    edited_rows(table, lambda frame: frame.__setitem__("psnr", frame["psnr"] + 0.5))
    edited_part.write_bytes(table["rows/x"])
    after = mrbench("leaderboard", filed, "--format", "markdown").out
    assert "none, verified" not in after
    assert "are of other rows or claims than these, and do not count" in after
    assert "verified" in board.splitlines()[0]
    refused = mrbench("verify", package, "--items", 1, "--out", tmp_path / "v")
    assert (refused.code, "holds other rows" in refused.err) == (2, True)


def test_a_record_counts_for_its_claims_only(mrbench: Any, package: Path, tmp_path: Path) -> None:
    assert mrbench("verify", package, "--items", 1, "--out", tmp_path).code == 0
    (filed,) = find_runs([tmp_path / "sample"])
    folder = RunFolder(filed)
    manifest = folder.manifest()
    assert standing_of(filed, manifest).valid is not None
    manifest.notes.append("a note changes nothing")
    assert standing_of(filed, manifest).valid is not None
    manifest.method.tier = "official"
    assert standing_of(filed, manifest).valid is None
    (file,) = (filed / "verifications").iterdir()
    file.write_text("{}")
    assert standing_of(filed, folder.manifest()).void == 1


def _raise_psnr(files: Files) -> None:
    edited_rows(files, lambda frame: frame.__setitem__("psnr", frame["psnr"] + 0.5))


def _one_psnr(files: Files) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[frame["psnr"].idxmin(), "psnr"] += 8

    edited_rows(files, change, sorted(n for n in files if n.startswith("rows/"))[0])


def _official(files: Files) -> None:
    edited_manifest(files, lambda m: m["method"].update(tier="official"))
    edited_rows(files, lambda frame: frame.__setitem__("tier", "official"))


def _subjects(files: Files) -> None:
    edited_rows(files, lambda frame: frame.__setitem__("subject", frame["item_id"]))


def _fewer(files: Files) -> None:
    for name in sorted(n for n in files if n.startswith("rows/"))[1:]:
        del files[name]


def _signature(files: Files) -> None:
    edited_manifest(files, lambda m: m["columns"]["psnr"].update(signature="PSNR|L:2"))


def _direction(files: Files) -> None:
    edited_manifest(files, lambda m: m["columns"]["gmsd"].update(higher_is_better=True))


def _items(files: Files) -> None:
    edited_manifest(files, lambda m: m.update(items=8))


def _picture(files: Files) -> None:
    name = next(n for n in files if n.startswith("images/"))
    with np.load(io.BytesIO(files[name])) as arrays:
        changed = {k: arrays[k] * np.float32(0.5) if k != "ids" else arrays[k] for k in arrays.files}
    stream = io.BytesIO()
    np.savez(stream, **changed)
    files[name] = stream.getvalue()


@pytest.mark.parametrize(
    ("change", "items", "message"),
    [
        (_raise_psnr, 2, "psnr: stored"),
        (_one_psnr, 3, "psnr: stored"),
        (_official, 1, "the manifest says tier 'official'; here it is 'none'"),
        (_subjects, 1, "16 items have another subject here"),
        (_fewer, 1, "are missing, and the manifest does not say so"),
        (_signature, 1, "rows and manifest differ in the signature of psnr"),
        (_direction, 1, "gmsd: defined otherwise here"),
        (_items, 1, "is not the one here"),
        (_picture, 1, "is not the one that was hashed"),
    ],
)
def test_a_manipulation_behind_fitting_hashes_is_found(
    mrbench: Any, package: Path, tmp_path: Path, change: Callable[[Files], None], items: int, message: str
) -> None:
    path = forged(tmp_path / "f.zip", contents(package), change)
    done = mrbench("verify", path, "--items", items, "--out", tmp_path / "v", "--seed", 1)
    assert done.code == 1, done.out + done.err
    assert message in " ".join(done.out.split())
    assert "NOT verified" in done.out
    assert not (tmp_path / "v").exists()


def test_what_was_changed_after_packing_is_refused(mrbench: Any, package: Path, tmp_path: Path) -> None:
    files = contents(package)
    part = next(n for n in files if n.startswith("rows/"))
    record = json.loads(files["submission.json"])
    changed = dict(files)
    edited_rows(changed, lambda frame: frame.__setitem__("psnr", frame["psnr"] + 0.5), part)
    rehashed = {**record, "files": {**record["files"], part: hashlib.sha256(changed[part]).hexdigest()}}
    resigned = Submission.model_validate(rehashed).signed().model_dump(mode="json")
    fake = b'{"run": "x"}'
    listed = {**record, "files": {**record["files"], "verifications/a.json": hashlib.sha256(fake).hexdigest()}}
    listed = Submission.model_validate(listed).signed().model_dump(mode="json")
    cases: list[tuple[Files, str]] = [
        (changed, f"{part} was changed"),
        ({**changed, "submission.json": json.dumps(rehashed).encode()}, "its digest does not fit"),
        ({**changed, "submission.json": json.dumps(resigned).encode()}, "the digest of its rows is not"),
        ({k: v for k, v in files.items() if k != part}, "lacks files"),
        ({**files, "rows/shard-00099.parquet": files[part]}, "files that it does not list"),
        (
            {**files, "verifications/a.json": fake, "submission.json": json.dumps(listed).encode()},
            "do not belong into a package",
        ),
        ({**files, "../evil.txt": b"x"}, "leads out of the folder"),
        ({k: v for k, v in files.items() if k != "submission.json"}, "it is no package"),
        ({**files, "submission.json": b"[1]"}, "submission.json cannot be read"),
    ]
    for number, (content, message) in enumerate(cases):
        done = mrbench("verify", zipped(tmp_path / f"{number}.zip", content), "--out", tmp_path / "v")
        assert done.code == 2, message
        assert message in done.err
    (tmp_path / "no.zip").write_bytes(package.read_bytes()[:500])
    done = mrbench("verify", tmp_path / "no.zip", "--out", tmp_path / "v")
    assert (done.code, "damaged" in done.err) == (2, True)
    assert not (tmp_path / "v").exists()
    assert not (tmp_path.parent / "evil.txt").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["method"].update(label="../../x") or m.update(run="../../x-12345678"), "names that mrbench does not give"),
        (lambda m: m.update(run="bicubic-../../../x"), "is not named as mrbench does"),
        (lambda m: m["dataset"].update(alias=".."), "names that mrbench does not give"),
        (lambda m: m["method"].update(checkpoint="x", checkpoint_reference="/etc/hostname"), "by a place on the disk"),
        (lambda m: m["method"].update(name="no_such_method"), "no method named"),
    ],
)
def test_a_strangers_names_lead_nowhere(
    mrbench: Any, package: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    path = forged(tmp_path / "f.zip", contents(package), lambda files: edited_manifest(files, change))
    done = mrbench("verify", path, "--out", tmp_path / "v")
    assert done.code == 2
    assert message in done.err
    assert not (tmp_path / "v").exists()


def test_images_made_elsewhere_cannot_be_verified(mrbench: Any, run: Path, tmp_path: Path) -> None:
    folder = RunFolder(run)
    for shard in folder.plan()[1]:
        for item, image in read_images(run, shard.number).items():
            (tmp_path / "p" / item).parent.mkdir(parents=True, exist_ok=True)
            np.save(tmp_path / "p" / f"{item}.npy", image[0, 0])
    score = ("score", tmp_path / "p", "-d", "sample", "--scale", 4, "--label", "x", "--metrics", "psnr")
    assert mrbench(*score, "--out", tmp_path / "runs").code == 0
    done = mrbench("submit", tmp_path / "runs", "--out", tmp_path / "p.zip")
    assert (done.code, "cannot be verified" in done.err) == (0, True)
    assert str(tmp_path).encode() not in b"".join(contents(tmp_path / "p.zip").values())
    done = mrbench("verify", tmp_path / "p.zip", "--out", tmp_path / "v")
    assert (done.code, "cannot be recomputed here" in done.err) == (2, True)


def test_weights_are_named_by_hash_and_place(mrbench: Any, tmp_path: Path) -> None:
    done = mrbench("run", "-m", "edsr", "-d", "sample", "--scale", 4, "--limit", 2, *QUICK, "--out", tmp_path / "runs")
    assert done.code == 0, done.err
    done = mrbench("submit", tmp_path / "runs", "--out", tmp_path / "p.zip", "--json")
    assert done.code == 0, done.err
    weights = done.json["weights"]
    assert weights["source"] == "shipped"
    assert weights["where"].startswith("ships with mrbench")
    assert len(weights["sha256"]) == 64
    assert "2 of the 16 items" in done.err
    done = mrbench("verify", tmp_path / "p.zip", "--items", 2, "--out", tmp_path / "v", "--json")
    assert done.code == 0, done.out + done.err
    files = contents(tmp_path / "p.zip")

    def other(manifest: dict[str, Any]) -> None:
        manifest["method"]["checkpoint_sha256"] = "0" * 64

    path = forged(tmp_path / "f.zip", files, lambda files: edited_manifest(files, other))
    done = mrbench("verify", path, "--out", tmp_path / "w")
    assert (done.code, "had the SHA-256 0000" in done.err) == (2, True)
    path = forged(tmp_path / "g.zip", files, lambda files: edited_manifest(files, lambda m: m["method"].update(parameters=5)))
    done = mrbench("verify", path, "--items", 1, "--out", tmp_path / "w")
    assert (done.code, "the manifest says parameters 5" in done.out) == (1, True)


def test_items_are_chosen_by_lot_and_for_their_odd_rows() -> None:
    rng = np.random.default_rng(0)
    quality = rng.normal(30, 3, 60)
    rows = pd.DataFrame({"item_id": [f"i{k:02d}" for k in range(60)], "psnr": quality, "ssim": quality / 40, "gmsd": -quality})
    better = {"psnr": True, "ssim": True, "gmsd": False}
    low = rows["psnr"].nsmallest(3).index[-1]
    rows.loc[low, "psnr"] += 5
    for seed in range(20):
        chosen = choose_items(rows, better, 5, seed)
        assert len(set(chosen)) == 5
        assert rows.loc[low, "item_id"] in chosen
    assert choose_items(rows, better, 5, 1) == choose_items(rows.sample(frac=1, random_state=0), better, 5, 1)
    assert len({tuple(choose_items(rows, better, 5, s)) for s in range(20)}) > 15
    assert choose_items(rows, better, 99, 0) == sorted(rows["item_id"])


def test_the_digest_of_rows_knows_every_value_and_no_order() -> None:
    table = pa.table(
        {
            "item_id": ["a", "b", "c"], "error": ["", "/x/y", ""], "psnr": [30.0, None, float("nan")], "draws": pa.array([1, 1, 2], pa.int32()),
            "label": ["x", "", None], "lpips": pa.array([None, None, None], pa.float64()),
        }
    )  # fmt: skip
    digest = tables_digest([table])
    turned = table.take(pa.array([2, 0, 1]))
    assert tables_digest([turned.slice(0, 1), turned.slice(1)]) == digest
    assert tables_digest([table.drop_columns(["lpips"])]) == digest  # a column without any value
    assert tables_digest([table.set_column(1, "error", pa.array(["", "z", ""]))]) == digest  # texts that may name places
    for name, values in {
        "psnr": pa.array([30.0 + 1e-12, None, None]),
        "draws": pa.array([1, 2, 2], pa.int32()),
        "label": pa.array(["x", None, None]),
        "item_id": pa.array(["a", "b", "d"]),
    }.items():
        assert tables_digest([table.set_column(table.column_names.index(name), name, values)]) != digest, name
    assert tables_digest([]) != digest
