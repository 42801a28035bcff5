"""Synthetic run folders, made through the store's own interface."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typesetting import typeset

from mrbench.report.as_latex import FIT
from mrbench.store.images import truth_file, write_images, write_truth
from mrbench.store.manifest import ColumnInfo, DatasetInfo, Manifest, MethodInfo, ProtocolInfo
from mrbench.store.runs import RunData, RunFolder, load_run

HASH = "aaaa000011112222"
COLUMNS = {
    "psnr": ("psnr", "PSNR", True, 2, "dB"),
    "psnr_fg": ("psnr", "PSNR", True, 2, "dB"),
    "ssim": ("ssim", "SSIM", True, 4, ""),
    "gmsd": ("gmsd", "GMSD", False, 4, ""),
    "nmse": ("nmse", "NMSE", False, 4, ""),
    "haarpsi": ("haarpsi", "HaarPSI", True, 4, ""),
    "lpips_alex": ("lpips_alex", "LPIPS-alex", False, 4, ""),
    "lpips_vgg": ("lpips_vgg", "LPIPS-vgg", False, 4, ""),
    "data_consistency": ("data_consistency", "DC", False, 5, ""),
    "mystery": ("mystery", "Mystery", True, 3, ""),
}


def column_info(name: str, signature: str | None = None) -> ColumnInfo:
    """A column as a run declares it; ``@mean`` and ``@best`` have the draws in the signature."""
    base, at, of = name.partition("@")
    metric, title, higher, digits, unit = COLUMNS[base]
    written = signature or f"{title}{'|mask:fg' if base.endswith('_fg') else ''}|L:1{'|K:4|' + of if at else ''}|mrbench:1"
    return ColumnInfo(
        metric=metric, signature=written, higher_is_better=higher, digits=digits, title=title, unit=unit, ranked=of != "best"
    )


def item_names(subjects: Mapping[str, int], dataset: str = "toy") -> list[tuple[str, str]]:
    """``(item id, subject)`` of every slice."""
    return [(f"{dataset}/{s}/vol/{i:03d}", s) for s, n in subjects.items() for i in range(n)]


MakeRun = Callable[..., RunData]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """A factory of run folders.

    ``scores``: column -> values in item order (None and NaN allowed). ``drop``: items without a row. ``status``: item
    index -> (status, error). ``row``: fields that all rows share; ``rows``: item index -> fields of that row.
    """

    def make(
        label: str,
        scores: Mapping[str, Sequence[float | None]],
        *,
        subjects: Mapping[str, int] | None = None,
        method: str = "",
        key: str = "k1",
        tier: str = "none",
        control: bool = False,
        dataset: str = "toy",
        dataset_version: str = "1",
        protocol: str = "uniform-x4",
        protocol_hash: str = HASH,
        task_hash: str = "task0001",
        draws: int = 1,
        signatures: Mapping[str, str] | None = None,
        unavailable: Mapping[str, str] | None = None,
        warnings: Sequence[str] = (),
        drop: Sequence[int] = (),
        status: Mapping[int, tuple[str, str]] | None = None,
        row: Mapping[str, Any] | None = None,
        rows: Mapping[int, Mapping[str, Any]] | None = None,
        environment: Mapping[str, Any] | None = None,
        rules: Mapping[str, Any] | None = None,
        task_items: int | None = None,
        batch: int = 4,
        reverse: bool = False,
        images: Sequence[NDArray[np.float32]] | None = None,
        truth: Sequence[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]] | None = None,
        parameters: int | None = None,
        recipe: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        out: str = "runs",
        folder: str = "",
    ) -> RunData:
        items = item_names(subjects if subjects is not None else {"s1": 3, "s2": 3}, dataset)
        name = folder or f"run{len(list(tmp_path.glob('*/*/*/*/manifest.json')))}-{key}"
        path = tmp_path / out / dataset / protocol / name
        run = RunFolder(path)
        infos = {c: column_info(c, (signatures or {}).get(c)) for c in scores}
        status, rows = status or {}, rows or {}
        kept = [i for i in range(len(items)) if i not in drop]
        order = kept[::-1] if reverse else kept
        _, shards = run.extend_plan(batch, [[items[i][0] for i in order]])
        index = {item: i for i, (item, _) in enumerate(items)}
        for shard in shards:
            made = []
            for item in shard.items:
                i = index[item]
                state, error = status.get(i, ("ok", ""))
                fields: dict[str, Any] = {
                    "run": name, "method": method or label, "label": label, "tier": tier, "checkpoint": "", "dataset": dataset,
                    "protocol": protocol, "protocol_hash": protocol_hash, "subject": items[i][1], "volume": "vol",
                    "item_id": item, "item_hash": f"h{i}", "status": state, "error": error, "warning": "", "draws": draws,
                    "seconds": 0.5, "nfe": None, "peak_memory": None, "device": "cpu", "precision": "fp32", "threads": 2,
                    "batch": 4, "shard": shard.number,
                }  # fmt: skip
                if state == "ok":
                    fields |= {c: values[i] for c, values in scores.items()}
                made.append(fields | dict(row or {}) | dict(rows.get(i, {})))
            run.write_part(shard.number, made, list(scores), {c: info.signature for c, info in infos.items()})
            if images is not None:
                stored = {m["item_id"]: images[index[m["item_id"]]] for m in made if m["status"] == "ok"}
                write_images(path, shard.number, stored)
            if truth is not None:
                for m in made:
                    write_truth(truth_file(path, protocol_hash, m["item_hash"]), *truth[index[m["item_id"]]])
        run.write_manifest(
            Manifest(
                run=name,
                key=key,
                mrbench="0.1.0",
                method=MethodInfo(
                    name=method or label,
                    label=label,
                    tier=tier,
                    control=control,
                    parameters=parameters,
                    options=dict(options or {"kernel": "cubic"}),
                    recipe=None if recipe is None else dict(recipe),
                ),
                dataset=DatasetInfo(name=dataset, alias=dataset, version=dataset_version, warnings=list(warnings)),
                protocol=ProtocolInfo(name=protocol, hash=protocol_hash, rules=dict(rules or {})),
                task_hash=task_hash,
                draws=draws,
                items=task_items if task_items is not None else len(items),
                subjects=len({s for _, s in items}),
                partial=bool(drop),
                columns=infos,
                unavailable=dict(unavailable or {}),
                images=images is not None,
                environment=dict(environment or {}),
                created="2026-01-01T00:00:00+00:00",
            )
        )
        return load_run(path)

    return make


# -- LaTeX ----------------------------------------------------------------------------------------------------------
_COMMANDS = r"""
\begin \end \centering \caption \textbf \underline \textit \toprule \midrule \bottomrule \resizebox \textwidth \par \smallskip
\linewidth \footnotesize \raggedright \pm \uparrow \downarrow \times \dag \ldots \textbackslash \textasciicircum
\textasciitilde \textless \textgreater \textbar \textquotedbl \textquotesingle \textasciigrave
\ddag \checkmark \multicolumn \cmidrule \textsuperscript \textbraceleft \textbraceright \ifdim \width \else \fi \allowbreak \setlength
\parindent
"""


def latex_cells(text: str) -> list[list[str]]:
    """The table's cells, after asserting that a LaTeX run would meet only known commands and balanced groups."""
    lines = text.splitlines()
    assert lines[0].startswith("% needs ")
    body = "\n".join(lines[1:]).replace(FIT, FIT.replace(">", "").rstrip("%"))
    bare = re.sub(r"\\[\\$&#%_]", "", body)  # escaped characters and row ends
    assert set(re.findall(r"\\[A-Za-z]+", bare)) <= set(_COMMANDS.split())
    assert not re.search(r"\\[^A-Za-z]", bare)
    assert not re.search(r"[#%_^~<>|\"`]", bare)
    assert bare.count("$") % 2 == 0
    depth = 0
    for c in bare:
        depth += {"{": 1, "}": -1}.get(c, 0)
        assert depth >= 0
    assert depth == 0
    assert all(ord(c) < 256 for c in body)
    assert "--" not in body
    inside = ["begin minipage", "end minipage", "end table"]
    notes = inside if r"\begin{minipage}" in body else ["end table"]
    environments = [" ".join(e) for e in re.findall(r"\\(begin|end)\{(\w+)\}", body)]
    assert environments == ["begin table", "begin tabular", "end tabular", *notes]
    rows = [line for line in lines if line.endswith(r" \\")]
    assert not any(line.lstrip().startswith("[") for line in lines)  # else the option of a row end
    return [re.split(r"(?<!\\)&", row.removesuffix(r" \\")) for row in rows]


@pytest.fixture
def check_latex() -> Callable[[str], list[list[str]]]:
    """``latex_cells``, and where there is a TeX engine, a run of it."""

    def check(text: str) -> list[list[str]]:
        compile_latex(text)
        return latex_cells(text)

    return check


def compile_latex(text: str) -> None:
    """Typeset a table, where a TeX engine is there."""
    log = typeset(text.splitlines()[0].partition("needs ")[2], text)
    assert log is None or "Float too large" not in log
