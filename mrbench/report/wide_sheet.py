"""A wide board as it is printed."""

from __future__ import annotations

from collections.abc import Sequence

from mrbench.report.board import Board, BoardRow
from mrbench.report.sheet import (
    UNKNOWN,
    Field,
    Sheet,
    SheetCell,
    SheetColumn,
    SheetRow,
    cost_fields,
    factor_fields,
    metric_fields,
    text_fields,
)
from mrbench.report.wide import MeanRanks, WideBoard

MEAN_RANK = "mean rank"


def wide_sheet(wide: WideBoard) -> Sheet:
    """Method, tier and what describes the method; the columns of each group; mean ranks."""
    shared = _shared(wide)
    groups = [_group(wide, i) for i in range(len(wide.boards))]
    columns = [f.column for f in shared]
    for i, fields in enumerate(groups):
        columns += [SheetColumn(c.title, c.unit, c.hint, c.left, i, c.cost) for c in (f.column for f in fields)]
    last = len(wide.boards)
    hint = "ranks by unrounded means, averaged over the column groups"
    columns += [SheetColumn(f"{o.column.header} ↓", hint=hint, group=last) for o in wide.overall]

    def row(name: str, control: bool) -> SheetRow:
        known = [r for g in range(len(wide.boards)) if (r := wide.row(g, name)) is not None]
        cells = [_over_all(f, known) for f in shared]
        for g, fields in enumerate(groups):
            own = wide.row(g, name)
            missing = SheetCell(UNKNOWN, missing=True, hint=f"not run on {wide.titles[g]}")
            cells += [f.cell(own) if own is not None else missing for f in fields]
        cells += [_rank(o, name) for o in wide.overall]
        return SheetRow(name, control, tuple(cells))

    first = wide.boards[0]
    marked = next((b for b in wide.boards if b.significance is not None and b.significance.legend), first)
    sentences = [b.significance.sentences if b.significance is not None else () for b in wide.boards]
    return Sheet(
        title=wide.title,
        banner=wide.banner,
        size=_size(wide),
        warnings=tuple(_merged(wide.titles, [b.warnings for b in wide.boards])),
        groups=(*wide.titles, *((MEAN_RANK,) if wide.overall else ())),
        columns=tuple(columns),
        rows=tuple(row(n, False) for n in wide.names),
        controls=tuple(row(n, True) for n in wide.controls),
        legend=marked.legend_with,
        identity=tuple(_merged(wide.titles, [(b.identity,) for b in wide.boards])),
        sentences=tuple(_merged(wide.titles, sentences)),
        footnotes=(*wide.notes, *_merged(wide.titles, [_notes(b, wide.costs) for b in wide.boards])),
        signatures=_signatures(wide),
    )


def _shared(wide: WideBoard) -> list[Field]:
    """What describes a method wherever it was run."""
    factors = tuple(dict.fromkeys(f for b in wide.boards for f in b.factors))
    return [*text_fields(any(b.show_track for b in wide.boards)), *factor_fields(factors)]


def _group(wide: WideBoard, group: int) -> list[Field]:
    board = wide.boards[group]
    fields = [Field(SheetColumn("ok"), lambda r: SheetCell(r.counts_text))] if board.show_counts else []
    fields += metric_fields(board)
    if wide.costs:
        fields += cost_fields(board.show_parameters, board.show_nfe, board.show_memory, board.show_seconds)
    return fields


def _over_all(field: Field, rows: Sequence[BoardRow]) -> SheetCell:
    """The cell that the rows of an entry share; where they differ, all of them."""
    cells = list(dict.fromkeys(field.cell(r) for r in rows))
    return cells[0] if len(cells) == 1 else SheetCell(" / ".join(c.text or "no" for c in cells))


def _rank(overall: MeanRanks, name: str) -> SheetCell:
    if name not in overall.ranks:
        return SheetCell(UNKNOWN, missing=True, hint="no complete mean in every column group")
    ranks = ", ".join(f"{r:g}" for r in overall.ranks[name])
    return SheetCell(f"{overall.means[name]:.2f}", f"({ranks})", mark=overall.marks.get(name, ""))


def _size(wide: WideBoard) -> str:
    first = wide.boards[0]
    over = "subjects' means" if first.over == "subjects" else "slices"
    sizes = [f"{t}: {b.size_words}" for t, b in zip(wide.titles, wide.boards, strict=True)]
    return f"{first.spread} over {over} ({'; '.join(sizes)})"


def _notes(board: Board, costs: bool) -> list[str]:
    """A group's footnotes, without those on costs where these are not shown."""
    return [n for n in board.footnotes if costs or n not in board.cost_notes]


def _merged(titles: Sequence[str], texts: Sequence[Sequence[str]]) -> list[str]:
    """Texts of all groups: what all say once, the rest with the title of its group."""
    if len(titles) == 1:
        return list(texts[0])
    everywhere = [t for t in dict.fromkeys(texts[0]) if all(t in own for own in texts)]
    apart = [f"{title}: {t}" for title, own in zip(titles, texts, strict=True) for t in own if t not in everywhere]
    return [*apart, *everywhere]


def _signatures(wide: WideBoard) -> dict[str, str]:
    """Column -> signature; with the group's title where groups differ."""
    found: dict[str, dict[str, str]] = {}
    for title, board in zip(wide.titles, wide.boards, strict=True):
        for name, signature in board.signatures.items():
            found.setdefault(name, {})[title] = signature
    merged: dict[str, str] = {}
    for name, by_title in found.items():
        if len(set(by_title.values())) == 1:
            merged[name] = next(iter(by_title.values()))
        else:
            merged |= {f"{name} ({title})": s for title, s in by_title.items()}
    return merged
