"""The progress bar that all commands show."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

BAR = 24  # columns, on consoles that are wide enough


def progress_bar(console: Console, disable: bool = False) -> Progress:
    """Bars with a description, counts, the time elapsed, an ETA, and a note; nothing is drawn before ``start()``.

    Tasks need the field ``note`` (``add_task(..., note="")``). Descriptions and notes are plain text; on narrow consoles they are cut,
    and counts and times are not. ``disable``: show nothing at all.
    """
    return Progress(
        _Cut("{task.description}", markup=False),
        BarColumn(bar_width=min(BAR, console.width // 8), table_column=_whole()),
        MofNCompleteColumn(table_column=_whole()),
        TimeElapsedColumn(table_column=_whole()),
        TextColumn("ETA"),
        TimeRemainingColumn(table_column=_whole()),
        _Cut("{task.fields[note]}", markup=False),
        console=console,
        disable=disable,
    )


def _whole() -> Column:
    return Column(no_wrap=True)


class _Cut(TextColumn):
    """Text on one line that gives way where there is no room."""

    def get_table_column(self) -> Column:
        return Column()

    def render(self, task: Task) -> Text:
        text = super().render(task)
        text.no_wrap, text.overflow = True, "ellipsis"
        return text
