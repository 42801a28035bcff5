"""Files to take away: tables, statistics, numbers per item, manifests."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass

from mrbench.report.as_csv import escape
from mrbench.report.render import render
from mrbench.report.site.private import without_places, without_places_in
from mrbench.report.site.tasks import SiteTask
from mrbench.report.text import clean

FOLDER = "downloads"
_TABLES = (
    ("leaderboard.csv", "csv", "leaderboard as CSV, full precision"),
    ("leaderboard.tex", "latex", "leaderboard as LaTeX (booktabs)"),
    ("leaderboard.md", "markdown", "leaderboard as Markdown"),
    ("leaderboard.json", "json", "leaderboard as JSON"),
)


@dataclass(frozen=True)
class Download:
    """A file of the site: its path, what it is, its content."""

    path: str
    title: str
    data: bytes


def tables(tasks: Sequence[SiteTask]) -> list[Download]:
    """All boards in every format, from the objects that the pages show."""
    boards = [t.board for t in tasks]
    return [Download(f"{FOLDER}/{name}", title, render(boards, form).encode()) for name, form, title in _TABLES]


def statistics(tasks: Sequence[SiteTask]) -> list[Download]:
    """Methods, comparisons, sentences and the whole results, as ``mrbench stats --out`` writes them."""
    from mrbench.report.stats_text import pairs_csv, sentences_text, standings_csv

    made = [t.statistics for t in tasks if t.statistics is not None]
    if not made:
        return []
    documents = [s.document() for s in made]
    whole = json.dumps(documents[0] if len(documents) == 1 else documents, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    texts = [
        ("methods.csv", "methods with average ranks, as CSV", standings_csv(made)),
        ("pairs.csv", "all comparisons, as CSV", pairs_csv(made)),
        ("sentences.txt", "all sentences, to copy from", sentences_text(made)),
        ("statistics.json", "everything, as JSON", whole),
    ]
    return [Download(f"{FOLDER}/statistics/{name}", title, text.encode()) for name, title, text in texts]


def items_csv(task: SiteTask, most: int) -> Download | None:
    """One line per item and entry with every number of the board, full precision; ``None`` if that is more than ``most`` bytes."""
    cells = len(task.comparison.items) * len(task.runs) * (5 + len(task.board.columns))
    if cells > most:  # a byte each is less than they need
        return None
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    columns = task.board.columns
    writer.writerow(["item", "subject", "method", "control", "status", *(escape(c.name) for c in columns)])
    comparison = task.comparison
    for row, a in zip(task.rows, task.runs, strict=True):
        values = [a.values(c.name) for c in columns]
        states = [s if isinstance(s, str) else "not in this run" for s in a.rows["status"]]
        for i, item in enumerate(comparison.items):
            subject = comparison.subjects[int(comparison.codes[i])]
            numbers = ["" if v[i] != v[i] else repr(float(v[i])) for v in values]
            writer.writerow([escape(clean(item)), escape(clean(subject)), escape(row.name), row.control, states[i], *numbers])
    data = stream.getvalue().encode()
    return (
        Download(f"{FOLDER}/items-{task.number}.csv", f"numbers of every item: {task.board.title}", data)
        if len(data) <= most
        else None
    )


def manifests(task: SiteTask) -> list[Download]:
    """The manifest of every run, in the order of the board, without places on disk."""
    found = []
    for k, a in enumerate(task.runs, 1):
        document = without_places_in(a.run.manifest.model_dump(mode="json"))
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        title = f"manifest of {without_places(clean(a.run.manifest.run))}"
        found.append(Download(f"{FOLDER}/manifests/run-{task.number}-{k}.json", title, text.encode()))
    return found
