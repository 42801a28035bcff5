"""The audit of data sets as a document, a report in Markdown, and a few lines for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mrbench.data.audit import Audit, Shared
from mrbench.data.near_copies import DETAIL, DISTANCE, NearCopy, Picture, by_volume
from mrbench.data.outliers import by_volume as outliers_by_volume
from mrbench.report.text import clean

LISTED = 100  # findings of a kind in the report; the document has all


def audit_document(found: Audit) -> dict[str, Any]:
    """Everything, JSON-serialisable."""
    return {
        "leaks": found.leaks,
        "volumes": found.volumes,
        "slices": found.slices,
        "datasets": {
            name: {
                "counts": {s: {"subjects": c.subjects, "volumes": c.volumes} for s, c in survey.counts().items()},
                "warnings": list(survey.warnings),
                "unusable": [
                    {"subject": b.subject, "volume": b.volume, "file": b.file, "reason": b.reason} for b in found.bad[name]
                ],
            }
            for name, survey in found.surveys.items()
        },
        "shared_subjects": [{"subject": s.subject, "sides": [list(side) for side in s.sides]} for s in found.shared],
        "near_copies": [
            {
                "first": _who(c.first),
                "second": _who(c.second),
                "sides": c.sides,
                "bits": c.bits,
                "detail": round(c.detail, 4),
            }
            for c in found.copies
        ],
        "outliers": [
            {
                "dataset": o.look.dataset,
                "subject": o.look.subject,
                "volume": o.look.volume,
                "kind": o.kind,
                "reason": o.reason,
            }
            for o in found.outliers
        ],
        "notes": found.notes,
    }


def _who(picture: Picture) -> dict[str, Any]:
    return {
        "dataset": picture.dataset,
        "subject": picture.subject,
        "volume": picture.volume,
        "split": picture.split,
        "position": picture.position,
    }


def audit_lines(found: Audit) -> list[str]:
    """The findings in a few lines."""
    lines = [f"{found.volumes} volumes read, {found.slices} slices compared"]
    lines.append(
        _counted(len(found.shared), "subject is", "subjects are", "on several sides") + _some([_sides(s) for s in found.shared])
    )
    for sides in ("data sets", "splits", "subjects"):
        copies = [c for c in found.copies if c.sides == sides]
        if copies or sides != "data sets" or len(found.surveys) > 1:
            lines.append(
                _counted(len(copies), "pair", "pairs", f"of near-copies in different {sides}")
                + _some([pair_text(c, n) for c, n in by_volume(copies)])
            )
    for kind in ("orientation", "intensity", "geometry"):
        strange = outliers_by_volume([o for o in found.outliers if o.kind == kind])
        lines.append(
            _counted(len(strange), "volume has", "volumes have", f"an unusual {kind}")
            + _some([f"{look.subject}/{look.volume}: {'; '.join(o.reason for o in listed)}" for look, listed in strange])
        )
    bad = [b for listed in found.bad.values() for b in listed]
    if bad:
        lines.append(
            _counted(len(bad), "file cannot", "files cannot", "be used") + _some([f"{b.file}: {b.reason}" for b in bad])
        )
    return [clean(line) for line in lines]


def _counted(count: int, one: str, more: str, what: str) -> str:
    return f"{count or 'no'} {one if count == 1 else more} {what}"


def _some(texts: Sequence[str], most: int = 3) -> str:
    if not texts:
        return ""
    return ": " + "; ".join(texts[:most]) + (f"; and {len(texts) - most} more" if len(texts) > most else "")


def _sides(shared: Shared) -> str:
    return f"{shared.subject} ({', '.join(f'{name} {split}' for name, split in shared.sides)})"


def place_text(picture: Picture) -> str:
    """Which slice a picture is, in words."""
    return f"{picture.dataset} {picture.split}: {picture.subject}/{picture.volume}, slice {picture.position}"


def pair_text(copy: NearCopy, count: int = 1) -> str:
    """A pair in words. ``count``: pairs of these two volumes."""
    more = f" ({count} pairs of these volumes)" if count > 1 else ""
    return f"{place_text(copy.first)} = {place_text(copy.second)}{more}"


def audit_markdown(found: Audit, pictures: Mapping[str, str]) -> str:
    """The report. ``pictures``: file names, beside the report, by section (``near-copies``, ``outliers``)."""
    names = ", ".join(found.surveys)
    verdict = (
        "People or pictures are on several sides: see below."
        if found.leaks
        else "No person and no picture is on several sides."
    )
    lines = [f"# Audit of {names}", "", f"{verdict} {found.volumes} volumes were read and {found.slices} slices compared.", ""]
    lines += ["| data set | split | subjects | volumes |", "|---|---|---|---|"]
    for name, survey in found.surveys.items():
        lines += [f"| {_cell(name)} | {split} | {c.subjects} | {c.volumes} |" for split, c in survey.counts().items()]
    lines += [
        "",
        *[f"- {_cell(n)}" for n in found.notes],
        *[f"- {_cell(w)}" for s in found.surveys.values() for w in s.warnings],
        "",
    ]
    lines += _section("Subjects on several sides", [_sides(s) for s in found.shared])
    lines += [
        "## Near-copies", "",
        f"Pairs of slices whose perceptual hashes differ in at most {DISTANCE} of 64 bits and whose details correlate at {DETAIL} or more. "
        "Neighbouring slices of one subject on one side do not count.", "",
    ]  # fmt: skip
    lines += _picture(pictures, "near-copies")
    lines += _items(
        [f"in different {c.sides}: {pair_text(c, n)}: {c.bits} bits, detail {c.detail:.2f}" for c, n in by_volume(found.copies)]
    )
    lines += ["## Unlike the rest", ""]
    lines += _picture(pictures, "outliers")
    lines += _items([f"{o.kind}: {o.look.dataset} {o.look.subject}/{o.look.volume}: {o.reason}" for o in found.outliers])
    lines += _section("Cannot be used", [f"{b.file}: {b.reason}" for listed in found.bad.values() for b in listed])
    return "\n".join(lines).rstrip() + "\n"


def _section(title: str, texts: Sequence[str]) -> list[str]:
    return [f"## {title}", "", *_items(texts)]


def _items(texts: Sequence[str]) -> list[str]:
    if not texts:
        return ["None.", ""]
    more = [f"- and {len(texts) - LISTED} more (all are in audit.json)"] if len(texts) > LISTED else []
    return [*[f"- {_cell(t)}" for t in texts[:LISTED]], *more, ""]


def _picture(pictures: Mapping[str, str], section: str) -> list[str]:
    return [f"![{section}]({pictures[section]})", ""] if section in pictures else []


def _cell(text: str) -> str:
    return clean(text).replace("|", "\\|").replace("<", "&lt;")
