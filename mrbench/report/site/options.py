"""What a caller may choose about a site, and what he gets back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mrbench.errors import UserError

if TYPE_CHECKING:
    from mrbench.report.summary import Over
    from mrbench.stats.results import Preset

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class SiteOptions:
    """Choices.

    ``metrics``, ``over``, ``intersect``: see ``build_board``. ``ci``: intervals of the means instead of sd. ``preset``, ``control``: of the statistics (see
    ``mrbench.stats.presets.Plan``). ``max_bytes``: of the whole site; pictures of items fill what the pages leave.
    ``pictures``: False leaves them out. ``private``: the pages are for the user's own eyes, with pictures of every data set and
    a warning on every page.
    """

    title: str = "MRI super-resolution"
    metrics: tuple[str, ...] | None = None
    over: Over = "slices"
    intersect: bool = False
    ci: bool = False
    preset: Preset = "default"
    control: str = ""
    max_bytes: int = 25 * MEGABYTE
    pictures: bool = True
    private: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be made."""
        if self.max_bytes < MEGABYTE:
            raise UserError("a site of less than 1 MB cannot be made. Leave the pictures out instead (--no-pictures).")


@dataclass(frozen=True)
class SiteReport:
    """A finished site: its folder, its size, items with pictures of all items, and what a reader should know."""

    out: Path
    files: int
    size: int
    items: int
    pictured: int
    notes: tuple[str, ...]

    @property
    def index(self) -> Path:
        """The page to open."""
        return self.out / "index.html"
