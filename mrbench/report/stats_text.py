"""Statistics for the terminal and as files: tables and sentences from one object."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mrbench.report.as_csv import escape
from mrbench.report.statistics import Statistics
from mrbench.report.text import clean, number, shorten

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table

    from mrbench.stats.results import MetricResult, Pair

MOST_PAIRS = 21  # in a table; of more, those of the best method alone
MOST_SENTENCES = 6  # in the terminal, likewise
_NAME = 24
_GAP = 3  # between columns


@dataclass(frozen=True)
class StatisticsView:
    """A rich renderable: per metric a table of methods, one of comparisons, and the sentences."""

    statistics: Statistics

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Title, warnings, metrics, notes."""
        from rich.text import Text

        from mrbench.stats.sentences import methods_paragraph, omnibus_sentence, pair_sentence

        s = self.statistics
        if s.banner:
            yield Text(s.banner.upper(), style="bold reverse")
        yield Text(f"{s.title}: {s.size_text}", style="bold")
        for warning in s.warnings:
            yield Text(f"warning: {warning}", style="yellow")
        for result in s.results:
            yield Text("")
            yield Text(omnibus_sentence(result), style="bold")
            if result.standings:
                yield _standings(result)
            told = told_pairs(result)
            if told:
                for table in _pairs(result, told, options.max_width):
                    yield Text("")
                    yield table
                spoken = told_pairs(result, MOST_SENTENCES)
                for pair in spoken:
                    yield Text(f"- {pair_sentence(result, pair)}")
                if len(spoken) < len(result.pairs):
                    yield Text(
                        f"({len(result.pairs)} comparisons in all: --out or --json has the other sentences)", style="dim"
                    )
            for note in result.notes:
                yield Text(f"note: {note}.", style="yellow")
        yield Text("")
        for paragraph in dict.fromkeys(methods_paragraph(r) for r in s.results if not r.reason):
            yield Text(paragraph, style="dim")
        for note in s.notes:
            yield Text(f"- {note}.")
        yield Text(f"protocol {s.protocol} {s.protocol_hash}; data set {s.dataset} version {s.dataset_version}", style="dim")


def told_pairs(result: MetricResult, most: int = MOST_PAIRS) -> list[Pair]:
    """All comparisons, or where there are more than ``most`` those of the method with the best average rank."""
    if len(result.pairs) <= most or result.provenance.control:
        return list(result.pairs)
    best = result.standings[0].method
    return [p for p in result.pairs if best in (p.a, p.b)]


def standings_csv(many: Sequence[Statistics]) -> str:
    """One line per metric and method."""
    from mrbench.stats.documents import standing_row

    return _csv([{**_task(s), **standing_row(r, x)} for s in many for r in s.results for x in r.standings])


def pairs_csv(many: Sequence[Statistics]) -> str:
    """One line per comparison, with its sentence."""
    from mrbench.stats.documents import pair_row
    from mrbench.stats.sentences import pair_sentence

    lines = [{**_task(s), **pair_row(r, p), "sentence": pair_sentence(r, p)} for s in many for r in s.results for p in r.pairs]
    return _csv(lines)


def sentences_text(many: Sequence[Statistics]) -> str:
    """Every sentence, as text to copy from."""
    from mrbench.stats.sentences import methods_paragraph, sentences

    parts: list[str] = []
    for s in many:
        parts += [f"{s.title}: {s.size_text}."] + ([f"{s.banner.capitalize()}."] if s.banner else [])
        parts += [f"Warning: {w}." for w in s.warnings]
        for r in s.results:
            parts += ["", *map(clean, sentences(r)), *(f"Note: {clean(n)}." for n in r.notes)]
            parts += [] if r.reason else [clean(methods_paragraph(r))]
        parts += ["", *(f"{n}." for n in s.notes), ""]
    return "\n".join(parts).rstrip() + "\n"


def _task(s: Statistics) -> dict[str, Any]:
    return {"dataset": s.dataset, "protocol": s.protocol, "protocol_hash": s.protocol_hash}


def _csv(lines: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(n for line in lines for n in line))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, restval="", lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({k: escape(clean(v)) if isinstance(v, str) else v for k, v in line.items()})
    return stream.getvalue()


def _table() -> Table:
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, padding=(0, _GAP - 1, 0, 0), pad_edge=False, show_edge=False)


def _standings(result: MetricResult) -> Table:
    from rich.text import Text

    m = result.measure
    table = _table()
    arrow = "↑" if m.higher_is_better else "↓"
    unit = f" [{m.unit}]" if m.unit else ""
    table.add_column(Text("method"), no_wrap=True)
    grouped = any(s.letters for s in result.standings)
    stable = not math.isnan(result.tau)
    heads = [f"{m.title} {arrow}{unit}", "average rank"]
    heads += ["group"] if grouped else []
    heads += ["best in", "place (95 %)"] if stable else []
    for head in heads:
        table.add_column(Text(head), justify="right", no_wrap=True)
    for s in result.standings:
        sd = "" if math.isnan(s.sd) else f" ± {number(s.sd, m.digits)}"
        cells = [shorten(s.method, _NAME), f"{number(s.mean, m.digits)}{sd}", f"{s.mean_rank:.2f}"]
        cells += [s.letters] if grouped else []
        low, high = s.places
        cells += [f"{100 * s.first:.0f} %", f"{low}" if low == high else f"{low} to {high}"] if stable else []
        table.add_row(*(Text(c) for c in cells))
    return table


def _pairs(result: MetricResult, pairs: Sequence[Pair], width: int) -> list[Table]:
    """Comparisons as a table, or as several below each other where they are wider than ``width``: no number is cut."""
    from rich.text import Text

    from mrbench.stats.sentences import amount

    m = result.measure
    control = result.provenance.control
    names = [shorten(p.a, _NAME) if control else f"{shorten(p.a, _NAME)} - {shorten(p.b, _NAME)}" for p in pairs]
    ends = [
        f"{amount(m, i.low, True).split()[0]} to {amount(m, i.high, True).split()[0]}" if (i := p.interval) else "n/a"
        for p in pairs
    ]
    columns = {"difference": [amount(m, p.difference, True).split()[0] for p in pairs]}
    if control and not any(math.isnan(result.change(p)) for p in pairs):
        columns["change"] = [change_text(result, p) for p in pairs]
    columns |= {
        f"{100 * (1 - result.provenance.alpha):g} % interval": ends,
        "p": [short_p(p.outcome.p) for p in pairs],
        "corrected": [short_p(p.p_adjusted) for p in pairs],
        "better": [shorten(p.better, _NAME) or "not shown" for p in pairs],
        "effect": [_effect(p) for p in pairs],
        "detectable": [amount(m, p.detectable).split()[0] for p in pairs],
    }
    if any(p.equivalence for p in pairs):
        found = [p.equivalence for p in pairs]
        columns["equivalent"] = ["n/a" if e is None else "yes" if e.equivalent else "not shown" for e in found]
    first = f"method - {shorten(control, _NAME)}" if control else "a - b"
    tables = []
    for heads in _blocks({head: _width(head, cells) for head, cells in columns.items()}, width - _width(first, names)):
        table = _table()
        table.add_column(Text(first), no_wrap=True)
        for head in heads:
            table.add_column(Text(head), justify="right", no_wrap=True)
        for row, (name, p) in enumerate(zip(names, pairs, strict=True)):
            table.add_row(Text(name, style="bold" if p.different else ""), *(Text(columns[head][row]) for head in heads))
        tables.append(table)
    return tables


def _width(head: str, cells: Sequence[str]) -> int:
    """Of a column with its gap, in characters of a terminal."""
    from rich.cells import cell_len

    return max(map(cell_len, (head, *cells))) + _GAP


def _blocks(widths: Mapping[str, int], room: int) -> list[list[str]]:
    """Columns in order, cut into blocks that fit into ``room`` (at least one a block)."""
    blocks: list[list[str]] = []
    used = 0
    for head, width in widths.items():
        if not blocks or used + width > room + _GAP:  # nothing stands behind the last gap
            blocks.append([])
            used = 0
        blocks[-1].append(head)
        used += width
    return blocks


def change_text(result: MetricResult, pair: Pair) -> str:
    """``+1.1 %`` of the mean of the second method; empty where that is 0."""
    change = result.change(pair)
    return "" if math.isnan(change) else f"{change:+.1f} %"


def _effect(pair: Pair) -> str:
    from mrbench.stats.sentences import effect_text

    words = effect_text(pair).partition(",")[0]
    short = {"matched rank-biserial r": "r", "Cohen's dz": "dz", "Cliff's delta": "delta"}
    for name, brief in short.items():
        words = words.replace(name, brief)
    return words


def short_p(p: float) -> str:
    """``0.012``, ``<1e-10``: a p value for a table."""
    from mrbench.stats.results import p_text

    return p_text(p).removeprefix("p ").removeprefix("= ").replace("< ", "<")
