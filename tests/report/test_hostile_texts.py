"""Names, notes and labels that try to break a format, on boards with everything switched on."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt
from rich.cells import cell_len

from mrbench.report import as_csv, as_html, as_latex, as_markdown, as_terminal
from mrbench.report.leaderboard import build_board
from mrbench.report.view import View
from mrbench.report.wide import build_wide, tasks_of
from mrbench.stats.presets import Plan

SUBJECTS = {f"s{i}": 1 for i in range(6)}
A = [30.0, 31, 32, 33, 34, 35]
NASTY = [
    "<script>alert(1)</script>",
    r"a_b%c$d#e&f{g}~h^i\j--k---[l]\\ ‡†✓",
    "pipe|pipe||`code` *star* _under_ [link](http://x.y) ![i](j)",
    "two\nlines\r\n\tand tab",
    "=cmd()|' /C calc'!A0",
    "\u202eright to left\u200b 名前",
    "very long " * 60,
    "longwithoutspaces" * 40,
    "\"><img src=x onerror='alert(1)'> &amp; \\end{tabular} \\input{/etc/passwd}",
]


@pytest.fixture(params=range(len(NASTY)))
def text(request) -> str:
    """A hostile text."""
    return NASTY[request.param]


@pytest.fixture
def boards(make_run, text):
    """A board of one task and a wide one, hostile in every text that they show."""
    recipe = {"factors": {text: text, "plain": True}}

    def entry(label: str, gain: float, dataset: str, **more):
        return make_run(
            label, {"psnr": [v + gain for v in A], "ssim": A}, subjects=SUBJECTS, method=label, dataset=dataset, folder=f"{dataset}{gain}",
            row={"warning": text, "nfe": 3, "peak_memory": 1e9}, warnings=[text], parameters=10**7, recipe=recipe, **more,
        )  # fmt: skip

    runs = [entry(n, g, d) for d in ("d1", "d2") for g, n in ((0, "plain"), (1, text), (2, "third"))]
    view = View(
        plan=Plan(resamples=100), level=0.95, ablation=True, heading=text, labels={"third": f"label {text}", "psnr": text}
    )
    groups = tasks_of(runs)
    groups = [groups[0], type(groups[0])(text, groups[1].runs)]
    return build_board(runs[:3], view=view), build_wide(groups, view, costs=True)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.spans: list[int] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in ("meta", "br", "hr"):
            self.open.append(tag)
        if tag == "tr":
            self.spans.append(0)
        if tag in ("td", "th"):
            self.spans[-1] += int(dict(attrs).get("colspan") or 1)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag


def test_html(boards) -> None:
    for board in boards:
        page = _Page()
        page.feed(as_html.render([board]))
        page.close()
        assert page.open == []
        assert set(page.spans) == {1 + len(board.sheet().columns)}
        assert not set(page.tags) & {"script", "img", "a", "iframe", "input"}
        assert page.attributes <= {"lang", "charset", "http-equiv", "content", "name", "class", "title", "scope", "colspan"}


def test_latex(boards, check_latex) -> None:
    for board in boards:
        text = as_latex.render(board)
        sheet = board.sheet()
        align = re.search(r"\\begin\{tabular\}\{([lcr]+)\}", text)
        assert align
        assert len(align[1]) == 1 + len(sheet.columns)
        for row in check_latex(text):
            spans = [int(m[1]) if (m := re.match(r"\s*\\multicolumn\{(\d+)\}", cell)) else 1 for cell in row]
            assert sum(spans) == len(align[1])
        ends = [tuple(map(int, r)) for r in re.findall(r"\\cmidrule\(lr\)\{(\d+)-(\d+)\}", text)]
        assert len(ends) == len(sheet.groups)
        assert all(2 <= a <= b <= len(align[1]) for a, b in ends)


def test_markdown(boards) -> None:
    for board in boards:
        page = _Page()
        page.feed(MarkdownIt("commonmark", {"html": True}).enable("table").render(as_markdown.render(board)))
        page.close()
        assert page.open == []
        assert set(page.spans) == {1 + len(board.sheet().columns)}
        assert set(page.tags) <= {
            "h3", "p", "table", "thead", "tbody", "tr", "th", "td", "strong", "u", "sup", "em", "ul", "li", "code", "blockquote",
        }  # fmt: skip


def test_terminal(boards) -> None:
    for board in boards:
        text = as_terminal.render(board, 110)
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert max(cell_len(line) for line in text.splitlines()) <= 110


def test_csv_and_json(boards, text) -> None:
    from mrbench.report.render import render

    for board in boards:
        rows = list(csv.reader(io.StringIO(as_csv.render([board]))))
        assert {len(r) for r in rows} == {len(rows[0])}
        assert not any(re.match(r"[=+@\t\r]|-\D", cell) for row in rows for cell in row)
        document = json.loads(render([board], "json"))
        names = [r["method"] for r in (document["groups"][0] if "groups" in document else document)["rows"]]
        assert len(names) == 3


def test_the_command_writes_them_all(boards, mrbench, tmp_path) -> None:
    for ending in ("txt", "md", "tex", "html", "csv", "json"):
        done = mrbench(
            "leaderboard", tmp_path / "runs", "--overall", "--ablation", "--significance", "--out", tmp_path / f"table.{ending}"
        )
        assert done.code == 0, done.err
        assert (tmp_path / f"table.{ending}").stat().st_size > 500
