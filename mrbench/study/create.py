"""Making a study folder from runs with stored images."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mrbench import __version__
from mrbench.data.selection import subset
from mrbench.errors import UserError
from mrbench.plugins import did_you_mean
from mrbench.report.comparable import Comparison, compare, names_of, refuse_mixtures, refuse_tiers
from mrbench.report.pictures import STORE_THEM, estimate_of, grey, truth_of
from mrbench.report.text import clean, count, listing
from mrbench.store.files import TEMPORARY, write_json, write_text
from mrbench.study.plan import Candidate, Layout, lay_out
from mrbench.study.records import (
    IMAGES,
    KEY,
    RATINGS,
    README,
    STUDY,
    WHITE,
    Key,
    MethodRecord,
    Mode,
    Study,
    StudyImage,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mrbench.store.runs import RunData

TRUTH = "ground truth"
_EPOCH = 946684800  # 1 January 2000: the date of every image, so that the order of writing says nothing
_BRIGHTEST = 99.8  # percentile of the ground truth at which the window ends


@dataclass(frozen=True)
class Request:
    """What a study is to be.

    ``methods``: labels, empty for all entries that are no controls. ``truth``: the ground truth takes part as one more blinded
    method. ``reference``: it also stands beside every image, named as what it is. ``intersect``: choose among the items that
    every run restored.
    """

    images: int = 25
    criteria: tuple[str, ...] = ("contrast", "sharpness", "anatomy")
    scale: tuple[int, int] = (1, 5)
    anchors: tuple[str, str] = ("poor", "excellent")
    mode: Mode = "single"
    methods: tuple[str, ...] = ()
    truth: bool = False
    reference: bool = False
    repeats: int = 0
    seed: int = 0
    intersect: bool = False


@dataclass(frozen=True)
class Made:
    """A new study folder, and what its maker should know."""

    folder: Path
    study: Study
    key: Key
    notes: tuple[str, ...]


def create_study(runs: Sequence[RunData], request: Request, out: Path) -> Made:
    """Write a study folder; a kill leaves either all of it or nothing at ``out``.

    Raises
    ------
    UserError : runs of several protocols or data sets, with unequal items or without stored images; too few items; an unknown
        method; ``out`` exists.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: is already there. A study is never changed once it is made: name a new folder.")
    refuse_mixtures(runs)
    chosen, notes = _choose(runs, request)
    names = names_of(chosen)
    refuse_tiers(chosen)
    comparison = compare(chosen, request.intersect)
    items, more = _candidates(comparison, names, request)
    layout = lay_out(
        items,
        [*names, TRUTH] if request.truth else names,
        request.mode,
        reference=request.reference,
        repeats=request.repeats,
        seed=request.seed,
    )
    notes += more + _warnings(chosen, items)
    out.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=out.parent))
    try:
        (place / IMAGES).mkdir()
        (place / RATINGS).mkdir()
        images = _write_images(place / IMAGES, chosen, names, layout)
        study = _study(chosen[0], request, layout, images)
        key = _key(chosen, names, request, layout, study.id, len(comparison.items), notes)
        write_json(place / STUDY, study.model_dump(mode="json"))
        write_json(place / KEY, key.model_dump(mode="json"))
        os.chmod(place / KEY, 0o600)
        write_text(place / README, readme(study))
        os.chmod(place, 0o700 if study.redistribution != "open" else 0o755)
        os.replace(place, out)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    return Made(out, study, key, tuple(notes))


def licence_note(study: Study) -> str:
    """What the data set's licence means for the folder; empty where it may be passed on."""
    if study.redistribution == "open":
        return ""
    return (
        "the data set's licence does not allow its images to be passed on: rate them on this machine. The folder must not be "
        "packed, sent or published; ratings and tables may be"
    )


def readme(study: Study) -> str:
    """``README.txt`` of a study folder."""
    note = licence_note(study)
    lines = [
        f"Reader study: {study.title}",
        "",
        f"{count(study.rated, 'image')} to rate; criteria: {', '.join(study.criteria)}.",
        "  mrbench study serve THIS_FOLDER      opens it for readers",
        "  mrbench study analyse THIS_FOLDER    what the ratings say",
        "",
        f"{KEY} says which method each code stands for. The page never reads it. Keep it where readers cannot open it",
        "(and name it to the analysis with --key FILE).",
        f"{RATINGS}/ holds one file per reader, a line per rating. Copy it to keep it safe; do not edit it.",
        "",
        f"Licence of the data: {clean(study.licence) or 'not stated'}",
    ]
    lines += [f"{note[0].upper()}{note[1:]}."] if note else []
    return "\n".join(lines) + "\n"


# -- choosing ----------------------------------------------------------------------------------------------------------
def _choose(runs: Sequence[RunData], request: Request) -> tuple[list[RunData], list[str]]:
    """The runs that take part, in their order, and what was left out."""
    names = names_of(runs)
    notes = []
    if request.methods:
        for wanted in request.methods:
            if wanted not in names:
                known = listing(names, 20)
                raise UserError(f"--methods {wanted}: no run is called that.{did_you_mean(wanted, names)} Runs: {known}.")
        chosen = [runs[names.index(m)] for m in dict.fromkeys(request.methods)]
    else:
        chosen = [r for r in runs if not r.manifest.method.control]
        gone = [n for r, n in zip(runs, names, strict=True) if r.manifest.method.control]
        if gone:
            hint = "" if request.truth else " (--truth adds the ground truth, --methods names any of them)"
            notes.append(f"controls take no part: {listing(gone)}{hint}")
    if not chosen and not (request.truth and runs):
        raise UserError("all of the runs are controls. Give a run of a method, or name the controls with --methods.")
    if not chosen:
        raise UserError("a study of the ground truth alone compares nothing. Give a run of a method.")
    if request.truth and TRUTH in names_of(chosen):
        raise UserError(f"a run is called {TRUTH!r}, which --truth would add. Leave out one of the two.")
    return chosen, notes


def _candidates(comparison: Comparison, names: list[str], request: Request) -> tuple[list[Candidate], list[str]]:
    ok = np.logical_and.reduce([run.ok for run in comparison.runs])
    found = [
        Candidate(item, comparison.subjects[code])
        for item, code, good in zip(comparison.items, comparison.codes.tolist(), ok.tolist(), strict=True)
        if good
    ]
    notes = []
    failed = [f"{n} ({int((~run.ok).sum())})" for n, run in zip(names, comparison.runs, strict=True) if not run.ok.all()]
    if failed:
        notes.append(f"items that a method did not restore cannot be chosen: {listing(failed)}")
    if comparison.intersect and len(comparison.items) < comparison.union:
        notes.append(f"intersection: {len(comparison.items)} of {comparison.union} items, those that every method restored")
    if request.images > len(found):
        why = f" ({notes[0]})" if failed else ""
        raise UserError(
            f"--images {request.images}: the runs share {count(len(found), 'restored item')}{why}. "
            f"Ask for at most {len(found)}, or run the methods on more items."
        )
    return subset(found, request.images, request.seed), notes


def _warnings(runs: Sequence[RunData], items: Sequence[Candidate]) -> list[str]:
    notes = []
    people = len({i.subject for i in items})
    if people < len(items):
        notes.append(
            f"{count(len(items), 'image')} of {count(people, 'subject')}: the analysis counts subjects, unless told --unit images"
        )
    if any(r.manifest.method.tier == "demo" for r in runs):
        notes.append("demonstration weights: the ratings will say nothing about the methods that they stand in for")
    if any(r.manifest.draws > 1 for r in runs):
        notes.append("of methods with several draws, the first draw is shown")
    return notes


# -- writing -----------------------------------------------------------------------------------------------------------
def _write_images(folder: Path, runs: Sequence[RunData], names: Sequence[str], layout: Layout) -> dict[str, StudyImage]:
    """Every image under its code, item by item."""
    codes_of: dict[str, list[str]] = {}
    for code, shown in layout.images.items():
        codes_of.setdefault(shown.item, []).append(code)
    reference_of = {item: code for code, item in layout.references.items()}
    images: dict[str, StudyImage] = {}
    for item, codes in codes_of.items():
        truth = grey(truth_of(runs, item).hr)
        pictures = {TRUTH: truth, **{n: _estimate(r, item) for r, n in zip(runs, names, strict=True)}}
        for name, picture in pictures.items():
            if picture.shape != truth.shape:
                raise UserError(
                    f"{item}: {name} restored an image of {picture.shape}, the ground truth is {truth.shape}. Run again."
                )
        high = max(float(np.percentile(truth, _BRIGHTEST)), 0.05)
        height, width = truth.shape[:2]
        record = StudyImage(
            height=height, width=width, channels=1 if truth.ndim == 2 else 3, low=0.0, high=round(min(high, 1.0), 4)
        )
        wanted = {code: pictures[layout.images[code].method] for code in codes}
        if item in reference_of:
            wanted[reference_of[item]] = truth
        for code, picture in wanted.items():
            stored = np.rint(picture.astype(np.float64) * WHITE).astype("<u2")
            (folder / f"{code}.u16").write_bytes(stored.tobytes())
            images[code] = record
    for path in sorted(folder.iterdir()):
        os.utime(path, (_EPOCH, _EPOCH))
    return dict(sorted(images.items()))


def _estimate(run: RunData, item: str) -> NDArray[np.float32]:
    found = estimate_of(run, item)
    if found.image is None:
        raise UserError(f"{clean(run.label)}: {item} has no restored image ({found.reason}). {STORE_THEM}")
    return grey(found.image)


def _study(run: RunData, request: Request, layout: Layout, images: dict[str, StudyImage]) -> Study:
    m = run.manifest
    return Study(
        id=secrets.token_hex(8),
        title=f"{clean(m.dataset.alias)}, {clean(m.protocol.name)}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        mrbench=__version__,
        mode=request.mode,
        criteria=request.criteria,
        scale=request.scale,
        anchors=request.anchors,
        images=images,
        trials=tuple(layout.trials),
        redistribution=m.dataset.redistribution,
        licence=m.dataset.licence,
    )


def _key(
    runs: Sequence[RunData],
    names: Sequence[str],
    request: Request,
    layout: Layout,
    study: str,
    items: int,
    notes: Sequence[str],
) -> Key:
    m = runs[0].manifest
    methods = [
        MethodRecord(
            label=n,
            name=r.manifest.method.name,
            run=r.manifest.run,
            tier=r.manifest.method.tier,
            control=r.manifest.method.control,
            checkpoint_sha256=r.manifest.method.checkpoint_sha256,
        )
        for r, n in zip(runs, names, strict=True)
    ]
    methods += [MethodRecord(label=TRUTH, name="gt", run="", control=True)] if request.truth else []
    return Key(
        study=study,
        dataset=clean(m.dataset.alias),
        dataset_version=clean(m.dataset.version),
        protocol=clean(m.protocol.name),
        protocol_hash=m.protocol.hash,
        seed=request.seed,
        items=items,
        methods=tuple(methods),
        images=layout.images,
        references=layout.references,
        notes=tuple(notes),
    )
