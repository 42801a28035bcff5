"""Writing packs: the LR images of a task as plain files (:mod:`mrbench.engine.packs`)."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import mrbench
from mrbench.data.items import ItemRef, Progress
from mrbench.data.redistribution import allows, require
from mrbench.degradation.measurement import Measurement
from mrbench.degradation.operators import Operator
from mrbench.engine.folders import dataset_info, protocol_info
from mrbench.engine.packs import (
    HR,
    ITEMS,
    LR,
    OPERATORS,
    PACK,
    README,
    GridInfo,
    OperatorInfo,
    Pack,
    PackItem,
    identity_of,
    items_table,
    read_pack,
    readme,
)
from mrbench.engine.stripping import Stripper
from mrbench.engine.task import Batch, Task
from mrbench.errors import UserError
from mrbench.store.files import TEMPORARY, write_atomic, write_json, write_text

BEGUN = ".begun"  # holds the identity of a pack that is not finished
CHUNK = 32  # unit images that go through the operator at a time
EXACT = 1e-9  # of the largest value: how well two matrices must reproduce the operator
PROBE_SEED = 0


@dataclass
class Exported:
    """What became of a pack. ``written``: images that this call wrote; ``kept``: those of an earlier one."""

    folder: Path
    pack: Pack
    written: int = 0
    kept: int = 0


def export(
    task: Task,
    items: Sequence[ItemRef],
    folder: Path,
    *,
    with_hr: bool = False,
    local: bool = False,
    draws: int | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Write the measurements of ``items`` as a pack.

    Every file appears whole, ``pack.json`` last: a call that was killed goes on where it stopped, and a finished pack is checked
    and mended. Equal calls give equal bytes.

    Parameters
    ----------
    with_hr : also write the ground truth.
    local : the pack stays on this machine: written whatever the terms of the data set, with a notice.
    draws : posterior samples to ask for (default: the protocol's).

    Raises
    ------
    UserError : the terms of the data set do not allow its images to be given to others and ``local`` is not set, or the folder
        holds something else.
    """
    card = task.choice.card
    if not local and not allows(card, "images"):
        _refuse(task)
    identity = identity_of(task.protocol.hash, task.hash, [(i.item_id, i.item_hash) for i in items], with_hr)
    known = _begin(folder, identity)
    writer = _Writer(task, folder, with_hr, known)
    made = []
    for done, item in enumerate(items):
        if progress is not None:
            progress(done, len(items), item.item_id)
        made.append(writer.item(item))
    if progress is not None:
        progress(len(items), len(items), "")
    p = task.protocol.protocol
    info = dataset_info(task)
    paths = Stripper(str(task.options[k]) for k in card.path_options if task.options.get(k))
    info = info.model_copy(
        update={
            "options": {k: "" if k in card.path_options else v for k, v in info.options.items()},
            "warnings": [paths.text(w) for w in info.warnings],
            "dropped": [],
            "skipped": [],
        }
    )
    pack = Pack(
        mrbench=mrbench.__version__,
        dataset=info,
        protocol=protocol_info(task),
        task_hash=task.hash,
        task_items=len(task.items),
        part=p.split.part,
        degradation=dict(task.protocol.rules["degradation"]),
        scale=list(p.scales),
        noise=p.noise.model_dump(mode="json"),
        draws=draws if draws is not None else p.draws,
        operators=writer.operators,
        items=made,
        with_hr=with_hr,
        local=local,
        notice=_notice(task) if local else "",
    ).signed()
    write_text(folder / ITEMS, items_table(pack))
    write_text(folder / README, readme(pack))
    write_json(folder / PACK, pack.model_dump(mode="json"))
    for leftover in (*folder.rglob(f"{TEMPORARY}*"), folder / BEGUN):  # of calls that were killed
        leftover.unlink(missing_ok=True)
    return Exported(folder, pack, writer.written, writer.kept)


def _refuse(task: Task) -> None:
    what = "a pack of LR images for others (with --local it is written for this machine alone, with a notice that says so)"
    require(task.choice.card, what, use="images")


def _notice(task: Task) -> str:
    card = task.choice.card
    if allows(card, "images"):
        return "For use on this machine: do not pass it on."
    terms = f"{card.name}: redistribution: {card.redistribution}; {card.licence or 'no licence stated'}"
    return f"For use on this machine alone: the terms of the data set do not allow its images to be passed on ({terms})."


def _begin(folder: Path, identity: str) -> Mapping[str, str] | None:
    """Make or find the folder. Hashes of files by path, of a finished pack; empty for a new one; ``None``: go on with a begun one."""
    other = "Name another folder with --out, or delete it."
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder}: is a file. Name a folder.")
    if (folder / PACK).is_file():
        pack = read_pack(folder)
        if pack.identity != identity:
            raise UserError(f"--out {folder}: holds a pack of other items or rules (task {pack.task_hash}). {other}")
        return {i.lr: i.lr_sha256 for i in pack.items} | {i.hr: i.hr_sha256 for i in pack.items if i.hr}
    if (folder / BEGUN).is_file():
        if (folder / BEGUN).read_text(encoding="utf-8").strip() != identity:
            raise UserError(f"--out {folder}: holds the beginning of a pack of other items or rules. {other}")
        return None
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"--out {folder}: is not empty, and no pack. {other}")
    write_text(folder / BEGUN, identity + "\n")
    return {}


@dataclass
class _Writer:
    """Writes the files of items. ``known``: see :func:`_begin`."""

    task: Task
    folder: Path
    with_hr: bool
    known: Mapping[str, str] | None
    written: int = 0
    kept: int = 0
    operators: dict[str, OperatorInfo] = field(default_factory=dict)

    def item(self, item: ItemRef) -> PackItem:
        """The files of one item, and its record."""
        loaded: list[Batch] = []

        def batch() -> Batch:
            if not loaded:
                loaded.append(self.task.load([item]))
            return loaded[0]

        name = f"{item.shape[1]}x{item.shape[2]}"
        if name not in self.operators:
            self.operators[name] = self._operator(name, batch().measurement)
        lr, hr = f"{LR}/{item.item_id}.npy", f"{HR}/{item.item_id}.npy" if self.with_hr else ""
        hashes = {lr: self._kept(lr), hr: self._kept(hr) if hr else ""}
        if not hashes[lr]:
            hashes[lr] = self._write(lr, batch().measurement.y[0].numpy())
        if hr and not hashes[hr]:
            hashes[hr] = self._write(hr, batch().hr[0].numpy())
        voxel = [None if math.isnan(v) else float(v) for v in item.voxel]
        return PackItem(
            item_id=item.item_id,
            item_hash=item.item_hash,
            subject=item.subject,
            volume=item.volume,
            slice=item.slice,
            channels=item.shape[0],
            size=(item.shape[1], item.shape[2]),
            voxel=(voxel[0], voxel[1], voxel[2]),
            operator=name,
            lr=lr,
            lr_sha256=hashes[lr],
            hr=hr,
            hr_sha256=hashes[hr],
        )

    def _kept(self, name: str) -> str:
        """The hash of a file of an earlier call, if it is there and (in a finished pack) as it was."""
        path = self.folder / name
        if not path.is_file() or (self.known is not None and name not in self.known):
            return ""
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if self.known is not None and found != self.known[name]:
            return ""
        self.kept += 1
        return found

    def _write(self, name: str, array: NDArray[Any]) -> str:
        stream = io.BytesIO()
        np.save(stream, np.ascontiguousarray(array), allow_pickle=False)
        content = stream.getvalue()
        write_atomic(self.folder / name, lambda out: out.write(content))  # type: ignore[arg-type]
        self.written += 1
        return hashlib.sha256(content).hexdigest()

    def _operator(self, name: str, measurement: Measurement) -> OperatorInfo:
        """The degradation of one image size, with its matrices if it has some."""
        gy, gx = (GridInfo(n_hr=g.n_hr, n_lr=g.n_lr, step=g.step, offset=g.offset) for g in measurement.grid)
        info = OperatorInfo(size=measurement.size, lr_size=(gy.n_lr, gx.n_lr), grid=(gy, gx))
        if measurement.operator is None:
            return info.model_copy(update={"reason": "whole volumes are degraded, and slices cut afterwards"})
        found = axis_matrices(measurement.operator)
        if found is None:
            return info.model_copy(update={"reason": "it is not one real matrix per axis"})
        files = [f"{OPERATORS}/{name}/{part}.npy" for part in ("rows", "columns")]
        for file, matrix in zip(files, found, strict=True):
            self._write(file, matrix)
            self.written -= 1  # counts images
        return info.model_copy(update={"rows": files[0], "columns": files[1]})


def axis_matrices(operator: Operator) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """``A [h, H]`` and ``B [w, W]`` with ``forward(x) = A x B^T`` on images of one channel, or ``None`` where there are none.

    Found by sending unit rows and unit columns through the operator, and tried on random images.
    """
    (height, width), (h, w) = operator.hr_size, operator.lr_size
    try:
        flat = operator.forward(torch.ones(1, 1, height, width, dtype=torch.float64))[0, 0]
        rows = _responses(operator, height, axis=0)  # [H, h, w]: A[:, i] (B 1)^T
        columns = _responses(operator, width, axis=1)  # [W, h, w]: (A 1) B[:, j]^T
        place = divmod(int(flat.abs().argmax()), w)
        middle = float(flat[place])
        if abs(middle) < EXACT:
            return None
        a = rows[:, :, place[1]].T / middle  # A (B 1)_j / ((A 1)_i (B 1)_j) = A / (A 1)_i
        b = columns[:, place[0], :].T  # (A 1)_i B
        probe = torch.rand(2, 1, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(PROBE_SEED)) - 0.5
        expected = operator.forward(probe)
    except (ValueError, UserError, RuntimeError):  # complex images only
        return None
    error = (a @ probe @ b.T - expected).abs().max()
    if expected.shape != (2, 1, h, w) or not error <= EXACT * expected.abs().max():
        return None
    return np.ascontiguousarray(a.numpy()), np.ascontiguousarray(b.numpy())


def _responses(operator: Operator, count: int, axis: int) -> torch.Tensor:
    """``[count, h, w]``: what images with ones in row (column) ``i`` and zeros elsewhere become."""
    height, width = operator.hr_size
    parts = []
    for start in range(0, count, CHUNK):
        index = torch.arange(start, min(start + CHUNK, count))
        images = torch.zeros(len(index), 1, height, width, dtype=torch.float64)
        if axis == 0:
            images[torch.arange(len(index)), 0, index, :] = 1
        else:
            images[torch.arange(len(index)), 0, :, index] = 1
        parts.append(operator.forward(images)[:, 0])
    return torch.cat(parts)


__all__ = ["Exported", "axis_matrices", "export"]
