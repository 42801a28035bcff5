"""Opening packages of strangers: unpacked, checked against their own hashes, their rows against the data set."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from pydantic import ValidationError

from mrbench.data.unpacking import unpack
from mrbench.engine.entries import check_label
from mrbench.engine.imagefiles import few
from mrbench.engine.submission import SUBMISSION, SUBMISSION_FORMAT, Submission
from mrbench.engine.task import Task
from mrbench.errors import DataError, UserError
from mrbench.protocol import parse_protocol
from mrbench.store.manifest import Manifest
from mrbench.store.rows import signatures_of
from mrbench.store.runs import RunData, RunFolder, load_run
from mrbench.store.verifications import claims_digest, rows_digest

MOST_BYTES = 4 << 30  # of an unpacked package
LARGEST_RECORD = 1 << 28
_KEY = re.compile(r"[0-9a-f]{4,64}")
_KNOWN = re.compile(
    r"manifest\.json|plan\.json|README\.md|submission\.json|rows/(skipped|shard-\d{5,})\.parquet|images/shard-\d{5,}\.npz"
)


# -- opening -------------------------------------------------------------------------------------------------------
def open_package(package: Path, folder: Path) -> tuple[Submission, RunData]:
    """Unpack a package into an empty folder and check it against its own hashes.

    Raises
    ------
    DataError : no package, damaged, or changed after it was made (naming the file).
    UserError : of a newer format, or no such file.
    """
    unpack(package, folder, MOST_BYTES)
    record = _record(package, folder / SUBMISSION)
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()} if folder.is_dir() else {}
    changed = "Get the package again from whoever made it."
    foreign = sorted(name for name in found if not _KNOWN.fullmatch(name))
    if foreign:  # such as verifications that it brings along
        raise DataError(package, f"it holds files that do not belong into a package ({few(foreign)}).", changed)
    if not record.intact():
        raise DataError(package, f"{SUBMISSION} was changed after the package was made (its digest does not fit).", changed)
    extra, lacking = sorted(set(found) - {SUBMISSION, *record.files}), sorted(set(record.files) - set(found))
    if extra or lacking:
        words = [f"holds files that it does not list ({few(extra)})"] if extra else []
        words += [f"lacks files that it lists ({few(lacking)})"] if lacking else []
        raise DataError(package, f"it {' and '.join(words)}.", changed)
    for name, path in sorted((n, p) for n, p in found.items() if n != SUBMISSION):
        with path.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != record.files[name]:
                raise DataError(package, f"{name} was changed after the package was made (its SHA-256 does not fit).", changed)
    data = load_run(folder)
    _refuse_names(package, data.manifest)
    digests = {"rows": rows_digest(RunFolder(folder)), "claims": claims_digest(data.manifest)}
    wrong = [k for k, v in digests.items() if getattr(record, k) != v]
    if wrong:
        raise DataError(package, f"the digest of its {' and '.join(wrong)} is not that of what it holds.", changed)
    return record, data


def _record(package: Path, path: Path) -> Submission:
    try:
        if path.stat().st_size > LARGEST_RECORD:
            raise ValueError("it is too large")
        record = Submission.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise DataError(
            package, f"it is no package: it has no {SUBMISSION}.", "Packages are made by `mrbench submit`."
        ) from None
    except (OSError, ValueError, RecursionError, ValidationError) as error:
        raise DataError(package, f"its {SUBMISSION} cannot be read ({str(error).splitlines()[0]}).") from None
    if record.format > SUBMISSION_FORMAT:
        raise UserError(
            f"{package}: format {record.format} is newer than this mrbench reads ({SUBMISSION_FORMAT}). Update mrbench."
        )
    return record


def _refuse_names(package: Path, manifest: Manifest) -> None:
    """Names that become folders: a stranger's package may hold anything."""
    label, dash, key = manifest.run.rpartition("-")
    try:
        check_label(manifest.method.label, str(package))
        check_label(manifest.dataset.alias, str(package))
        protocol = parse_protocol(manifest.protocol.source, f"{package}: protocol").name
    except UserError as error:
        raise DataError(package, f"it holds names that mrbench does not give ({error}).") from None
    if label != manifest.method.label or not dash or not _KEY.fullmatch(key) or protocol != manifest.protocol.name:
        raise DataError(
            package, f"its run {manifest.run!r} or protocol {manifest.protocol.name!r} is not named as mrbench does."
        )


# -- rows and claims -----------------------------------------------------------------------------------------------
def row_problems(data: RunData, task: Task) -> list[str]:
    """How rows differ from what the manifest says of all of them, and from the data set."""
    m, rows, problems = data.manifest, data.rows, []
    same = {
        "run": m.run, "method": m.method.name, "label": m.method.label, "tier": m.method.tier, "checkpoint": m.method.checkpoint,
        "dataset": m.dataset.alias, "protocol": m.protocol.name, "protocol_hash": m.protocol.hash, "draws": m.draws,
        "precision": m.precision,
    }  # fmt: skip
    for column, value in same.items():
        other = [v for v in rows[column].unique() if v != value]
        if other:
            problems.append(f"rows have {column} {other[0]!r}, the manifest {value!r}")
    twice = rows["item_id"][rows["item_id"].duplicated()]
    if len(twice):
        problems.append(f"{len(twice)} items have several rows ({few(sorted(set(twice)))})")
    problems += _signature_problems(data)
    items = {i.item_id: i for i in task.items}
    unusable = {s.item_id for s in task.listing.skipped}
    strange = sorted(set(rows["item_id"]) - set(items) - unusable)
    if strange:
        problems.append(f"{len(strange)} rows are of items that the data set does not hold ({few(strange)})")
    known = rows[rows["item_id"].isin(list(items))]
    for column, what in (("item_hash", "content"), ("subject", "subject"), ("volume", "volume")):
        expected = [getattr(items[i], column) for i in known["item_id"]]
        wrong = known["item_id"][(known[column] != expected).to_numpy()]
        if len(wrong):
            problems.append(f"{len(wrong)} items have another {what} here ({few(sorted(wrong))})")
    if (m.items, m.subjects, m.task_hash) != (len(task.items), task.listing.n_subjects, task.hash) and not problems:
        problems.append(
            f"the manifest's task ({m.task_hash}: {m.items} items of {m.subjects} subjects) is not the one here ({task.hash}: "
            f"{len(task.items)} of {task.listing.n_subjects})"
        )
    if not m.partial and set(items) - set(rows["item_id"]):
        problems.append(f"rows of {len(set(items) - set(rows['item_id']))} items are missing, and the manifest does not say so")
    return problems


def _signature_problems(data: RunData) -> list[str]:
    folder, problems = RunFolder(data.folder), []
    for shard in folder.plan()[1]:
        part = folder.read_part(shard.number)
        signed = signatures_of(part) if part is not None else {}
        differing = [c for c, info in data.manifest.columns.items() if signed.get(c, info.signature) != info.signature]
        if differing:
            problems.append(f"rows and manifest differ in the signature of {few(differing)}")
            break
    return problems


__all__ = ["open_package", "row_problems"]
