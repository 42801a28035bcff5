"""Verifying a package: is it whole, do its rows fit the data set and the protocol, and do some of them come out again?

What is looked at, in this order: the package's own hashes; rows against manifest (labels, signatures); rows against the data set
(ids, content hashes, subjects); the manifest's claims (tier, weights, track, parameters); the metrics of all enclosed images; and
some items computed again from nothing but method, weights and data.
"""

from __future__ import annotations

import hashlib
import math
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import mrbench
from mrbench.engine.costs import count_parameters
from mrbench.engine.entries import Entry, Settings
from mrbench.engine.environment import device_name, now, package_versions
from mrbench.engine.imagefiles import few
from mrbench.engine.leaks import Seen, check_leaks
from mrbench.engine.packages import open_package, row_problems
from mrbench.engine.submission import Submission, image_hash
from mrbench.engine.task import Task
from mrbench.engine.verify import (
    ABSOLUTE,
    PIXEL_TOLERANCE,
    RELATIVE,
    TOLERANCES,
    ItemCheck,
    Recomputation,
    reopen,
    reopen_entry,
)
from mrbench.errors import DataError, UserError
from mrbench.plugins import Registry
from mrbench.store.files import umask
from mrbench.store.manifest import Manifest
from mrbench.store.runs import RunFolder
from mrbench.store.verifications import (
    RecomputedItem,
    Verification,
    claims_digest,
    rows_digest,
    write_verification,
)

if TYPE_CHECKING:
    import pandas as pd

ODD = 3  # one in so many recomputed items is chosen for its odd row, the others by lot


@dataclass
class PackageReport:
    """What came of a verification. ``problems``: what is wrong beside single items.

    rescored : enclosed images whose metrics were computed again. equal : recomputed images whose bits are those of the package's
    hash (other machines may differ in the last bits). unchecked : columns that could not be computed here, with the reason.
    """

    package: Path
    sha256: str
    submission: Submission
    manifest: Manifest
    seed: int
    of: int = 0
    problems: list[str] = field(default_factory=list)
    recomputed: list[ItemCheck] = field(default_factory=list)
    rescored: list[ItemCheck] = field(default_factory=list)
    equal: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    unchecked: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)  # content hashes of the recomputed items
    device: str = ""

    @property
    def agrees(self) -> bool:
        """Whether nothing was found wrong, and something was recomputed."""
        return bool(self.recomputed) and not self.problems and all(c.agrees for c in (*self.recomputed, *self.rescored))

    @property
    def chance(self) -> float:
        """The least chance of meeting a wrong item if one in ten ok rows were wrong: by lot alone, whatever rows look like."""
        wrong = math.ceil(self.of / 10)
        return 1 - math.comb(self.of - wrong, self._by_lot) / math.comb(self.of, self._by_lot)

    @property
    def _by_lot(self) -> int:
        total = len(self.recomputed)
        return total if total == self.of else total - total // ODD


# -- claims -------------------------------------------------------------------------------------------------------
def claim_problems(manifest: Manifest, work: Recomputation, seen: Seen) -> list[str]:
    """Claims of the manifest that do not hold here."""
    m, entry, problems = manifest.method, work.entry, []
    claimed: dict[str, Any] = {"tier": m.tier, "control": m.control, "deterministic": m.deterministic, "version": m.version}
    card = entry.card
    real: dict[str, Any] = {
        "tier": entry.tier,
        "control": card.control,
        "deterministic": card.deterministic,
        "version": card.version,
    }
    if m.tuning is None:
        claimed["track"], real["track"] = m.track, entry.track
    claimed["training"], real["training"] = m.training, seen.training
    if m.parameters is not None:
        claimed["parameters"], real["parameters"] = m.parameters, _parameters(work, m.parameters)
    for name, value in claimed.items():
        if value != real[name]:
            problems.append(f"the manifest says {name} {value!r}; here it is {real[name]!r}")
    calls = {None if v is None or v != v else int(v) for v in work.ok_rows["nfe"]} if "nfe" in work.ok_rows else set()
    if calls - {work.restorer.nfe}:
        problems.append(f"rows count other network calls than the {work.restorer.nfe} that the method makes")
    columns = work.scorer.columns(manifest.draws, work.task.units)
    wrong = [k for k, c in manifest.columns.items() if k in columns and _defines(c) != _defines(columns[k])]
    if wrong:
        first = wrong[0]
        problems.append(
            f"{few(wrong)}: defined otherwise here ({columns[first].signature}; in the package {manifest.columns[first].signature})"
        )
    return problems


def _parameters(work: Recomputation, claimed: int) -> int | None:
    try:
        return count_parameters(work.restorer.implementation)
    except Exception:  # a plugin's objects may raise anything
        return claimed


def _defines(column: Any) -> tuple[Any, ...]:
    return column.signature, column.higher_is_better, column.ranked, column.unit, column.metric


# -- choosing ------------------------------------------------------------------------------------------------------
def choose_items(rows: pd.DataFrame, columns: Mapping[str, bool], count: int, seed: int) -> list[str]:
    """``count`` of the ok ``rows``: one in three for its odd row, the others by lot.

    Metrics rank images much alike. A row is odd where one column ranks it far from where the others do, as after editing one value.

    Parameters
    ----------
    columns : metric column -> higher is better.
    """
    rows = rows.sort_values("item_id")
    ids = list(rows["item_id"])
    if count >= len(ids):
        return ids
    odd = _oddest(rows, columns)[: count // ODD]
    rest = [i for i in ids if i not in set(odd)]
    return sorted([*odd, *random.Random(seed).sample(rest, count - len(odd))])


def _oddest(rows: pd.DataFrame, columns: Mapping[str, bool]) -> list[str]:
    """Item ids, the oddest first."""
    ranks = []
    for column, higher in columns.items():
        values = rows[column].to_numpy(dtype=float, na_value=np.nan) if column in rows else np.array([])
        if values.size and not np.isnan(values).any():
            order = (values if higher else -values).argsort(kind="stable")
            ranks.append(np.empty(len(values)))
            ranks[-1][order] = np.arange(len(values))
    if len(ranks) < 2:
        return []
    table = np.stack(ranks)
    distance = np.abs(table - np.median(table, axis=0)).max(axis=0)
    ids = list(rows["item_id"])
    return [ids[i] for i in np.argsort(-distance, kind="stable")]


# -- all of it -----------------------------------------------------------------------------------------------------
def check_package(
    package: Path,
    folder: Path,
    count: int,
    registry: Registry,
    device: torch.device,
    seed: int,
    checkpoint: str = "",
    given: Settings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PackageReport:
    """Verify a package; nothing is put on file. Times and memory are nowhere checked: they are those of the other machine.

    Parameters
    ----------
    folder : an empty one, to unpack to.
    count : items to recompute. seed : of their choice; whoever made the package must not know it.
    checkpoint : see :func:`mrbench.engine.verify.reopen_entry`. given : options that hold here, for the data set's alias.

    Raises
    ------
    DataError, UserError : see :func:`mrbench.engine.packages.open_package`; or nothing can be recomputed here (method, weights or
        data are not at hand).
    """
    with package.open("rb") as stream:
        sha = hashlib.file_digest(stream, "sha256").hexdigest()
    submission, data = open_package(package, folder)
    manifest = data.manifest
    report = PackageReport(package, sha, submission, manifest, seed, device=device_name(device))
    options = given.take(manifest.dataset.alias) if given is not None else {}
    if given is not None:
        given.refuse_unused()
    if not checkpoint and _on_disk(manifest.method.checkpoint_reference):
        raise DataError(package, "it names weights by a place on the disk, which is not taken from a package.")
    entry = _entry(manifest, registry, checkpoint, submission)
    task = reopen(manifest, registry, given=options)
    report.problems += row_problems(data, task)
    if not (data.rows["status"] == "ok").any():
        report.problems.append("there are no ok rows")
    if report.problems:
        return report
    work = Recomputation.open(data, entry, task, registry, device)
    report.of = len(work.ok_rows)
    rows = set(data.rows["item_id"])
    seen = check_leaks([entry], [i for i in task.items if i.item_id in rows], allow=True)[entry.label]
    report.problems += claim_problems(manifest, work, seen)
    report.notes += list(seen.notes)
    report.notes += ["how its options were tuned is not looked at"] if manifest.method.tuning is not None else []
    can = work.scorer.columns(manifest.draws, task.units)
    report.columns = [c for c in work.columns if c in can]
    report.unchecked = {c: _why(manifest.columns[c].metric, work) for c in manifest.columns if c not in report.columns}
    better = {c: manifest.columns[c].higher_is_better for c in report.columns}
    chosen = choose_items(work.ok_rows, better, count, seed)
    enclosed = _enclosed(work, submission, report)
    for number, item in enumerate([*chosen, *enclosed]):
        if number < len(chosen):
            check = work.check(item)
            _compare_warning(check, work, seen, task)
            report.recomputed.append(check)
            report.hashes[item] = str(work.row(item)["item_hash"])
            if work.latest is not None and submission.sample.get(item) == image_hash(work.latest):
                report.equal.append(item)
        else:
            report.rescored.append(work.rescore(item))
        if progress is not None:
            progress(number + 1, len(chosen) + len(enclosed))
    if not report.columns:
        report.problems.append("none of its metrics can be computed here")
    return report


def _on_disk(reference: str) -> bool:
    """Whether a reference is a place on a disk: neither a name nor the Hub."""
    return not reference.startswith("hf://") and ("/" in reference or "\\" in reference or reference.startswith("~"))


def _entry(manifest: Manifest, registry: Registry, checkpoint: str, submission: Submission) -> Entry:
    try:
        return reopen_entry(manifest, registry, checkpoint)
    except UserError as error:
        if not manifest.method.checkpoint or checkpoint or manifest.method.tier == "files":
            raise
        where = f" The package says: {submission.weights.where}." if submission.weights.where else ""
        raise UserError(f"{error}{where} Name the file with --checkpoint.") from None


def _enclosed(work: Recomputation, submission: Submission, report: PackageReport) -> list[str]:
    """Items whose images are in the package, after looking at their hashes."""
    found, ids = [], set(work.ok_rows["item_id"])
    for item, expected in submission.sample.items():
        if item not in ids:
            report.problems.append(f"the sample names {item}, which has no ok row")
            continue
        image = work.stored_image(item)
        if image is None:
            if submission.images:
                report.problems.append(f"the restored image of {item} is not enclosed")
        elif image_hash(image) != expected:
            report.problems.append(f"the enclosed image of {item} is not the one that was hashed")
        else:
            found.append(item)
    return sorted(found)


def _compare_warning(check: ItemCheck, work: Recomputation, seen: Seen, task: Task) -> None:
    """A row must say that its subject was trained on."""
    item = next((i for i in task.items if i.item_id == check.item_id), None)
    warning = seen.warning(item) if item is not None else ""
    if warning and warning not in str(work.row(check.item_id).get("warning") or ""):
        check.agrees, check.reason = False, check.reason or f"its row does not say: {warning}"


def _why(metric: str, work: Recomputation) -> str:
    return work.scorer.unavailable.get(metric, "not computed here")


# -- putting on file -----------------------------------------------------------------------------------------------
def verification_of(report: PackageReport, by: str) -> Verification:
    """The record of a verification that agrees.

    Raises
    ------
    ValueError : it does not.
    """
    if not report.agrees:
        raise ValueError("only what agrees is put on file")
    return Verification(
        run=report.manifest.run,
        rows=report.submission.rows,
        claims=report.submission.claims,
        package=report.sha256,
        recomputed=[
            RecomputedItem(
                item_id=c.item_id,
                item_hash=report.hashes[c.item_id],
                pixel_difference=c.pixel_difference,
                differences={k: v for k, v in c.differences.items() if math.isfinite(v)},
            )
            for c in report.recomputed
        ],
        rescored=len(report.rescored),
        of=report.of,
        columns=report.columns,
        unchecked=report.unchecked,
        tolerance={"pixels": PIXEL_TOLERANCE, **TOLERANCES, "others, relative": RELATIVE, "others, absolute": ABSOLUTE},
        seed=report.seed,
        by=by,
        at=now(),
        mrbench=mrbench.__version__,
        device=report.device,
        environment={"packages": package_versions()},
    )


def file_run(unpacked: Path, record: Verification, manifest: Manifest, out: Path) -> Path:
    """Move an unpacked package below ``out`` as a run folder, with its verification; where the same rows are, only add that.

    Returns
    -------
    The run folder.

    Raises
    ------
    UserError : the folder holds other rows or claims.
    """
    target = out / manifest.dataset.alias / manifest.protocol.name / manifest.run
    if target.exists():
        here = RunFolder(target)
        if (rows_digest(here), claims_digest(here.manifest())) != (record.rows, record.claims):
            raise UserError(
                f"{target}: holds other rows, or other claims about them, than the package. Name another folder with --out."
            )
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".tmp-{target.name}")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(unpacked, partial)
        partial.chmod(0o777 & ~umask())  # the unpacked folder was a private one
        partial.rename(target)
    write_verification(target, record)
    return target


__all__ = ["PackageReport", "check_package", "choose_items", "file_run", "verification_of"]
