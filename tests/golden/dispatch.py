"""Finds golden files and the code that checks them.

A golden folder holds one folder per family (``metrics``, ``resshift``, ...; ``metrics_more`` belongs to ``metrics`` too) with
JSON files and the arrays that these name. Checks live in ``family_<name>.py`` beside this file; each defines ``FAMILY`` and
``HANDLERS``: file-name prefix -> function of a :class:`GoldenFile` that raises ``AssertionError``. The longest matching
prefix wins. A file that no prefix matches is an error, unless its prefix stands in ``PENDING``.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).resolve().parent
NOT_DATA = frozenset({"README.md", "MANIFEST.json"})

# Files whose code is still to come, by family: one list, to be emptied.
PENDING: Mapping[str, tuple[str, ...]] = {}


@dataclass(frozen=True)
class GoldenFile:
    """One JSON file and what it names."""

    path: Path

    @cached_property
    def document(self) -> dict[str, Any]:
        """The JSON object."""
        loaded: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
        return loaded

    @cached_property
    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """The arrays of the ``.npz`` file that the JSON names under "arrays"."""
        with np.load(self.path.parent / self.document["arrays"], allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}

    def weights_from(self, role: str) -> Mapping[str, Any]:
        """Where the network weights for ``role`` come from, as the JSON says."""
        sources = self.document.get("weights_from", {})
        assert role in sources, f"{self.path.name}: weights_from has no {role!r}, only {sorted(sources)}"
        source: Mapping[str, Any] = sources[role]
        return source


Handler = Callable[[GoldenFile], None]
Handlers = Mapping[str, Mapping[str, Handler]]


def golden_folder() -> Path:
    """``MRBENCH_GOLDEN``, by default ``shared/golden`` beside the repository."""
    return Path(os.environ.get("MRBENCH_GOLDEN", HERE.parents[2] / "shared" / "golden"))


def require_golden_folder() -> Path:
    """The golden folder; skips the calling test where there is none."""
    folder = golden_folder()
    if not folder.is_dir():
        pytest.skip(f"no golden folder {folder} (set MRBENCH_GOLDEN)")
    return folder


def load_handlers() -> dict[str, dict[str, Handler]]:
    """The handlers of all ``family_*.py`` modules."""
    found: dict[str, dict[str, Handler]] = {}
    for file in sorted(HERE.glob("family_*.py")):
        module = load_sibling(file.stem)
        found.setdefault(module.FAMILY, {}).update(module.HANDLERS)
    return found


def load_sibling(name: str) -> Any:
    """A module of this folder (tests are no package, so they cannot import each other)."""
    full = f"mrbench_golden_{name}"
    spec = importlib.util.spec_from_file_location(full, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[full] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def family_of(folder: str, known: set[str]) -> str | None:
    """The family of a folder: its name, or the longest family name that it begins with."""
    fitting = [name for name in known if folder == name or folder.startswith(f"{name}_")]
    return max(fitting, key=len, default=None)


def match(name: str, prefixes: set[str]) -> str | None:
    """The longest of ``prefixes`` that ``name`` begins with."""
    return max((p for p in prefixes if name.startswith(p)), key=len, default=None)


@dataclass(frozen=True)
class Inventory:
    """What a golden folder holds: JSON files with their handlers, pending files, and faults in words."""

    cases: tuple[tuple[GoldenFile, Handler], ...]
    pending: tuple[Path, ...]
    faults: tuple[str, ...]


def take_stock(root: Path, handlers: Handlers, pending: Mapping[str, tuple[str, ...]] = PENDING) -> Inventory:
    """Assign every file below ``root``."""
    cases: list[tuple[GoldenFile, Handler]] = []
    waiting: list[Path] = []
    faults: list[str] = []
    for file in sorted(p for p in root.rglob("*") if p.is_file()):
        shown = file.relative_to(root).as_posix()
        if file.name in NOT_DATA:
            continue
        family = family_of(file.parent.name, set(handlers) | set(pending))
        if family is None or file.parent.parent != root:
            faults.append(f"{shown}: not in a folder of a known family")
            continue
        own = match(file.name, set(handlers.get(family, {})))
        later = match(file.name, set(pending.get(family, ())))
        if own is None or (later is not None and len(later) > len(own)):
            if later is None:
                faults.append(f"{shown}: nothing handles it, and its prefix is not pending")
            else:
                waiting.append(file)
        elif file.suffix == ".json":
            cases.append((GoldenFile(file), handlers[family][own]))
        elif not any(file.name.startswith(f"{j.stem}.") for j in file.parent.glob("*.json")):
            faults.append(f"{shown}: no JSON file describes it")
    return Inventory(tuple(cases), tuple(waiting), tuple(faults))
