"""The progress bar that all commands show."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def progress_bar(console: Console, disable: bool = False) -> Progress:
    """Bars with a description, counts, the time elapsed, an ETA, and a note; nothing is drawn before ``start()``.

    Tasks need the field ``note`` (``add_task(..., note="")``). Nothing in descriptions and notes is read as markup. ``disable``: show
    nothing at all.
    """
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
        disable=disable,
    )
