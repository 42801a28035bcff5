"""Write the skeleton of a plugin: one file, or a package that installs. All of it appears at once, or nothing does."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

import mrbench
from mrbench.errors import UserError
from mrbench.scaffold.names import Names

#: Path in the package -> template; ``{package}`` and ``{kind}`` stand for their names. An empty template is an empty file.
PACKAGE = {
    ".github/workflows/test.yml": "ci.yml",
    ".gitignore": "gitignore",
    "README.md": "{kind}_readme.md",
    "pyproject.toml": "pyproject.toml",
    "src/{package}/__init__.py": "{kind}_card.py",
    "src/{package}/{kind}.py": "{kind}_code.py",
    "src/{package}/py.typed": "",
    "tests/test_{package}.py": "{kind}_test.py",
}
FILE = "{kind}_file.py"  # the template of a plugin that is one file
_SUFFIX = ".txt"  # templates are no modules: nothing imports, checks or formats them as such
_HOOKS = {"method": "mrbench_methods", "dataset": "mrbench_datasets", "metric": "mrbench_metrics"}


@dataclass(frozen=True)
class Made:
    """What was written. ``place``: the file, or the package's folder; ``written``: all files, sorted."""

    names: Names
    place: Path
    written: tuple[Path, ...]


def make(names: Names, out: Path, package: bool = False) -> Made:
    """Write the skeleton into the folder ``out`` (made if it is not there).

    Without ``package``: the file ``out/PLUGIN.py``; with it, the folder ``out/NAME``.

    Raises
    ------
    UserError : there is something of this name already (nothing is overwritten), or ``out`` is no folder.
    """
    out = Path(os.path.abspath(out.expanduser()))
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file, expected a folder.")
    place = out / (names.name if package else f"{names.plugin}.py")
    if os.path.lexists(place):
        raise _exists(place)
    out.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=out))
    try:
        for path, text in _contents(names, package).items():
            file = temporary / "new" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8", newline="\n")
        if package:
            _move_folder(temporary / "new", place)
        else:
            _move_file(temporary / "new" / place.name, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    written = [place] if not package else [place / path for path in _contents(names, package)]
    return Made(names, place, tuple(sorted(written)))


def _contents(names: Names, package: bool) -> dict[str, str]:
    """The files by path."""
    values = {
        "kind": names.kind,
        "name": names.name,
        "plugin": names.plugin,
        "package": names.package,
        "distribution": names.distribution,
        "cls": names.cls,
        "hook": _HOOKS[names.kind],
        "version": mrbench.__version__,
    }
    wanted = PACKAGE if package else {"{plugin}.py": FILE}
    return {path.format(**values): _filled(template.format(**values), values) for path, template in wanted.items()}


def _filled(template: str, values: dict[str, str]) -> str:
    if not template:
        return ""
    text = files(__package__).joinpath("templates", template + _SUFFIX).read_text(encoding="utf-8")
    return Template(text).substitute(values)


def _move_file(source: Path, target: Path) -> None:
    """A link fails where something has appeared meanwhile; renaming would replace it."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise _exists(target) from None
    except OSError:  # a file system without links
        try:
            with target.open("xb") as stream:
                stream.write(source.read_bytes())
        except FileExistsError:
            raise _exists(target) from None


def _move_folder(source: Path, target: Path) -> None:
    """Renaming fails on a file or a folder with something in it."""
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise _exists(target) from None
        raise


def _exists(place: Path) -> UserError:
    return UserError(f"{place} exists already, and nothing is overwritten. Choose another name, or another folder with --out.")
