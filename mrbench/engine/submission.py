"""Packing a run for others: rows, manifest, signatures, hashes, and a sample of its restored images.

A package is a zip that unpacks to a run folder, without ground truth and with the images of the sample only::

    submission.json             this module: digests, hashes of all other files, where the weights are
    README.md                   what it is, and how to verify it
    manifest.json, plan.json    as in the run folder, without absolute paths
    rows/*.parquet              all rows
    images/shard-00000.npz      restored images of the sample, where the data set's terms allow it
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field

import mrbench
from mrbench.data.redistribution import Terms, allows
from mrbench.engine.stripping import Stripper, is_absolute
from mrbench.errors import UserError
from mrbench.hub import find, source_of
from mrbench.hub.places import HUB_SCHEME
from mrbench.plugins import Registry
from mrbench.protocol import digest
from mrbench.seeds import derive_seed
from mrbench.store.files import write_atomic
from mrbench.store.images import image_file, read_images
from mrbench.store.manifest import MANIFEST, Manifest, Record
from mrbench.store.runs import PLAN, ROWS, RunFolder
from mrbench.store.verifications import claims_digest, tables_digest

SUBMISSION, README = "submission.json", "README.md"
SUBMISSION_FORMAT = 1
SAMPLE = 8  # restored images
DIGEST_DIGITS = 64
TEXTS = ("error", "warning")  # columns of rows that may name places on a disk
EPOCH = (1980, 1, 1, 0, 0, 0)  # of all entries, so that equal content gives equal bytes
LEVEL = 6


class WeightsInfo(Record):
    """Where the weights of the entry are. ``source``: shipped, hub, elsewhere, local, or empty where nobody knows any more."""

    name: str = ""
    sha256: str = ""
    source: str = ""
    reference: str = ""  # what after @ finds them; empty: only who has the file can recompute
    where: str = ""  # in words


class Submission(Record):
    """``submission.json``. ``digest`` is over everything else."""

    format: int = SUBMISSION_FORMAT
    mrbench: str
    run: str
    method: str
    label: str
    tier: str
    dataset: str
    protocol: str
    protocol_hash: str
    task_hash: str
    rows: str  # mrbench.store.verifications.rows_digest
    claims: str  # mrbench.store.verifications.claims_digest
    items: int
    ok: int
    signatures: dict[str, str]
    weights: WeightsInfo = Field(default_factory=WeightsInfo)
    sample: dict[str, str] = Field(default_factory=dict)  # item id -> image_hash of its restored image
    images: bool = False  # whether these images are in the package
    images_note: str = ""
    files: dict[str, str]  # path -> SHA-256
    digest: str = ""

    def signed(self) -> Submission:
        """The same with its digest."""
        return self.model_copy(update={"digest": self._digest()})

    def intact(self) -> bool:
        """Whether the digest is that of the rest."""
        return self.digest == self._digest()

    def _digest(self) -> str:
        return digest(self.model_dump(mode="json", exclude={"digest"}), DIGEST_DIGITS)


def image_hash(image: NDArray[np.float32]) -> str:
    """SHA-256 over shape and float32 values (little-endian, C order) of a restored image ``[K, C, H, W]``."""
    found = hashlib.sha256(json.dumps(list(image.shape)).encode())
    found.update(np.ascontiguousarray(image, dtype="<f4").tobytes())
    return found.hexdigest()


@dataclass
class Submitted:
    """A package that was written, and what whoever sends it should know."""

    path: Path
    submission: Submission
    sha256: str
    warnings: list[str] = field(default_factory=list)


def submit(run: Path, out: Path, registry: Registry, sample: int = SAMPLE, weights_at: str = "") -> Submitted:
    """Pack a run. Equal runs give equal bytes.

    Parameters
    ----------
    run : a run folder. out : the zip to write (replaced atomically).
    sample : restored images to hash and, where the terms of the data set allow it, to enclose; chosen by the rows alone.
    weights_at : where others find weights that neither ship with mrbench nor lie on the Hub.

    Raises
    ------
    UserError : no run folder, no ok rows, damaged rows or images.
    """
    folder = RunFolder(run)
    manifest = folder.manifest()
    paths = _stripper(run, manifest)
    tables = {f"{ROWS}/{p.name}": _stripped(_read(p), paths) for p in folder.parts()}
    ids = _ok_items(tables.values())
    if not ids:
        raise UserError(f"{run}: holds no ok rows, so there is nothing to submit.")
    warnings = _warnings(manifest, len(ids))
    rows = tables_digest(list(tables.values()))
    weights = _weights(manifest, registry, weights_at, paths, warnings)
    chosen = sorted(random.Random(derive_seed(rows, "sample")).sample(sorted(ids), min(sample, len(ids))))
    images, plan = _images(run, manifest, ids, chosen), folder.plan()
    if chosen and not images:
        warnings.append("the run stores no restored images, so none are hashed (`mrbench run --images all` stores them)")
    enclosed, note = _may_enclose(manifest, registry, images)
    clean = _clean_manifest(manifest, registry, paths, weights, enclosed)
    files: dict[str, bytes] = {name: _parquet(table) for name, table in tables.items()}
    files[PLAN] = _json({"batch": plan[0], "shards": [list(s.items) for s in plan[1]]})
    files[MANIFEST] = _json(clean.model_dump(mode="json"))
    if enclosed:
        files |= _image_parts(run, images, ids)
    if note:
        warnings.append(note)
    m = clean.method
    record = Submission(
        mrbench=mrbench.__version__, run=clean.run, method=m.name, label=m.label, tier=m.tier, dataset=clean.dataset.name,
        protocol=clean.protocol.name, protocol_hash=clean.protocol.hash, task_hash=clean.task_hash, rows=rows,
        claims=claims_digest(clean), items=sum(len(t) for t in tables.values()), ok=len(ids),
        signatures={k: c.signature for k, c in clean.columns.items()}, weights=weights,
        sample={k: image_hash(v) for k, v in images.items()}, images=enclosed, images_note=note, files={},
    )  # fmt: skip
    files[README] = _readme(record).encode()
    record = record.model_copy(update={"files": {k: hashlib.sha256(files[k]).hexdigest() for k in sorted(files)}}).signed()
    files[SUBMISSION] = _json(record.model_dump(mode="json"))
    content = _zip(files)
    write_atomic(out, lambda stream: stream.write(content))  # type: ignore[arg-type]
    return Submitted(out, record, hashlib.sha256(content).hexdigest(), warnings)


# -- rows ----------------------------------------------------------------------------------------------------------
def _read(path: Path) -> pa.Table:
    try:
        with path.open("rb") as stream:
            return pq.ParquetFile(stream).read()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: damaged rows ({error}). Call the same `mrbench run` again: it recomputes them.") from None


def _stripped(table: pa.Table, paths: Stripper) -> pa.Table:
    """The rows without absolute paths in their texts."""
    for name in TEXTS:
        if name in table.column_names:
            at = table.column_names.index(name)
            texts = [None if t is None else paths.text(t) for t in table.column(name).to_pylist()]
            table = table.set_column(at, table.schema.field(at), pa.array(texts, pa.string()))
    return table


def _ok_items(tables: Any) -> dict[str, int]:
    """Item ids of ok rows, with their shards."""
    found: dict[str, int] = {}
    for table in tables:
        columns = [table.column(c).to_pylist() for c in ("item_id", "status", "shard")]
        found |= {item: shard for item, status, shard in zip(*columns, strict=True) if status == "ok"}
    return found


def _parquet(table: pa.Table) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream)
    return stream.getvalue()


# -- images --------------------------------------------------------------------------------------------------------
def _images(run: Path, manifest: Manifest, shards: Mapping[str, int], chosen: list[str]) -> dict[str, NDArray[np.float32]]:
    if not manifest.images:
        return {}
    found = {item: read_images(run, shards[item], {item}).get(item) for item in chosen}
    return {item: image for item, image in found.items() if image is not None}


def _may_enclose(manifest: Manifest, registry: Registry, images: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether restored images may be given to others: both the card here and the terms that the run recorded must allow it."""
    terms: list[Terms] = [manifest.dataset]
    if manifest.dataset.name in registry.datasets.names():
        terms.append(registry.datasets.get(manifest.dataset.name))
    strict = next((t for t in terms if not allows(t, "images")), None)
    if not images:
        return False, ""
    if strict is not None:
        return False, (
            f"restored images of {strict.name} may not be passed on (redistribution: {strict.redistribution}): the package holds "
            "their hashes alone"
        )
    return True, ""


def _image_parts(run: Path, images: Mapping[str, NDArray[np.float32]], shards: Mapping[str, int]) -> dict[str, bytes]:
    """The sample in the layout of a run folder."""
    by_shard: dict[int, list[str]] = {}
    for item in images:
        by_shard.setdefault(shards[item], []).append(item)
    parts = {}
    for shard, items in by_shard.items():
        arrays = {f"item{i}": np.ascontiguousarray(images[item]) for i, item in enumerate(items)}
        arrays["ids"] = np.frombuffer(json.dumps(items).encode(), dtype=np.uint8)
        stream = io.BytesIO()
        np.savez(stream, **arrays)  # type: ignore[arg-type]
        parts[image_file(Path(), shard).as_posix()] = stream.getvalue()
    return parts


# -- manifest ------------------------------------------------------------------------------------------------------
def _stripper(run: Path, manifest: Manifest) -> Stripper:
    options = [v for v in manifest.dataset.options.values() if isinstance(v, str) and is_absolute(v)]
    return Stripper([*options, run.resolve().parent])


def _clean_manifest(manifest: Manifest, registry: Registry, paths: Stripper, weights: WeightsInfo, enclosed: bool) -> Manifest:
    """The manifest without places on this machine's disk; the protocol's text and the data set's other options stay whole."""
    info = manifest.dataset
    card = registry.datasets.get(info.name) if info.name in registry.datasets.names() else None
    places = card.path_options if card is not None else tuple(k for k, v in info.options.items() if is_absolute(str(v)))
    document = manifest.model_dump(mode="json")
    kept = {"protocol": document.pop("protocol"), "columns": document.pop("columns")}
    for column in kept["columns"].values():
        column["options"] = paths.value(column["options"])
    options = {k: "" if k in places else v for k, v in info.options.items()}
    document = {**paths.value(document), **kept}
    document["dataset"]["options"] = options
    document["method"]["checkpoint_reference"] = weights.reference
    document["images"] = enclosed
    return Manifest.model_validate(document)


def _weights(manifest: Manifest, registry: Registry, at: str, paths: Stripper, warnings: list[str]) -> WeightsInfo:
    m = manifest.method
    if not m.checkpoint:
        return WeightsInfo()
    info = WeightsInfo(name=m.checkpoint, sha256=m.checkpoint_sha256, where=at)
    try:
        found = find(registry.methods.get(m.name), m.checkpoint_reference or m.checkpoint)
    except UserError:
        found = None
    if found is not None and found.record.sha256 == m.checkpoint_sha256:
        record, source = found.record, source_of(found.record)
        where = {
            "shipped": f"ships with mrbench ({record.file})",
            "hub": f"hf://{record.repo_id}@{record.revision}/{record.file}",
            "elsewhere": record.file,
            "local": "",
        }[source]
        info = info.model_copy(update={"source": source, "where": at or where})
    reference = m.checkpoint_reference
    if reference and not is_absolute(reference) and info.source != "local":
        info = info.model_copy(update={"reference": reference})
        if not info.where and reference.startswith(HUB_SCHEME):
            info = info.model_copy(update={"where": reference})
    if not info.where:
        warnings.append(
            f"nobody else can find the weights {paths.text(m.checkpoint)} (sha256 {m.checkpoint_sha256[:12]}): say where they are with "
            "--weights-at URL, or only who has the file can verify this"
        )
    return info


def _warnings(manifest: Manifest, ok: int) -> list[str]:
    found = []
    if manifest.method.tier == "files":
        found.append("images made elsewhere cannot be recomputed: such a package cannot be verified")
    if manifest.partial or ok < manifest.items:
        found.append(f"the run has ok rows of {ok} of the {manifest.items} items of its task; boards will say so")
    if manifest.plugin_files:
        names = ", ".join(Path(f).name for f in manifest.plugin_files)
        found.append(f"plugin files are not in the package ({names}): send them along, or say where they are installed from")
    return found


# -- writing -------------------------------------------------------------------------------------------------------
def _json(document: Any) -> bytes:
    return (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _zip(files: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=LEVEL) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, EPOCH)
            info.compress_type, info.external_attr, info.create_system = zipfile.ZIP_DEFLATED, 0o644 << 16, 3
            archive.writestr(info, files[name])
    return stream.getvalue()


def _readme(record: Submission) -> str:
    w = record.weights
    weights = f"{w.name}, sha256 {w.sha256}" + (f", {w.where}" if w.where else "") if w.name else "none"
    images = f"{len(record.sample)} restored images, " + ("enclosed" if record.images else "as hashes alone")
    return "\n".join(
        [
            f"# {record.label} on {record.dataset}, {record.protocol}",
            "",
            f"Rows of the run {record.run} ({record.ok} of {record.items} ok), made by mrbench {record.mrbench}.",
            "",
            f"- method: {record.method}, tier {record.tier}; weights: {weights}",
            f"- protocol {record.protocol} {record.protocol_hash}; task {record.task_hash}",
            f"- {images if record.sample else 'no restored images'}",
            "",
            "To recompute some of it, and to put it on file as verified:",
            "",
            "    mrbench verify PACKAGE.zip --items 5 --out runs",
            "",
        ]
    )


__all__ = ["Submission", "Submitted", "WeightsInfo", "image_hash", "submit"]
