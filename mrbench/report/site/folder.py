"""The folder of a site: made beside its place and renamed, and never in place of somebody's files."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mrbench.errors import UserError
from mrbench.report.text import listing
from mrbench.store.files import TEMPORARY, umask

MARKER = "mrbench-site.json"
FORMAT = 1


def check_place(out: Path) -> Path:
    """The real path of ``out``, which is free, an empty folder, or a former site and nothing else.

    Raises
    ------
    UserError : a file, a mount point, or a folder with files that no former site has.
    """
    place = out.resolve()
    if place.is_file():
        raise UserError(f"--out {out}: is a file. Name a folder.")
    if not place.exists():
        return place
    if os.path.ismount(place):
        raise UserError(f"--out {out}: a mount point cannot be replaced as a whole. Name a folder inside it.")
    present = {p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_symlink() or not p.is_dir()}
    if not present and not any(place.iterdir()):
        return place
    if MARKER not in present:
        raise UserError(f"--out {out}: is not empty and no former site (it has no {MARKER}). Name another folder, or empty it.")
    try:
        document = json.loads((place / MARKER).read_text(encoding="utf-8"))
        known = {str(name) for name in document["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"--out {out}: its {MARKER} is damaged. Name another folder, or empty it.") from None
    foreign = sorted(present - known - {MARKER})
    if foreign:
        raise UserError(
            f"--out {out}: beside the former site it holds files that would be lost ({listing(foreign, 3)}). "
            "Move them, or name another folder."
        )
    return place


@contextlib.contextmanager
def replacing(place: Path, version: str) -> Iterator[Path]:
    """A new folder to fill, which takes the place of ``place`` in the end. An error leaves what was there.

    The marker, which lists all files, is written before the folder is renamed.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}site-", dir=place.parent))
    try:
        yield fresh
        files = sorted(p.relative_to(fresh).as_posix() for p in fresh.rglob("*") if p.is_file())
        document = {"generator": "mrbench", "format": FORMAT, "version": version, "files": files}
        (fresh / MARKER).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        fresh.chmod(0o777 & ~umask())
        _swap(fresh, place)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def _swap(fresh: Path, place: Path) -> None:
    if not place.exists():
        os.rename(fresh, place)
        return
    former = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}former-", dir=place.parent))
    os.rename(place, former)
    try:
        os.rename(fresh, place)
    except BaseException:
        os.rename(former, place)
        raise
    shutil.rmtree(former, ignore_errors=True)
