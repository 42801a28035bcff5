"""Images made elsewhere for the items of a task become an ordinary run of tier ``files``.

The run folder, rows, images and ground truth are those of every other run; only the restored images come from files.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import torch
from torch import Tensor

from mrbench.cards import MethodCard, Options
from mrbench.data.items import ItemRef
from mrbench.data.sniffing import NIFTI_LIKE, sniff
from mrbench.degradation.measurement import Measurement
from mrbench.engine.entries import Entry, check_label
from mrbench.engine.folders import Conditions
from mrbench.engine.imagefiles import ImageFile, few, full_range, list_folder, read_slices, stored_type
from mrbench.engine.restorer import GroundTruth, Restored, Restorer, check_values
from mrbench.engine.run import Runner, RunOptions, RunReport
from mrbench.engine.scoring import Scorer
from mrbench.engine.task import Task
from mrbench.errors import DataError, UserError
from mrbench.plugins import Registry, did_you_mean
from mrbench.protocol import digest
from mrbench.store.manifest import Manifest
from mrbench.store.runs import RunFolder

METHOD = "files"
LIST = "predictions.csv"
LIST_COLUMNS = ("file", "item_id")
WIDEST = 65535.0  # integer types beyond 16 bits have no usual white
LISTED = 5
_DRAW = re.compile(r"(?P<item>.+)_(?P<draw>\d{1,4})", re.DOTALL)


class FilesOptions(Options):
    """What identifies images made elsewhere: a hash of their contents and of how values were read."""

    predictions: str = ""
    range: tuple[float, float] | None = None


#: From the files of an item and the expected ``(K, C, H, W)`` to the estimate of that shape (``DataError`` if they are not it).
Read = Callable[[Sequence[ImageFile], tuple[int, int, int, int]], Tensor]


@dataclass(frozen=True)
class Matching:
    """Which files belong to which item, one or one a draw. ``unmatched``: files that belong to none."""

    files: Mapping[str, tuple[ImageFile, ...]]  # item id -> its file, or the files of draws 1, 2, ...
    unmatched: tuple[str, ...]
    refused: Mapping[str, str] = field(default_factory=dict)


# -- matching ------------------------------------------------------------------------------------------------------
def item_names(item_id: str) -> list[str]:
    """The names (paths without ending) by which a file says that it belongs to an item.

    The item id, or the id without its data set, each also with ``/`` written as ``__`` or ``-``, percent-encoded as it is
    or decoded.
    """
    names = []
    for full in dict.fromkeys((item_id, unquote(item_id))):
        for name in (full, full.partition("/")[2]):
            names += [name, name.replace("/", "__"), name.replace("/", "-")]
    return list(dict.fromkeys(n for n in names if n))


def match_files(folder: Path, items: Sequence[ItemRef], several: bool = False) -> Matching:
    """Find the file of every item in ``folder``, by name or by ``predictions.csv`` (columns ``file``, ``item_id``).

    Parameters
    ----------
    several : files named ``ITEM_1``, ``ITEM_2``, ... are the draws of an item.

    Raises
    ------
    UserError : two files for one item, a name that stands for two items, draws that are not numbered from 1, a bad list, or no
        file for any item (with examples of names that would do).
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder. Give the folder that holds the restored images.")
    if (folder / LIST).is_file():
        return _listed(folder, items)
    found = list_folder(folder)
    owners: dict[str, set[str]] = {}
    for item in items:
        for name in item_names(item.item_id):
            owners.setdefault(name, set()).add(item.item_id)
    files: dict[str, ImageFile] = {}
    numbered: dict[str, dict[int, ImageFile]] = {}
    unmatched = []
    for file in found.files:
        candidates, draw = sorted(owners.get(file.stem, ())), None
        numbering = _DRAW.fullmatch(file.stem) if several and not candidates else None
        if numbering:
            candidates, draw = sorted(owners.get(numbering["item"], ())), int(numbering["draw"])
        if not candidates:
            unmatched.append(file.name)
        elif len(candidates) > 1:
            meant = f"its name stands for {len(candidates)} items ({few(candidates)})"
            raise UserError(f"{file.path}: {meant}. Say which in {folder / LIST}.")
        elif draw is None:
            _add(files, candidates[0], file)
        else:
            _add_draw(numbered.setdefault(candidates[0], {}), candidates[0], draw, file)
    if not files and not numbered:
        raise UserError(
            f"{folder}: no file is named like an item of this task.\n  files: {few([f.name for f in found.files])}\n"
            f"  items: {few([i.item_id for i in items])}\n"
            f"Name files by their items, for example {item_names(items[0].item_id)[4]}.png, or list them in {folder / LIST} "
            f"with the columns {','.join(LIST_COLUMNS)}."
        )
    return Matching(_in_order(files, numbered), tuple(unmatched), found.refused)


def _add(files: dict[str, ImageFile], item_id: str, file: ImageFile) -> None:
    if item_id in files:
        raise UserError(f"two files for item {item_id}: {files[item_id].path} and {file.path}. Remove one of them.")
    files[item_id] = file


def _add_draw(draws: dict[int, ImageFile], item_id: str, draw: int, file: ImageFile) -> None:
    if draw in draws:
        raise UserError(f"two files for draw {draw} of item {item_id}: {draws[draw].path} and {file.path}. Remove one of them.")
    draws[draw] = file


def _in_order(
    files: Mapping[str, ImageFile], numbered: Mapping[str, Mapping[int, ImageFile]]
) -> dict[str, tuple[ImageFile, ...]]:
    """Files by item, draws in their order."""
    found: dict[str, tuple[ImageFile, ...]] = {item_id: (file,) for item_id, file in files.items()}
    for item_id, draws in numbered.items():
        first = next(iter(draws.values()))
        if item_id in files:
            raise UserError(
                f"item {item_id} has a file without a number and one with: {files[item_id].path} and {first.path}. Keep one kind."
            )
        if sorted(draws) != list(range(1, len(draws) + 1)):
            raise UserError(
                f"item {item_id}: its draws are numbered {few([str(d) for d in sorted(draws)], 10)} ({first.path}); expected 1, 2, 3, ..."
            )
        found[item_id] = tuple(draws[d] for d in sorted(draws))
    return found


def _listed(folder: Path, items: Sequence[ItemRef]) -> Matching:
    path = folder / LIST
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            columns = reader.fieldnames or []
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error}).") from None
    if not set(LIST_COLUMNS) <= set(columns):
        raise UserError(f"{path}: its columns are {', '.join(columns) or 'none'}; expected {' and '.join(LIST_COLUMNS)}.")
    known = {i.item_id for i in items}
    short = {name: i for i in known for name in (i.partition("/")[2], unquote(i))}
    files: dict[str, ImageFile] = {}
    for line, row in rows:
        name, given = (row["file"] or "").strip(), (row["item_id"] or "").strip()
        item_id = given if given in known else short.get(given, "")
        if not item_id:
            raise UserError(f"{path}, line {line}: this task has no item {given!r}.{did_you_mean(given, known)}")
        if not (folder / name).is_file():
            raise UserError(f"{path}, line {line}: there is no file {name!r} in {folder}.")
        _add(files, item_id, ImageFile(folder / name, name, name))
    if not files:
        raise UserError(f"{path}: lists no file.")
    return Matching(_in_order(files, {}), ())


# -- reading -------------------------------------------------------------------------------------------------------
def read_estimate(path: Path, shape: tuple[int, int, int], declared: tuple[float, float] | None) -> Tensor:
    """One restored image ``[1, C, H, W]`` float32 on the unit range of the ground truth, unclipped.

    Floats are taken as they are, integers divided by the largest value of their type; with ``declared`` = (low, high) both
    are mapped so that ``low`` becomes 0 and ``high`` 1.

    Raises
    ------
    DataError : unreadable, of another size, or integers of more than 16 bits without ``declared``.
    """
    if sniff(path) in NIFTI_LIKE:
        raise DataError(path, "NIfTI volumes do not say which slice is which item.", "Save every slice as .npy, PNG or TIFF.")
    dtype = stored_type(path)
    images = read_slices(path).images
    if len(images) != 1:
        raise DataError(path, f"it holds {len(images)} images, expected one.", "Save one file per item.")
    if images.shape[1:] != shape:
        have, want = ("x".join(map(str, s)) for s in (images.shape[1:], shape))
        raise DataError(path, f"its channels, rows and columns are {have}, the item's {want}.")
    full = full_range(dtype)
    values = images.astype(np.float64)
    if declared is not None:
        values = (values - declared[0]) / (declared[1] - declared[0])
    elif full is not None:
        if full > WIDEST:
            raise DataError(path, f"its values are {dtype.name}, whose full range says nothing.", "Declare it: --range LO,HI.")
        values = values / full
    return torch.from_numpy(values.astype(np.float32))


def value_rule(files: Iterable[ImageFile], declared: tuple[float, float] | None) -> str:
    """How stored values became the unit range, in words."""
    if declared is not None:
        return f"values {declared[0]:g}..{declared[1]:g} (declared) became 0..1"
    rules = set()
    for file in files:
        try:
            dtype = stored_type(file.path)
        except DataError:  # becomes a failed row
            continue
        full = full_range(dtype)
        rules.add(f"{dtype.name} values were {'taken as they are' if full is None else f'divided by {full:g}'}")
    return "; ".join(sorted(rules))


def content_hash(files: Mapping[str, Sequence[ImageFile]]) -> str:
    """Hash of item ids and the bytes of their files."""
    contents = []
    for item_id in sorted(files):
        contents.append([item_id])
        for file in files[item_id]:
            with file.path.open("rb") as stream:
                contents[-1].append(hashlib.file_digest(stream, "sha256").hexdigest())
    return digest(contents)


# -- running -------------------------------------------------------------------------------------------------------
class ImageFolder:
    """Stands for a method on the card of images made elsewhere. It restores nothing."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def restore(self, measurement: Measurement, draws: int) -> Tensor:
        """Raises ``UserError``: there is no method to call."""
        raise UserError("images made elsewhere cannot be restored again here")


class FilesRestorer(Restorer):
    """Gives the images of a folder as if a method had restored them. Nothing is timed."""

    def __init__(self, entry: Entry, matching: Matching, device: torch.device, read: Read) -> None:
        super().__init__(entry.card, entry.options, device)
        self._files = matching.files
        self._read = read

    @property
    def nfe(self) -> int | None:
        """Not known."""
        return None

    def restore(self, measurement: Measurement, draws: int, truth: GroundTruth | None = None) -> list[Restored]:
        """One outcome per item: its image, or why there is none."""
        shape = (int(measurement.y.shape[1]), *measurement.size)
        return [self._one(item_id, (draws, *shape)) for item_id in measurement.ids]

    def _one(self, item_id: str, shape: tuple[int, int, int, int]) -> Restored:
        files = self._files.get(item_id)
        if files is None:
            return Restored("skipped", error="there is no file for this item")
        try:
            estimate = self._read(files, shape)
        except DataError as error:
            name = next((f.name for f in files if str(f.path) == error.file), files[0].name)
            return Restored("failed", error=f"{name}: {error.reason} {error.fix}".rstrip())
        problem = check_values(estimate)
        if problem:
            return Restored("failed", error=f"{files[0].name}: {problem.removeprefix('returned ')}")
        return Restored("ok", estimate)


def _nothing(files: Sequence[ImageFile], shape: tuple[int, int, int, int]) -> Tensor:
    raise DataError(files[0].path, "nothing reads it.")


@dataclass
class FilesRunner(Runner):
    """A runner whose one entry has its images in files."""

    matching: Matching = field(default_factory=lambda: Matching({}, ()))
    read: Read = _nothing
    notes: tuple[str, ...] = ()

    def _load(self, entry: Entry) -> tuple[Restorer | None, str]:
        return FilesRestorer(entry, self.matching, self.conditions.device, self.read), ""

    def _manifest(self, folder: RunFolder, entry: Entry, nfe: int | None = None) -> Manifest:
        manifest = super()._manifest(folder, entry, nfe)
        manifest.notes = list(dict.fromkeys([*manifest.notes, *self.notes]))
        return manifest


@dataclass
class Imported:
    """What became of a folder of images: the run's report, warnings, and the number of items without a file."""

    report: RunReport
    warnings: list[str]
    missing: int


def import_files(
    folder: Path,
    label: str,
    task: Task,
    scorer: Scorer,
    device: torch.device,
    threads: int,
    out: Path,
    registry: Registry,
    declared: tuple[float, float] | None = None,
) -> Imported:
    """Score the images of ``folder`` as a run of ``task`` under ``label``, in a run folder below ``out``.

    Parameters
    ----------
    declared : stored values that become 0 and 1; default: see :func:`read_estimate`.

    Raises
    ------
    UserError : see :func:`match_files`.
    """
    check_label(label, f"--label {label}")
    matching = match_files(folder, task.items)

    def read(files: Sequence[ImageFile], shape: tuple[int, int, int, int]) -> Tensor:
        return read_estimate(files[0].path, shape[1:], declared)

    given = Given(folder, label, matching, read, declared)
    return run_files(given, task, task.items, scorer, Conditions(device, threads=threads), out, registry)


@dataclass(frozen=True)
class Given:
    """Images made elsewhere: their folder, the label of their entry, their files, and what reads them (and which range it took).

    notes : for the manifest.
    """

    folder: Path
    label: str
    matching: Matching
    read: Read
    declared: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()


def run_files(
    given: Given, task: Task, items: Sequence[ItemRef], scorer: Scorer, conditions: Conditions, out: Path, registry: Registry
) -> Imported:
    """Score images made elsewhere for ``items`` of a task; with several draws where ``conditions`` says so."""
    matching, draws = given.matching, conditions.draws
    options = FilesOptions(predictions=content_hash(matching.files), range=given.declared)
    card = MethodCard(
        METHOD, ImageFolder, "images made elsewhere", FilesOptions, deterministic=draws == 1, needs_operator=False, tier="files"
    )
    rule = value_rule((f for files in matching.files.values() for f in files), given.declared)
    notes = (f"images made elsewhere, read from {given.folder.resolve()}", f"values: {rule}", *given.notes)
    how = RunOptions(out, images="all")
    runner = FilesRunner(task, items, scorer, conditions, how, registry, matching, given.read, notes)
    report = runner.run([Entry(given.label, card, options, plugin="files")])[0]
    warnings = []
    if matching.unmatched:
        warnings.append(f"{len(matching.unmatched)} files belong to no item: {few(matching.unmatched, LISTED)}")
    if matching.refused:
        name, reason = next(iter(matching.refused.items()))
        warnings.append(f"{len(matching.refused)} files are of formats that are not read ({name}: {reason})")
    missing = [i.item_id for i in items if i.item_id not in matching.files]
    if missing:
        warnings.append(f"{len(missing)} of {len(items)} items have no file and are skipped: {few(missing, LISTED)}")
    return Imported(report, warnings, len(missing))


__all__ = [
    "FilesOptions",
    "Given",
    "Imported",
    "Matching",
    "content_hash",
    "import_files",
    "item_names",
    "match_files",
    "read_estimate",
    "run_files",
    "value_rule",
]
