"""A site from runs: pages, figures, downloads and pictures of items, written as one folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mrbench
from mrbench.errors import UserError
from mrbench.report.site import charts, downloads, facts
from mrbench.report.site.findings import findings_of
from mrbench.report.site.folder import check_place, replacing
from mrbench.report.site.items import MOST_ITEMS, extremes, goodness, in_turn, item_link, main_column, records
from mrbench.report.site.options import MEGABYTE, SiteOptions, SiteReport
from mrbench.report.site.pages import ASSETS, asset, page
from mrbench.report.site.pictures import pictures_of
from mrbench.report.site.png import SCALES, bar_png
from mrbench.report.site.table import board_table
from mrbench.report.site.tasks import SiteTask, make_tasks
from mrbench.report.text import count

if TYPE_CHECKING:
    from mrbench.store.runs import RunData

_SHARE_OF_ITEMS = 0.2  # of the size, for the numbers of items as CSV
_RESERVE = 0.02  # of the size, for what pages say about pictures


@dataclass
class _Site:
    """The folder that is being filled, and how much is in it."""

    folder: Path
    limit: int
    files: int = 0
    size: int = 0

    def add(self, path: str, data: bytes) -> None:
        """Write one file."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        self.files += 1
        self.size += len(data)


@dataclass
class _ItemPage:
    """The browser of items of one task, while pictures are being added."""

    task: SiteTask
    file: str
    order: list[int]
    notes: list[str] = field(default_factory=list)
    pictures: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    missing: int = 0
    csv: str = ""


def build_site(runs: Sequence[RunData], out: Path, options: SiteOptions | None = None) -> SiteReport:
    """Write the site of ``runs`` to the folder ``out``, replacing a former site there.

    The same runs and options give the same bytes. Nothing is written unless everything could be made.

    Raises
    ------
    UserError : runs that cannot be compared (see ``build_board``), a folder that holds other files, damaged images, or a site
        that is larger than ``max_bytes`` without any pictures.
    """
    options = options or SiteOptions()
    place = check_place(out)
    tasks = make_tasks(runs, options)
    with replacing(place, mrbench.__version__) as folder:
        site = _Site(folder, options.max_bytes)
        report = _fill(site, tasks, options)
    return SiteReport(out, site.files, site.size, *report)


def _fill(site: _Site, tasks: Sequence[SiteTask], options: SiteOptions) -> tuple[int, int, tuple[str, ...]]:
    many = len(tasks) > 1
    item_pages = [_ItemPage(t, f"items-{t.number}.html" if many else "items.html", in_turn(goodness(t))) for t in tasks]
    banners = {t.permission.banner: None for t in tasks if t.permission.banner and options.pictures}
    context: dict[str, Any] = {
        "title": options.title,
        "version": mrbench.__version__,
        "tasks": tasks,
        "item_pages": item_pages,
        "banners": list(banners),
    }
    for name in ASSETS:
        site.add(f"assets/{name}", asset(name))
    for scale in SCALES:
        site.add(f"assets/{scale}.png", bar_png(scale))
    files = [*downloads.tables(tasks), *downloads.statistics(tasks)]
    manifests = {t.number: downloads.manifests(t) for t in tasks}
    site.add("statistics.html", _statistics_page(site, context, files))
    drawn = {t.number: _charts(t) for t in tasks}
    for chart in (c for found in drawn.values() for c in found):
        site.add(chart.path, chart.data)
    for download in [*files, *(d for found in manifests.values() for d in found)]:
        site.add(download.path, download.data)
    room = int(_SHARE_OF_ITEMS * options.max_bytes / len(tasks))
    for p in item_pages:
        table = downloads.items_csv(p.task, room)
        if table is not None:
            site.add(table.path, table.data)
            files.append(table)
            p.csv = table.path
        else:
            p.notes.append("the numbers of all items are too many for this folder; the rows of the runs hold them")
    site.add("runs.html", _runs_page(context, manifests))
    site.add("index.html", _index_page(context, drawn, files, item_pages))
    _add_pictures(site, item_pages, options)
    for p in item_pages:
        site.add(p.file, _items_page(context, p))
    if site.size > options.max_bytes:
        raise UserError(
            f"the site has {site.size / MEGABYTE:.1f} MB without further pictures, and at most {options.max_bytes / MEGABYTE:g} MB "
            "were allowed. Allow more (--max-size), or show fewer columns (--metrics)."
        )
    notes = [f"{p.task.board.title}: {note}" if many else note for p in item_pages for note in p.notes]
    return sum(len(p.order) for p in item_pages), sum(len(p.pictures) for p in item_pages), tuple(notes)


# -- pages ---------------------------------------------------------------------------------------------------------------
def _index_page(
    context: Mapping[str, Any], drawn: Mapping[int, list[charts.Chart]], files: Sequence[Any], item_pages: Sequence[_ItemPage]
) -> bytes:
    sections = []
    for p in item_pages:
        worst, best = extremes(p.task)
        column = main_column(p.task)
        looks = [
            (kind, [(e, item_link(p.file, e.item_id)) for e in found]) for kind, found in (("worst", worst), ("best", best))
        ]
        sections.append(
            {
                "task": p.task,
                "table": board_table(p.task.board),
                "charts": drawn[p.task.number],
                "looks": [(kind, found) for kind, found in looks if found],
                "column": column,
                "items_page": p.file,
            }
        )
    return page("index.html", {**context, "here": "index.html", "sections": sections, "downloads": files})


def _statistics_page(site: _Site, context: Mapping[str, Any], files: Sequence[downloads.Download]) -> bytes:
    sections = []
    for task in context["tasks"]:
        found = findings_of(task)
        for chart in (c for f in found for c in f.charts):
            site.add(chart.path, chart.data)
        sections.append({"task": task, "findings": found})
    kept = [d for d in files if "/statistics/" in d.path]
    return page("statistics.html", {**context, "here": "statistics.html", "sections": sections, "downloads": kept})


def _runs_page(context: Mapping[str, Any], manifests: Mapping[int, list[downloads.Download]]) -> bytes:
    sections = [
        {
            "task": task,
            "runs": facts.run_facts(task, manifests[task.number]),
            "rules": facts.rules_of(task),
            "assumptions": facts.assumptions_of(task),
        }
        for task in context["tasks"]
    ]
    return page("runs.html", {**context, "here": "runs.html", "sections": sections})


def _items_page(context: Mapping[str, Any], p: _ItemPage) -> bytes:
    task = p.task
    shown = sorted(p.order[:MOST_ITEMS])
    if len(shown) < len(p.order):
        p.notes.append(f"{count(len(shown), 'item')} of {len(p.order)} are listed: the worst, the best and some between")
    items = records(task, shown)
    for item, position in zip(items, shown, strict=True):
        item["pictures"] = p.pictures.get(position)
    main = main_column(task)
    names = [c.name for c in task.board.columns]
    document = {
        "columns": [
            {"name": c.name, "header": c.header, "arrow": c.arrow, "unit": c.unit, "digits": c.digits, "up": c.higher_is_better}
            for c in task.board.columns
        ],
        "entries": [{"name": r.name, "control": r.control, "draws": r.draws} for r in task.rows],
        "main": names.index(main.name) if main is not None else -1,
        "items": items,
    }
    return page("items.html", {**context, "here": p.file, "page": p, "task": task, "document": document})


def _charts(task: SiteTask) -> list[charts.Chart]:
    """Quality against time, then the distribution of all metrics."""
    main = main_column(task)
    found = [charts.pareto(task, main.name) if main is not None else None, charts.boxplots(task)]
    return [c for c in found if c is not None]


# -- pictures ------------------------------------------------------------------------------------------------------------
def _add_pictures(site: _Site, item_pages: Sequence[_ItemPage], options: SiteOptions) -> None:
    """Pictures of items, the tasks in turn, until the site is full."""
    if not options.pictures:
        for p in item_pages:
            p.notes.append("no pictures: they were not asked for")
        return
    limit = options.max_bytes - _pages_size(item_pages) - int(_RESERVE * options.max_bytes)
    full: set[int] = set()
    for turn in range(max(len(p.order) for p in item_pages)):
        for p in item_pages:
            most = p.task.permission.most
            listed = turn < min(len(p.order), MOST_ITEMS)
            if listed and p.task.number not in full and (most is None or len(p.pictures) < most):
                made = pictures_of(p.task, p.order[turn], f"images/{p.task.number}/{p.order[turn]:05d}")
                if made is None:
                    p.missing += 1
                elif site.size + made.size > limit:
                    full.add(p.task.number)
                else:
                    for path, data in made.files.items():
                        site.add(path, data)
                    p.pictures[p.order[turn]] = made.facts
    for p in item_pages:
        p.notes += _words(p, options, p.task.number in full)


def _words(p: _ItemPage, options: SiteOptions, full: bool) -> list[str]:
    """What a reader must know about the pictures of a task."""
    words = [p.task.permission.words] if p.task.permission.words else []
    if not p.task.permission.pictures:
        return words
    shown, total = len(p.pictures), len(p.order)
    if not shown and not full:
        return [
            *words,
            "no pictures: the restored images were not stored. The same `mrbench run` with --images all stores them",
        ]
    if shown < total:
        why = [f"the site has room for no more ({options.max_bytes / MEGABYTE:g} MB)"] if full else []
        why += [f"{count(p.missing, 'item')} without stored images"] if p.missing else []
        chosen = "the worst, the best and some between"
        words.append(f"pictures of {count(shown, 'item')} of {total}: {chosen}" + (f"; {', '.join(why)}" if why else ""))
    return words


def _pages_size(item_pages: Sequence[_ItemPage]) -> int:
    """An estimate of the pages that are still to be written, from above: numbers, ids and facts about pictures."""
    total = 0
    for p in item_pages:
        per_item = 400 + len(p.task.runs) * (60 + 14 * len(p.task.board.columns))
        total += 30_000 + per_item * min(len(p.order), MOST_ITEMS)
    return total
