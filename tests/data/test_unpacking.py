"""Archives: what they hold comes out, and nothing else happens."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

import mrbench.data.unpacking as module
from mrbench.data.download import unpack
from mrbench.errors import DataError, UserError

FILES = {"a.txt": b"one", "deep/er/b.bin": bytes(3000), "deep/c": b""}
MANY = 1 << 20


def tar(path: Path, mode: str, files: dict[str, bytes], *more: tarfile.TarInfo) -> Path:
    with tarfile.open(path, f"w:{mode}") as archive:
        folder = tarfile.TarInfo("deep")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.mode = 0o4777
            archive.addfile(info, io.BytesIO(content))
        for info in more:
            archive.addfile(info)
    return path


def zipped(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("deep/", b"")
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def archive(kind: str, folder: Path, files: dict[str, bytes]) -> Path:
    return zipped(folder / "x", files) if kind == "zip" else tar(folder / "x", kind, files)


def inside(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("kind", ["", "gz", "xz", "bz2", "zip"])
def test_all_kinds_by_their_first_bytes(kind: str, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = archive(kind, tmp_path, FILES)
    out = unpack(path, tmp_path / "out", MANY, report=lambda *a: seen.append(a))
    assert [p.relative_to(tmp_path / "out").as_posix() for p in out] == list(FILES)
    assert inside(tmp_path / "out") == FILES
    assert not any(p.stat().st_mode & (stat.S_ISUID | stat.S_IXUSR) for p in out)
    assert seen[-1] == (path.stat().st_size, path.stat().st_size)
    assert unpack(path, tmp_path / "out", MANY) == out  # again: replaced, nothing left over
    assert inside(tmp_path / "out") == FILES


@pytest.mark.parametrize("kind", ["", "gz", "zip"])
@pytest.mark.parametrize("name", ["../out.txt", "/tmp/out.txt", "a/../../out.txt", "C:/out.txt", "..\\out.txt", "a\nb"])
def test_names_that_lead_out_are_refused(kind: str, name: str, tmp_path: Path) -> None:
    path = archive(kind, tmp_path, {name: b"x"})
    with pytest.raises(DataError, match="has a name that leads out of the folder, or none"):
        unpack(path, tmp_path / "out", MANY)
    assert inside(tmp_path / "out") == {}
    assert not (tmp_path / "out.txt").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_tars_are_refused(kind: bytes, tmp_path: Path) -> None:
    info = tarfile.TarInfo("deep/link")
    info.type, info.linkname = kind, "/etc/passwd"
    with pytest.raises(DataError, match="'deep/link' is a link or device"):
        unpack(tar(tmp_path / "x", "gz", {"a": b"1"}, info), tmp_path / "out", MANY)
    assert inside(tmp_path / "out") == {"a": b"1"}


def test_links_in_zips_are_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x", "w") as out:
        out.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match="'link' is a link or device"):
        unpack(tmp_path / "x", tmp_path / "out", MANY)


def test_nothing_is_written_through_links_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "else").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "deep").symlink_to(tmp_path / "else")
    with pytest.raises(DataError, match="through a link"):
        unpack(zipped(tmp_path / "x", {"deep/a": b"1"}), tmp_path / "out", MANY)
    assert inside(tmp_path / "else") == {}


@pytest.mark.parametrize("kind", ["", "gz", "xz", "zip"])
def test_sizes_and_counts_are_limited(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = archive(kind, tmp_path, {"a": bytes(2000), "b": bytes(2000)})
    with pytest.raises(DataError, match="holds more than 3000 bytes"):
        unpack(bomb, tmp_path / "out", 3000)
    assert len(inside(tmp_path / "out")) <= 1
    assert unpack(bomb, tmp_path / "out", 4000)
    monkeypatch.setattr(module, "MOST_FILES", 2)
    with pytest.raises(DataError, match="more than 2 entries"):
        unpack(bomb, tmp_path / "out", MANY)


def test_a_size_that_lies_is_counted(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x", {"a": bytes(50_000)}, zipfile.ZIP_STORED)
    data = path.read_bytes()
    path.write_bytes(data.replace((50_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(DataError, match="damaged"):
        unpack(path, tmp_path / "out", 1000)


def test_one_name_twice_is_refused(tmp_path: Path) -> None:
    second = tarfile.TarInfo("a")
    with pytest.raises(DataError, match="'a' stands there twice"):
        unpack(tar(tmp_path / "x", "", {"a": b"1"}, second), tmp_path / "out", MANY)


def test_a_file_in_the_way_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="wants a folder where there is a file"):
        unpack(zipped(tmp_path / "x", {"a": b"1", "a/b": b"2"}), tmp_path / "out", MANY)


@pytest.mark.parametrize("kind", ["", "gz", "xz", "bz2", "zip"])
def test_damage_is_told_and_leaves_whole_files_only(kind: str, tmp_path: Path) -> None:
    import random

    content = random.Random(0).randbytes(20_000)
    path = archive(kind, tmp_path, {"a": content})
    whole = path.read_bytes()
    for cut in (0, 5, 100, 600, 5000, len(whole) // 2):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"damaged or none"):
            unpack(path, tmp_path / f"out{cut}", MANY)
        assert inside(tmp_path / f"out{cut}") == {}


def test_encrypted_and_missing(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x", {"a": b"secret"})
    data = bytearray(path.read_bytes())
    for magic, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.rindex(magic) + place
        data[at] |= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="'a' is encrypted"):
        unpack(path, tmp_path / "out", MANY)
    with pytest.raises(UserError, match="there is no such file to unpack"):
        unpack(tmp_path / "none", tmp_path / "out", MANY)


def test_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROOM", 1 << 62)
    with pytest.raises(UserError, match="the disk is full"):
        unpack(zipped(tmp_path / "x", FILES), tmp_path / "out", MANY)
