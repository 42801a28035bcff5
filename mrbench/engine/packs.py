"""Packs: the measurements of a task as plain files, for methods that run outside mrbench.

Layout of a pack::

    README.md               what is in it and what to return, in words
    pack.json               protocol, data set, operators, items with hashes (this module)
    items.csv               one line an item, for loops in any language
    lr/<item id>.npy        LR images, float32 [C, h, w]
    hr/<item id>.npy        ground truth, float32 [C, H, W], only where it was asked for
    operators/<name>/*.npy  the degradation as matrices, where it has such a form
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from mrbench.errors import UserError
from mrbench.protocol import digest
from mrbench.store.manifest import DatasetInfo, ProtocolInfo, Record

PACK, README, ITEMS = "pack.json", "README.md", "items.csv"
LR, HR, OPERATORS = "lr", "hr", "operators"
PACK_FORMAT = 1
DIGEST_DIGITS = 64


class GridInfo(Record):
    """One axis: LR sample ``i`` sits at HR coordinate ``offset + step * i``, HR sample ``j`` at coordinate ``j``."""

    n_hr: int
    n_lr: int
    step: float
    offset: float


class OperatorInfo(Record):
    """The degradation bound to one image size.

    ``rows``, ``columns``: files of float64 matrices ``A [h, H]`` and ``B [w, W]`` with ``y = A x B^T`` (noise-free); empty where the
    degradation has no such form, with the ``reason``.
    """

    size: tuple[int, int]
    lr_size: tuple[int, int]
    grid: tuple[GridInfo, GridInfo]
    rows: str = ""
    columns: str = ""
    reason: str = ""


class PackItem(Record):
    """One item. Paths are relative to the pack. ``voxel``: mm between slices, rows and columns of the HR image, null: unknown."""

    item_id: str
    item_hash: str
    subject: str
    volume: str
    slice: str
    channels: int
    size: tuple[int, int]
    voxel: tuple[float | None, float | None, float | None]
    operator: str
    lr: str
    lr_sha256: str
    hr: str = ""
    hr_sha256: str = ""


class Pack(Record):
    """``pack.json``. ``digest`` is over everything else."""

    format: int = PACK_FORMAT
    mrbench: str
    dataset: DatasetInfo
    protocol: ProtocolInfo
    task_hash: str
    task_items: int  # of the task; ``items`` may be some of them
    part: str  # of the split
    degradation: dict[str, Any]  # name, version and all options
    scale: list[float]
    noise: dict[str, Any]  # kind and sigma, in units of the [0, 1] range
    draws: int  # posterior samples per item that the protocol asks for
    operators: dict[str, OperatorInfo]
    items: list[PackItem] = Field(min_length=1)
    with_hr: bool = False
    local: bool = False  # not to be passed on
    notice: str = ""
    digest: str = ""

    def signed(self) -> Pack:
        """The same with its digest."""
        return self.model_copy(update={"digest": self._digest()})

    def intact(self) -> bool:
        """Whether the digest is that of the rest."""
        return self.digest == self._digest()

    def _digest(self) -> str:
        return digest(self.model_dump(mode="json", exclude={"digest"}), DIGEST_DIGITS)

    @property
    def identity(self) -> str:
        """Hash of what decides which files a pack holds."""
        return identity_of(self.protocol.hash, self.task_hash, [(i.item_id, i.item_hash) for i in self.items], self.with_hr)


def identity_of(protocol_hash: str, task_hash: str, items: Sequence[tuple[str, str]], with_hr: bool) -> str:
    """See :attr:`Pack.identity`."""
    return digest({"protocol": protocol_hash, "task": task_hash, "items": [list(i) for i in items], "hr": with_hr})


def read_pack(path: Path) -> Pack:
    """Read the ``pack.json`` of a pack (its folder, or the file itself).

    Raises
    ------
    UserError : none, damaged, changed after it was written, or of a newer format.
    """
    file = path / PACK if path.is_dir() else path
    try:
        pack = Pack.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"{path}: is no pack: it has no {PACK}. Packs are made by `mrbench export`.") from None
    except (OSError, ValueError, ValidationError) as error:
        raise UserError(f"{file}: cannot be read as a pack ({str(error).splitlines()[0]}).") from None
    if pack.format > PACK_FORMAT:
        raise UserError(f"{file}: format {pack.format} is newer than this mrbench reads ({PACK_FORMAT}). Update mrbench.")
    if not pack.intact():
        raise UserError(f"{file}: was changed after the pack was made (its digest does not fit). Export the pack again.")
    return pack


def items_table(pack: Pack) -> str:
    """``items.csv``."""
    stream = io.StringIO()
    names = ("item_id", "lr", "return_as", "channels", "lr_rows", "lr_columns", "rows", "columns", "operator", "item_hash")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(names)
    for i in pack.items:
        h, w = pack.operators[i.operator].lr_size
        writer.writerow([i.item_id, i.lr, f"{i.item_id}.npy", i.channels, h, w, *i.size, i.operator, i.item_hash])
    return stream.getvalue()


def readme(pack: Pack) -> str:
    """``README.md``: what the files are, and what to return."""
    p, first = pack.protocol, pack.items[0]
    some = "" if len(pack.items) == pack.task_items else f" ({len(pack.items)} of the {pack.task_items} items of the task)"
    lines = [
        f"# LR images of {pack.dataset.alias} under {p.name}",
        "",
        f"{len(pack.items)} items{some}, split: {pack.part}. Protocol {p.name} {p.hash}; task {pack.task_hash}; made by mrbench {pack.mrbench}.",
        "",
        *([f"**{pack.notice}**", ""] if pack.notice else []),
        "## What is here",
        "",
        "- `items.csv`: one line an item: its id, its LR file, the name to return it under, sizes.",
        "- `lr/ITEM.npy`: the LR image, float32 `[C, h, w]`. C = 1 magnitude, 2 complex (real, imaginary), 3 colour.",
        *(
            ["- `hr/ITEM.npy`: the ground truth, float32 `[C, H, W]` in [0, 1]. Do not use it to restore."]
            if pack.with_hr
            else []
        ),
        "- `pack.json`: everything else, for programs: protocol, degradation with all options, pixel grids, noise, item hashes.",
        *_operator_lines(pack),
        "",
        "## The task",
        "",
        f"The degradation is `{pack.degradation['name']}` with {_options(pack.degradation['options'])}; scale "
        f"{' x '.join(f'{s:g}' for s in pack.scale)}; noise: {_noise(pack.noise)}. LR sample `i` of an axis sits at HR coordinate "
        "`offset + step * i` (`operators.NAME.grid` in `pack.json`; HR pixel `j` at coordinate `j`).",
        "",
        "The ground truth of an item lies in [0, 1], on one intensity scale a volume; the LR image is on the same scale and may "
        "overshoot (it is not clipped unless the protocol says so).",
        "",
        "## What to return",
        "",
        f"A folder with one file an item, named as in the column `return_as`, such as `{first.item_id}.npy` "
        f"(or flat: `{first.item_id.replace('/', '__')}.npy`):",
        "",
        f"- shape `[C, H, W]` as the item's `rows` and `columns` say, here `[{first.channels}, {first.size[0]}, {first.size[1]}]` "
        "for the first (`[H, W]` does where C = 1);",
        "- float32 on the [0, 1] range of the ground truth, not clipped by you; 8 or 16-bit PNG and TIFF count as value / 255 or / 65535; "
        "other ranges are declared with `--range LO,HI`;",
        "- `.npy`, `.npz` (one array), PNG, TIFF, or NIfTI (data `[H, W]` just as the array would be; its header is not looked at);",
        f"- several draws (posterior samples; the protocol asks for {pack.draws}): `ITEM_1.npy`, `ITEM_2.npy`, ... or one array with "
        "the draws as first axis, `[K, C, H, W]` (in NIfTI as last axis). Draw 1 is what single-image metrics are of; as many for "
        "every item.",
        "",
        "Then, where the data set is at hand:",
        "",
        "    mrbench import PACK PREDICTIONS --label NAME",
        "",
    ]
    return "\n".join(lines)


def _operator_lines(pack: Pack) -> list[str]:
    if any(o.rows for o in pack.operators.values()):
        return [
            "- `operators/NAME/rows.npy`, `columns.npy`: float64 matrices A `[h, H]` and B `[w, W]`; each channel of an LR image is "
            "`A @ x @ B.T` (before noise)."
        ]
    reasons = dict.fromkeys(o.reason for o in pack.operators.values())
    return [f"- There are no matrices of the degradation: {'; '.join(filter(None, reasons))}."]


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} = {v}" for k, v in options.items()) or "no options"


def _noise(noise: Mapping[str, Any]) -> str:
    return "none" if noise["kind"] == "none" else f"{noise['kind']}, sigma {noise['sigma']:g} of the [0, 1] range"


__all__ = [
    "GridInfo",
    "OperatorInfo",
    "Pack",
    "PackItem",
    "identity_of",
    "items_table",
    "read_pack",
    "readme",
]
