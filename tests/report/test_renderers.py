"""All formats of a board, with names that try to break them."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt
from rich.cells import cell_len
from rich.console import Console

from mrbench.errors import UserError
from mrbench.report import as_csv, as_html, as_latex, as_markdown, as_terminal
from mrbench.report.as_json import document
from mrbench.report.leaderboard import build_board
from mrbench.report.render import FORMATS, format_of, render
from mrbench.report.text import clean, mean_and_sd, number, shorten, significant
from mrbench.report.view import View
from mrbench.stats.presets import Plan

A = [30.0, 31, 32, 33, 34, 35]
B = [29.0, 30, 31, 32, 33, 34]
NASTY = [
    "<script>alert(1)</script>",
    r"a_b%c$d#e&f{g}~h^i\j--k---[l]\\",
    "pipe|pipe||`code` *star* _under_ [link](http://x.y) ![i](j)",
    "two\nlines\r\n\tand tab",
    "[red]markup[/red] :smile: [link=http://x]y[/link]",
    "=cmd()|' /C calc'!A0",
    "+1-2",
    "@SUM(A1)",
    "\u202eright to left\u200b",
    "名前 with ω and 日本語",
    "very long " * 40,
    "# heading",
    "&lt;b&gt; &amp; \"quoted\" 'single'",
]


@pytest.fixture
def plain(make_run):
    """Two methods and a control with several columns, one unavailable, one failed item."""
    columns = {"psnr": A, "ssim": [v / 100 for v in A], "gmsd": [v / 1000 for v in A], "nmse": [v / 1e7 for v in A]}
    worse = {k: [v - 1 if k in ("psnr",) else v * 0.9 for v in values] for k, values in columns.items()}
    return build_board(
        [
            make_run("dps", columns, method="dps_method", tier="retrained", row={"nfe": 1000}),
            make_run("bicubic", worse),
            make_run("flaky", worse, status={0: ("failed", "boom")}),
            make_run("gt", {"psnr": [float("inf")] * 6}, control=True),
        ]
    )


@pytest.fixture(params=range(len(NASTY)))
def nasty(make_run, request):
    """A board on which one method has a hostile name."""
    label = NASTY[request.param]
    return build_board(
        [
            make_run(label, {"psnr": A, "ssim": A}, method=label, folder="x", row={"warning": label}, warnings=[label]),
            make_run("b", {"psnr": B, "ssim": B}, folder="y"),
            make_run("c", {"psnr": B}, unavailable={"ssim": label}, folder="z"),
        ]
    )


# -- terminal ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [60, 80, 100, 240])
def test_terminal_tables_fit_the_width_and_repeat_the_method(make_run, width) -> None:
    names = ["psnr", "psnr_fg", "ssim", "gmsd", "nmse", "haarpsi", "lpips_alex", "lpips_vgg", "data_consistency"]
    runs = [make_run(n, {c: v for c in names}, row={"nfe": 10}) for n, v in (("first_method", A), ("second_method", B))]
    text = as_terminal.render(build_board(runs), width)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    heads = [line for line in text.splitlines() if line.startswith("method")]
    rows = [line for line in text.splitlines() if line.startswith("first_method")]
    assert len(heads) == len(rows)
    assert (len(heads) == 1) == (width == 240)
    for title in (
        "PSNR ↑",
        "PSNR fg ↑",
        "SSIM ↑",
        "GMSD ↓",
        "NMSE ↓",
        "HaarPSI ↑",
        "LPIPS-alex ↓",
        "LPIPS-vgg ↓",
        "DC ↓",
        "NFE",
        "s/slice",
    ):
        assert title in text
    assert text.count("[dB]") == 2


def test_terminal_marks_with_styles_or_with_signs(plain) -> None:
    text = as_terminal.render(plain)
    assert "*32.50 ± 1.87" in text
    assert "_31.50 ± 1.87" in text
    assert "best *, second _" in text
    stream = io.StringIO()
    Console(file=stream, width=200, force_terminal=True, color_system="standard").print(as_terminal.BoardView(plain))
    assert "\x1b[1m32.50 ± 1.87\x1b[0m" in stream.getvalue()
    assert "\x1b[4m31.50 ± 1.87\x1b[0m" in stream.getvalue()
    assert "best bold, second underlined" in stream.getvalue()


def test_the_terminal_shows_everything_that_belongs_to_a_board(plain) -> None:
    text = as_terminal.render(plain, 160)
    for part in (
        "toy, uniform-x4: mean ± sd over 6 slices of 2 subjects",
        "protocol uniform-x4 aaaa000011112222; data set toy version 1; task task0001",
        "retrained",
        "5/6",
        "gt (control)",
        "n/a",
        "1000",
        "psnr: PSNR|L:1|mrbench:1",
        "failed, and not in the means: flaky: 1 of 6",
    ):
        assert part in text
    lines = text.splitlines()
    order = [next(i for i, line in enumerate(lines) if line.startswith(n)) for n in ("dps", "bicubic", "flaky", "gt (control)")]
    assert order == sorted(order)


def test_the_terminal_prints_names_literally(nasty) -> None:
    text = as_terminal.render(nasty)
    assert max(cell_len(line) for line in text.splitlines()) <= 100
    name = shorten(next(r.name for r in nasty.rows if r.name not in "bc"), 32)
    assert name in text
    assert "\x1b" not in text


# -- markdown ---------------------------------------------------------------------------------------------------


class _Page(HTMLParser):
    """Cells, tags and attributes of a page; complains about tags that do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.rows: list[list[str]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in ("meta", "br", "hr", "img", "link"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.text += data
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data


def page(html: str) -> _Page:
    parsed = _Page()
    parsed.feed(html)
    parsed.close()
    assert parsed.open == []
    return parsed


def test_markdown_marks(plain) -> None:
    text = as_markdown.render(plain)
    assert "**32.50 ± 1.87**" in text
    assert "<u>31.50 ± 1.87</u>" in text
    assert "PSNR ↑ (dB)" in text
    assert "`PSNR|L:1|mrbench:1`" in text


def test_markdown_survives_any_name(nasty) -> None:
    parsed = page(MarkdownIt("commonmark", {"html": True}).enable("table").render(as_markdown.render(nasty)))
    assert {len(r) for r in parsed.rows} == {5}
    shown = {r.name: shorten(r.name, 80) for r in nasty.all_rows}
    assert {r[0] for r in parsed.rows[1:]} == set(shown.values())
    assert parsed.tags <= {
        "h3", "p", "table", "thead", "tbody", "tr", "th", "td", "strong", "u", "em", "ul", "li", "code", "blockquote",
    }  # fmt: skip
    assert clean(nasty.warnings[0]) in parsed.text


# -- html -------------------------------------------------------------------------------------------------------


def test_html_survives_any_name_and_requests_nothing(nasty) -> None:
    html = render([nasty, nasty], "html")
    parsed = page(html)
    assert "script" not in parsed.tags
    assert not {name for name, _ in parsed.attributes} & {
        "src",
        "href",
        "srcset",
        "onload",
        "onclick",
        "style",
        "data",
        "action",
    }
    assert not re.search(r"url\(|@import", html)
    names = {r[0] for r in parsed.rows[1:]} - {"method"}
    assert names == {r.name for r in nasty.all_rows}
    assert html.count("<section>") == 2
    assert clean(nasty.warnings[0]) in parsed.text


def test_html_marks_and_reasons(plain) -> None:
    html = as_html.render([plain])
    assert '<span class="best">32.50</span> <span class="sd">± 1.87</span>' in html
    assert '<span class="second">31.50</span>' in html
    assert 'class="na" title="not computed' in html
    assert "aaaa000011112222" in html
    assert "PSNR|L:1|mrbench:1" in html


def test_html_escapes_quotes_in_attributes() -> None:
    assert as_html.escape("\"><img src=x onerror='a'>") == "&quot;&gt;&lt;img src=x onerror=&#x27;a&#x27;&gt;"


# -- latex ------------------------------------------------------------------------------------------------------


def test_latex_survives_any_name(nasty, check_latex) -> None:
    cells = check_latex(as_latex.render(nasty))
    assert {len(row) for row in cells} == {5}
    assert len(cells) == 4


def test_latex_marks_and_rules(plain, check_latex) -> None:
    text = as_latex.render(plain)
    cells = check_latex(text)
    assert {len(row) for row in cells} == {9}
    assert r"\textbf{32.50} $\pm$ 1.87" in text
    assert r"\underline{31.50} $\pm$ 1.87" in text
    assert r"\textit{gt} (control)" in text
    assert r"30.50 $\pm$" not in text
    assert r"\dag{}" in text
    assert text.count(r"\midrule") == 2
    assert r"PSNR $\uparrow$ (dB)" in text
    assert "psnr: PSNR" in text


def test_latex_escapes_each_special_character() -> None:
    assert as_latex.escape(r"\{}$&#%_^~") == (
        r"{\textbackslash}{\textbraceleft}{\textbraceright}\$\&\#\%\_{\textasciicircum}{\textasciitilde}"
    )
    assert as_latex.escape("a--b---c") == "a-{}-b-{}-{}-c"
    assert as_latex.escape("日é") == "?é"


def test_latex_notes_that_fill_a_page_stand_behind_the_float(make_run, check_latex) -> None:
    scores = {m: [20.0 + i for i in range(12)] for m in ("psnr", "psnr_fg", "ssim", "gmsd", "nmse", "haarpsi")}
    people = {f"s{i}": 1 for i in range(12)}
    runs = [
        make_run(n, {m: [x + k * (i % 3) for i, x in enumerate(v)] for m, v in scores.items()}, subjects=people)
        for k, n in enumerate(("a", "b", "c"))
    ]
    few, many = build_board(runs), build_board(runs, view=View(plan=Plan(resamples=200)))
    for board, inside in ((few, True), (many, False)):
        text = as_latex.render(board)
        check_latex(text)
        assert (text.index("psnr: PSNR") < text.index(r"\end{table}")) == inside


def test_latex_signatures_may_go_over_several_lines() -> None:
    assert as_latex.breakable("SSIM|K:0.01,0.03|x, y") == (
        r"SSIM{\textbar}\allowbreak{}K:0.01,\allowbreak{}0.03{\textbar}\allowbreak{}x, y"
    )


# -- csv and json -----------------------------------------------------------------------------------------------


def test_csv_keeps_full_precision(make_run) -> None:
    values = [1 / 3, 2 / 7, 1e-17, 12345.678901234567, 0.1 + 0.2, 5.0]
    board = build_board([make_run("a", {"nmse": values}), make_run("b", {"psnr": A, "nmse": values}, tier="official")])
    rows = list(csv.DictReader(io.StringIO(as_csv.render([board]))))
    by_name = {r["method"]: r for r in rows}
    assert float(by_name["a"]["nmse_mean"]) == board.rows[0].cells["nmse"].aggregate.mean
    assert float(by_name["a"]["nmse_sd"]) == board.rows[0].cells["nmse"].aggregate.sd
    assert by_name["b"]["psnr_signature"] == "PSNR|L:1|mrbench:1"
    assert (by_name["a"]["psnr_mean"], by_name["a"]["psnr_n"]) == ("", "0")
    assert by_name["b"]["tier"] == "official"
    assert by_name["b"]["protocol_hash"] == "aaaa000011112222"


def test_csv_survives_any_name(nasty) -> None:
    text = as_csv.render([nasty])
    rows = list(csv.reader(io.StringIO(text)))
    assert len(rows) == 4
    assert {len(r) for r in rows} == {len(rows[0])}
    for row in rows[1:]:
        for cell in row:
            assert not re.match(r"[=+@\t\r]|-\D", cell)
    names = {r[rows[0].index("method")].removeprefix("'") for r in rows[1:]}
    assert names == {r.name for r in nasty.all_rows}


def test_csv_of_several_boards_leaves_absent_columns_empty(make_run) -> None:
    boards = [build_board([make_run("a", {"psnr": A})]), build_board([make_run("a", {"ssim": A}, dataset="other")])]
    rows = list(csv.DictReader(io.StringIO(as_csv.render(boards))))
    assert [(r["dataset"], bool(r["psnr_mean"]), bool(r["ssim_mean"])) for r in rows] == [
        ("toy", True, False),
        ("other", False, True),
    ]


def test_json_has_the_documented_shape(plain) -> None:
    d = json.loads(render([plain], "json"))
    assert d == json.loads(json.dumps(document(plain)))
    assert (d["protocol"], d["protocol_hash"], d["dataset"], d["task_hash"]) == (
        "uniform-x4",
        "aaaa000011112222",
        "toy",
        "task0001",
    )
    assert (d["n_items"], d["n_subjects"]) == (6, 2)
    row = d["rows"][0]
    assert (row["method"], row["method_name"], row["label"], row["tier"], row["control"]) == (
        "dps",
        "dps_method",
        "dps",
        "retrained",
        False,
    )
    assert row["psnr"] == {"mean": 32.5, "sd": pytest.approx(1.8708286933869707), "n": 6}
    assert [r["method"] for r in d["rows"]] == ["dps", "bicubic", "flaky", "gt"]
    assert d["rows"][-1]["control"] is True
    assert "ssim" not in d["rows"][-1]
    assert set(d["rows"][-1]["unavailable"]) == {"ssim", "gmsd", "nmse"}
    assert d["rows"][-1]["psnr"] == {"mean": 100.0, "sd": 0.0, "n": 6, "inf": 6}
    assert d["marks"]["psnr"] == {"best": ["dps"], "second": ["bicubic"]}
    assert d["signatures"]["psnr"] == "PSNR|L:1|mrbench:1"
    assert any("failed" in n for n in d["footnotes"])


def test_json_of_several_boards_is_a_list_and_survives_any_name(nasty) -> None:
    d = json.loads(render([nasty, nasty], "json"))
    assert [{r["method"] for r in one["rows"]} for one in d] == [{r.name for r in nasty.all_rows}] * 2


# -- all formats ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_carries_banner_and_data_set_warnings(make_run, form) -> None:
    board = build_board([make_run("a", {"psnr": A}, tier="demo", warnings=["no subject ids"]), make_run("b", {"psnr": B})])
    text = render([board], form)
    assert "demonstration weights: this table ranks nothing" in text.lower()
    assert "**3" not in text
    assert r"\textbf{3" not in text
    assert 'class="best"' not in text
    assert "*3" not in text
    if form != "csv":
        assert "no subject ids" in text
        assert "aaaa000011112222" in text
        assert "PSNR" in text


def test_unknown_formats_and_endings_are_refused(plain) -> None:
    with pytest.raises(UserError, match="Did you mean 'markdown'"):
        render([plain], "markdwon")
    assert [format_of(n) for n in ("a.md", "b.TEX", "c.html", "d.csv", "e.json", "f.txt")] == [
        "markdown", "latex", "html", "csv", "json", "terminal",
    ]  # fmt: skip
    with pytest.raises(UserError, match="Known endings"):
        format_of("table.xlsx")


# -- text -------------------------------------------------------------------------------------------------------


def test_numbers() -> None:
    assert number(28.125, 2) == "28.12"
    assert number(0.0000123, 4) == "1.2e-05"
    assert number(0.0, 4) == "0.0000"
    assert number(-0.5, 1) == "-0.5"
    assert number(float("inf"), 2) == "inf"
    assert mean_and_sd(1.0, None, 2) == ("1.00", None)
    assert [significant(v) for v in (0.0, 0.012345, 1.2345, 12.345, 1234.5, 0.9996)] == [
        "0",
        "0.0123",
        "1.23",
        "12.3",
        "1230",
        "1.000",
    ]


def test_clean_and_shorten() -> None:
    assert clean("a\n\tb\x1b[31m\u202e c\ud800") == "a b [31m c"
    assert shorten("abcdefghij", 10) == "abcdefghij"
    assert shorten("abcdefghijk", 10) == "abcdef…ijk"
    assert len(shorten("x" * 500, 32)) == 32
