"""What the page of manifests tells about runs and protocols."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mrbench.report.details import StatusCount, essentials, status_counts
from mrbench.report.site.downloads import Download
from mrbench.report.site.private import without_places
from mrbench.report.site.tasks import SiteTask
from mrbench.report.text import clean

_ELSEWHERE = ("run", "label")  # shown as headings, without the folder on disk


@dataclass(frozen=True)
class RunFacts:
    """One run: its name on the board, facts as names and texts, rows by status, its manifest as a download."""

    anchor: str
    name: str
    run: str
    facts: tuple[tuple[str, str], ...]
    statuses: tuple[StatusCount, ...]
    manifest: Download


def run_facts(task: SiteTask, manifests: list[Download]) -> list[RunFacts]:
    """All runs of a task, in the order of the board. ``manifests``: theirs, in the same order."""
    found = []
    for k, (row, a, manifest) in enumerate(zip(task.rows, task.runs, manifests, strict=True), 1):
        m = a.run.manifest
        facts = [(name, without_places(text)) for name, text in essentials(a.run) if name not in _ELSEWHERE]
        facts.insert(1, ("plugin", clean(m.method.plugin)))
        facts.insert(2, ("weights sha256", clean(m.method.checkpoint_sha256)))
        statuses = tuple(
            StatusCount(s.status, s.n, tuple((without_places(text), n) for text, n in s.reasons))
            for s in status_counts(a.run.rows)
        )
        kept = tuple((name, text) for name, text in facts if text)
        found.append(RunFacts(f"run-{task.number}-{k}", row.name, row.run, kept, statuses, manifest))
    return found


def rules_of(task: SiteTask) -> list[tuple[str, str]]:
    """The protocol's resolved rules, flat: ``preparation.intensity.kind`` -> ``percentile``."""
    return list(_flat(task.runs[0].run.manifest.protocol.rules, ""))


def assumptions_of(task: SiteTask) -> list[str]:
    """What the protocol takes for granted."""
    return list(task.runs[0].run.manifest.protocol.assumptions)


def _flat(value: Any, path: str) -> Any:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{clean(key)}".lstrip("."))
    else:
        text = {True: "yes", False: "no", None: "-"}[value] if value is None or isinstance(value, bool) else clean(value)
        yield path, without_places(text)
