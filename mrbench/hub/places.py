"""The places that a checkpoint's file can be at, as its record writes them.

==============  ====================================================  ===================================================
source          ``Checkpoint.file``                                   ``Checkpoint.repo_id``, ``revision``
==============  ====================================================  ===================================================
``shipped``     ``package:relative/path``                             empty
``hub``         path in the repository                                ``org/repo``, commit
``elsewhere``   ``https://...``: named in listings, never downloaded  empty
``local``       absolute path                                         empty
==============  ====================================================  ===================================================
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from mrbench.cards import Checkpoint
from mrbench.errors import UserError

Source = Literal["shipped", "hub", "elsewhere", "local"]

WEIGHTS = "model.safetensors"
CONFIG, TRAINING, CARD = "config.json", "training.json", "README.md"
SAFETENSORS = ".safetensors"
PICKLED = (".pt", ".pth", ".ckpt")  # official files: loaded with weights_only=True, never unpickled freely
HUB_SCHEME = "hf://"

_PACKAGE = re.compile(r"([A-Za-z_]\w+(?:\.\w+)*):(.+)")  # one letter before the colon is a Windows drive
_URL = re.compile(r"https?://")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPO = re.compile(r"[\w.-]+/[\w.-]+")


def source_of(record: Checkpoint) -> Source:
    """Where the file of a record is."""
    if record.repo_id:
        return "hub"
    if _URL.match(record.file):
        return "elsewhere"
    return "shipped" if _PACKAGE.fullmatch(record.file) and not Path(record.file).is_absolute() else "local"


def is_commit(revision: str) -> bool:
    """Whether a revision is a full commit hash (a branch or tag may move, a commit does not)."""
    return _COMMIT.fullmatch(revision) is not None


def is_repo(repo_id: str) -> bool:
    """Whether a text has the form ``org/repo``."""
    return _REPO.fullmatch(repo_id) is not None


def shipped_file(record: Checkpoint) -> Path:
    """The path of a file that ships inside a package.

    Raises
    ------
    UserError : the package is not installed, or came without the file.
    """
    match = _PACKAGE.fullmatch(record.file)
    if match is None:
        raise UserError(f"checkpoint {record.name}: {record.file!r} is not of the form package:relative/path.")
    package, relative = match.groups()
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise UserError(f"checkpoint {record.name}: it ships with the package {package}, which is not installed here.")
    folders = [Path(f) for f in spec.submodule_search_locations or []]
    if not folders and spec.origin:
        folders = [Path(spec.origin).parent]
    for folder in folders:
        if (folder / relative).is_file():
            return folder / relative
    where = " or ".join(str(f / relative) for f in folders) or package
    raise UserError(
        f"checkpoint {record.name}: the file that ships with {package} is missing ({where}). Install the package again."
    )


@dataclass(frozen=True)
class HubReference:
    """What stands after ``hf://``: ``org/repo@revision/path/of/file``."""

    repo_id: str
    revision: str
    file: str

    @classmethod
    def parse(cls, text: str) -> HubReference:
        """Parse ``hf://org/repo@revision/file`` (a ``/`` in the revision is written ``%2F``).

        Raises
        ------
        UserError : another form, or no revision (weights that may change under a name are no checkpoint).
        """
        repo, at, rest = text.removeprefix(HUB_SCHEME).partition("@")
        revision, _, file = rest.partition("/")
        example = f"{HUB_SCHEME}org/repo@COMMIT/{WEIGHTS}"
        if not at or not revision:
            raise UserError(f"{text}: no revision. Weights are named with a commit (or a branch, which is pinned): {example}.")
        if not is_repo(repo) or not file or file.endswith("/"):
            raise UserError(f"{text}: expected {example}.")
        if any(part in ("", ".", "..") for part in file.split("/")):
            raise UserError(f"{text}: the file's path holds empty parts, '.' or '..'. Expected {example}.")
        return cls(repo, unquote(revision), file)

    def __str__(self) -> str:
        return f"{HUB_SCHEME}{self.repo_id}@{self.revision.replace('/', '%2F')}/{self.file}"


def sibling(file: str, name: str) -> str:
    """The path of another file in the same folder of a repository."""
    folder, slash, _ = file.rpartition("/")
    return f"{folder}{slash}{name}"
