"""What several test modules use: results of the command, plugin files, rows without timings."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mrbench.store.rows import MEASURED_COLUMNS
from mrbench.store.runs import load_runs


@dataclass
class Done:
    """What a call of the command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def heed_interrupts() -> None:
    """For ``preexec_fn``: background jobs of scripts ignore SIGINT, and so does what they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def spawn(*arguments: object, **more: Any) -> subprocess.Popen[str]:
    """Start ``mrbench`` as a process of its own."""
    command = [sys.executable, "-m", "mrbench.cli.main", *map(str, arguments)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
        preexec_fn=heed_interrupts,
        **more,
    )


def write_plugin(folder: Path, name: str, text: str) -> Path:
    """A plugin file."""
    path = folder / f"{name}.py"
    path.write_text(textwrap.dedent(text))
    return path


def rows_of(out: Path, label: str = "", measured: bool = False) -> pd.DataFrame:
    """All rows under ``out`` by run and item, without what may differ between equal runs."""
    runs = [r for r in load_runs([out]) if label in ("", r.label)]
    frame = pd.concat([r.rows for r in runs]).sort_values(["run", "item_id"]).reset_index(drop=True)
    return frame if measured else frame.drop(columns=[c for c in MEASURED_COLUMNS if c in frame])
