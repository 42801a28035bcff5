"""How many pictures of a data set the pages may show: what its terms allow, and in which words the pages say so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mrbench.data.redistribution import allows, notice
from mrbench.report.text import clean, count

if TYPE_CHECKING:
    from mrbench.store.manifest import DatasetInfo

A_FEW = 12  # items of data sets whose terms allow figures, and no copies


@dataclass(frozen=True)
class Permission:
    """``most``: items with pictures (``None``: any number). ``words``: on the page of items. ``banner``: on every page."""

    most: int | None
    words: str = ""
    banner: str = ""

    @property
    def pictures(self) -> bool:
        """Whether there may be any."""
        return self.most is None or self.most > 0


def permission_of(dataset: DatasetInfo, private: bool = False) -> Permission:
    """What the terms of a data set allow (see ``mrbench.data.redistribution``).

    Parameters
    ----------
    private : the pages are for the eyes of whoever makes them: all pictures, and every page says that it must not be passed on.
    """
    name = clean(dataset.alias)
    if allows(dataset, "images"):
        return Permission(None)
    if private:
        return Permission(None, banner=f"for your own use, not to be passed on: {clean(notice(dataset))}")
    if allows(dataset, "figures"):
        words = f"figures only: {name} allows figures, not copies of its images, so {count(A_FEW, 'item')} at most are shown"
        return Permission(A_FEW, words)
    terms = f"redistribution: {clean(dataset.redistribution)}; {clean(dataset.licence) or 'no licence stated'}"
    return Permission(0, f"no pictures: the terms of {name} do not allow them to be published ({terms}). The numbers are shown")
