"""What the commands of ``mrbench data`` share: opening a data set, its counts as a table, progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mrbench.cli.common import stderr, stdout

if TYPE_CHECKING:
    from mrbench.cards import DatasetCard
    from mrbench.data.records import BadSource, Dataset
    from mrbench.data.survey import Survey
    from mrbench.plugins import Registry

LISTED = 5


def opened(names: Sequence[str], settings: Sequence[str] | None, reg: Registry) -> list[tuple[str, DatasetCard, Dataset]]:
    """The data sets of ``[ALIAS=]NAME`` texts, with remembered options: alias, card, implementation.

    Raises
    ------
    UserError : unknown names, bad options, or two of one alias.
    """
    from mrbench.data.places import open_dataset
    from mrbench.engine.entries import parse_dataset, parse_settings
    from mrbench.errors import UserError

    given = parse_settings(settings or [])
    choices = [parse_dataset(name, given, reg) for name in names]
    given.refuse_unused()
    aliases = [c.alias for c in choices]
    if len(set(aliases)) < len(aliases):
        twice = max(aliases, key=aliases.count)
        raise UserError(f"{twice!r} is named twice. Data sets that are compared need names of their own: ALIAS=NAME.")
    return [(c.alias, c.card, open_dataset(c.card, c.options, c.alias)) for c in choices]


def counts_document(found: Survey) -> dict[str, dict[str, int | None]]:
    """Counts by split, JSON-serialisable."""
    return {s: {"subjects": c.subjects, "volumes": c.volumes, "slices": c.slices} for s, c in found.counts().items()}


def print_counts(found: Survey, card: DatasetCard) -> None:
    """The counts as a table, and what was published."""
    from rich.table import Table
    from rich.text import Text

    table = Table("split", "subjects", "volumes", "slices", box=None, pad_edge=False)
    for split, c in found.counts().items():
        table.add_row(split, str(c.subjects), str(c.volumes), "?" if c.slices is None else str(c.slices))
    stdout().print(table)
    if card.expected:
        stdout().print(Text(f"published: {card.expected}"), soft_wrap=True)


def unusable(bad: Sequence[BadSource], most: int | None = LISTED) -> list[str]:
    """Files that cannot be used, in sentences."""
    shown = list(bad) if most is None else list(bad)[:most]
    lines = [f"cannot be used: {b.file}: {b.reason}" for b in shown]
    return lines if len(shown) == len(bad) else [*lines, f"... and {len(bad) - len(shown)} more files that cannot be used"]


def some(texts: Sequence[str]) -> list[str]:
    """The first few of many sentences, and how many more there are."""
    more = [f"... and {len(texts) - LISTED - 1} more (all: --json)"] if len(texts) > LISTED + 1 else []
    return [*texts[: LISTED + 1], *more]


def bad_documents(bad: Sequence[BadSource]) -> list[dict[str, str]]:
    """Files that cannot be used, JSON-serialisable."""
    return [{"subject": b.subject, "volume": b.volume, "file": b.file, "reason": b.reason} for b in bad]


@contextmanager
def volumes_bar(what: str) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar over volumes: ``progress(done, total, name)``."""
    from mrbench.bars import progress_bar

    with progress_bar(stderr()) as bar:
        task = bar.add_task(what, total=None, note="")

        def progress(done: int, total: int, name: str) -> None:
            bar.update(task, completed=done, total=total, note=name)

        yield progress


@contextmanager
def bytes_bar(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar over bytes: ``report(done, total)``; a file that begins anew gets a bar of its own."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns: list[Any] = [
        TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        TextColumn("ETA"), TimeRemainingColumn(),
    ]  # fmt: skip
    with Progress(*columns, console=stderr()) as bar:
        task = bar.add_task(what, total=None)
        last = 0

        def report(done: int, total: int | None) -> None:
            nonlocal task, last
            if done < last:
                task = bar.add_task(what, total=total)
            last = done
            bar.update(task, completed=done, total=total)

        yield report
