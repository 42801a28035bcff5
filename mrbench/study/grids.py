"""The tables of a study as grids of text, which every format prints in its own way."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mrbench.report.text import clean, mean_and_sd, number, shorten
from mrbench.study.analysis import DIGITS
from mrbench.study.results import CriterionResult, Mark, Score, StudyResult
from mrbench.study.words import agreed_text, ends, share_text

_NAME = 32
_MOST_READERS = 6  # whose means stand in the table of a criterion


@dataclass(frozen=True)
class Cell:
    """A text, the mark of its first ``marked`` characters, and letters to raise behind it. ``control``: set apart."""

    text: str
    mark: Mark = ""
    marked: int = 0
    letters: str = ""
    control: bool = False


@dataclass(frozen=True)
class Grid:
    """A table. ``left``: how many of its first columns hold text; the others hold numbers."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    left: int = 1


def scores_grid(result: StudyResult) -> Grid:
    """Methods by criteria: ``4.14 ± 0.77 [3.93, 4.35]`` with the BCa interval."""
    rows = []
    for m, score in enumerate(result.criteria[0].scores):
        cells = [_name(score)]
        for found in result.criteria:
            s = found.scores[m]
            mean, text = _mean(s)
            inside = f" [{number(s.bca.low, DIGITS)}, {number(s.bca.high, DIGITS)}]" if s.bca else ""
            cells.append(Cell(text + inside, s.mark, len(mean), s.letters))
        rows.append(tuple(cells))
    heads = tuple(f"{clean(c.criterion)} ↑" for c in result.criteria)
    return Grid("Mean ratings", ("method", *heads), tuple(rows))


def criterion_grid(result: StudyResult, found: CriterionResult) -> Grid:
    """One criterion in full: both intervals, n, the means of each reader, the average rank."""
    ranks = {s.method: s.mean_rank for s in found.test.standings}
    level = f"{100 * result.level:g} %"
    shown = result.readers[:_MOST_READERS] if len(result.readers) > 1 else ()
    heads = ["method", "mean ± sd", f"{level} BCa", f"{level} percentile", "n"]
    heads += [shorten(clean(r.name), 12) for r in shown]
    tested = any(s.letters for s in found.scores)
    ranked = len(ranks) > 1
    heads += (["average rank"] if ranked else []) + (["group"] if tested else [])
    rows = []
    for s in found.scores:
        mean, text = _mean(s)
        cells = [_name(s), Cell(text, s.mark, len(mean)), Cell(ends(s.bca)), Cell(ends(s.percentile)), Cell(str(s.n))]
        cells += [Cell("n/a" if math.isnan(x) else number(x, DIGITS)) for x in s.by_reader[: len(shown)]]
        cells += [Cell(f"{ranks[s.method]:.2f}" if s.method in ranks else "")] if ranked else []
        cells += [Cell(s.letters)] if tested else []
        rows.append(tuple(cells))
    return Grid(clean(found.criterion), tuple(heads), tuple(rows))


def agreement_grid(result: StudyResult) -> Grid | None:
    """Between all readers, a line per criterion; ``None`` for one reader."""
    if len(result.readers) < 2:
        return None
    several = len(result.readers) > 2
    heads = ("criterion", "n", "ICC(2,1)", "ICC(2,k)", "ordinal alpha", *(["mean quadratic kappa"] if several else []))
    rows = []
    for found in result.criteria:
        a = found.agreement
        texts = [clean(found.criterion), f"{a.icc_single.n}", agreed_text(a.icc_single), agreed_text(a.icc_mean)]
        texts += [agreed_text(a.alpha), *([_plain(a.mean_quadratic)] if several else [])]
        rows.append(tuple(Cell(t) for t in texts))
    return Grid("Agreement between readers", heads, tuple(rows))


def pairs_grid(result: StudyResult) -> Grid | None:
    """Every two readers, under every criterion; ``None`` for fewer than two readers."""
    if len(result.readers) < 2:
        return None
    heads = ("criterion", "reader", "reader", "n", "equal", "within one", "linear kappa", "quadratic kappa")
    rows = []
    for found in result.criteria:
        for p in found.agreement.pairs:
            names = [shorten(clean(n), 20) for n in (p.first, p.second)]
            texts = [clean(found.criterion), *names, str(p.n), share_text(p.exact), share_text(p.within_one)]
            rows.append(tuple(Cell(t) for t in [*texts, agreed_text(p.linear), agreed_text(p.quadratic)]))
    return Grid("Readers in pairs", heads, tuple(rows), left=3)


def within_grid(result: StudyResult) -> Grid | None:
    """Readers against themselves, on images that came twice; ``None`` where none did."""
    if not result.repeats:
        return None
    heads = ("criterion", "reader", "n", "equal", "within one", "mean difference", "quadratic kappa")
    rows = []
    for found in result.criteria:
        for w in found.within:
            texts = [clean(found.criterion), shorten(clean(w.reader), 20), str(w.n), share_text(w.exact)]
            texts += [share_text(w.within_one), _plain(w.difference) if w.n else "n/a", agreed_text(w.quadratic)]
            rows.append(tuple(Cell(t) for t in texts))
    return Grid("Agreement of readers with themselves", heads, tuple(rows), left=2)


def readers_grid(result: StudyResult) -> Grid:
    """Who rated how much, and when."""
    heads = ("reader", "ratings", "changed", "first", "last")
    rows = [
        (
            Cell(shorten(clean(r.name), _NAME)),
            Cell(f"{r.rated} of {r.expected}" + ("" if r.complete else " (not finished)")),
            Cell(str(r.changed)),
            Cell(clean(r.first[:16].replace("T", " "))),
            Cell(clean(r.last[:16].replace("T", " "))),
        )
        for r in result.readers
    ]
    return Grid("Readers", heads, tuple(rows))


def legend(result: StudyResult, best: str, second: str, letters: bool = True) -> str:
    """How to read marks and letters."""
    parts = ["↑ higher is better"]
    if not result.banner:
        parts.append(f"best {best}, second {second} (by unrounded means)")
    if letters and any(s.letters for c in result.criteria for s in c.scores):
        parts.append("methods that share a letter were not shown to differ")
    return "; ".join(parts)


def _name(score: Score) -> Cell:
    return Cell(shorten(clean(score.method), _NAME) + (" (control)" if score.control else ""), control=score.control)


def _mean(score: Score) -> tuple[str, str]:
    if not score.n:
        return "n/a", "n/a"
    mean, sd = mean_and_sd(score.mean, None if math.isnan(score.sd) else score.sd, DIGITS)
    return mean, mean + (f" ± {sd}" if sd is not None else "")


def _plain(value: float) -> str:
    return "not defined" if math.isnan(value) else number(value, 2)
