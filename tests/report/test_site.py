"""The static site: pages, links, numbers, escaping."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import typer
from site_support import FOUR, Made, data_of, links_of, make_task, pages_of
from typer.testing import CliRunner

from mrbench.errors import UserError
from mrbench.report.leaderboard import build_board
from mrbench.report.render import render
from mrbench.report.site.build import build_site
from mrbench.report.site.options import SiteOptions, SiteReport
from mrbench.report.site.private import without_places, without_places_in
from mrbench.report.view import View
from mrbench.stats.presets import Plan
from mrbench.store.runs import load_runs

NASTY = [
    "<script>alert(1)</script>",
    "</script><img src=http://evil.example/x.png onerror=alert(1)>",
    r"a_b%c$d#e&f{g}~h^i\j--k---[l]",
    "{{ 7 * 7 }} {% raw %}",
    '" onmouseover="alert(1)" x=\'',
    "\u202eright to left\u200b",
    "very long " * 40,
    "&lt;b&gt; ]]> <!-- -->",
]
PAGES = {"index.html", "statistics.html", "items.html", "runs.html"}


def build(tmp_path: Path, **options: object) -> SiteReport:
    return build_site(load_runs([tmp_path / "runs"]), tmp_path / "site", SiteOptions(**options))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> SiteReport:
    """Four methods on twelve subjects."""
    root = tmp_path_factory.mktemp("plain")
    make_task(root / "runs", subjects=12, slices=2)
    return build(root)


# -- the folder as a whole -----------------------------------------------------------------------------------------------
def test_report_says_what_was_written(plain: SiteReport) -> None:
    files = [p for p in plain.out.rglob("*") if p.is_file() and p.name != "mrbench-site.json"]
    assert plain.files == len(files)
    assert plain.size == sum(p.stat().st_size for p in files)
    assert (plain.items, plain.pictured) == (24, 24)
    assert plain.notes == ()
    assert plain.index.is_file()
    assert set(pages_of(plain.out)) == PAGES


def test_pages_are_well_formed_and_named(plain: SiteReport) -> None:
    for name, tree in pages_of(plain.out).items():
        assert tree.faults == [], name
        assert len(set(tree.ids)) == len(tree.ids), name
        assert len(tree.all("h1")) == len(tree.all("title")) == len(tree.all("main")) == 1
        assert tree.all("html") == [{"lang": "en"}]
        assert all("alt" in a for a in tree.all("img")), name
        assert all(a.get("scope") in ("col", "row") for a in tree.all("th")), name
        assert [a["href"] for a in tree.all("a") if a.get("aria-current") == "page"] == [name]
        regions = [a for _, a in tree.elements if a.get("tabindex") == "0" and "role" in a]
        assert all(a.get("aria-label") for a in regions), name


def test_every_link_leads_to_a_file_of_the_site(plain: SiteReport) -> None:
    trees = pages_of(plain.out)
    items = {i["id"] for i in data_of(plain.out / "items.html")["items"]}
    followed = 0
    for name, tree in trees.items():
        for link in links_of(tree):
            path, _, fragment = link.partition("#")
            assert not path.startswith(("/", "..")), (name, link)
            assert (plain.out / (path or name)).is_file(), (name, link)
            if fragment and path == "items.html":
                assert parse_qs(fragment)["item"][0] in items
            elif fragment:
                assert fragment in trees[path or name].ids, (name, link)
            followed += 1
    assert followed > 60


def test_nothing_points_to_another_host(plain: SiteReport) -> None:
    for name, tree in pages_of(plain.out).items():
        for link in links_of(tree):
            assert not re.match(r"(?i)\s*([a-z][a-z0-9+.-]*:|//)", link), (name, link)
        for tag, attributes in tree.elements:
            assert "style" not in attributes
            assert not [a for a in attributes if a.startswith("on")], (name, tag)
            assert tag not in ("iframe", "object", "embed", "base", "form") or attributes.get("id") == "order"
        for script in tree.all("script"):
            assert script.get("type") == "application/json" or script["src"].startswith("assets/")
        policies = [m["content"] for m in tree.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
        assert len(policies) == 1
        assert policies[0].startswith("default-src 'none'")
        assert "http" not in policies[0]
        assert "unsafe" not in policies[0]
    for path in (plain.out / "assets").glob("*"):
        if path.suffix in (".css", ".js"):
            text = path.read_text()
            assert not re.search(r"url\(|@import|https?:|fetch\(|XMLHttpRequest|innerHTML|eval\(", text), path.name
    figures = list(plain.out.rglob("*.svg"))
    assert len(figures) > 3
    for path in figures:
        pointing = re.findall(r"""(?:href|src)\s*=\s*["']([^"']*)""", path.read_text())
        assert all(p.startswith(("#", "data:image/png")) for p in pointing), path.name


def test_equal_runs_give_equal_bytes(plain: SiteReport, tmp_path: Path) -> None:
    make_task(tmp_path / "runs", subjects=12, slices=2)
    again = build(tmp_path)
    names = sorted(p.relative_to(plain.out) for p in plain.out.rglob("*") if p.is_file())
    assert names == sorted(p.relative_to(again.out) for p in again.out.rglob("*") if p.is_file())
    assert [n for n in names if (plain.out / n).read_bytes() != (again.out / n).read_bytes()] == []


# -- numbers -------------------------------------------------------------------------------------------------------------
def test_the_leaderboard_is_the_board_of_the_other_formats(plain: SiteReport) -> None:
    board = build_board(load_runs([plain.out.parent / "runs"]), view=View(plan=Plan()))
    sheet = board.sheet()
    cells = [a for a in pages_of(plain.out)["index.html"].all("td") if "data-value" in a]
    expected = [r.cells[c.name].aggregate.mean for r in board.all_rows for c in board.columns]  # type: ignore[union-attr]
    assert [float(a["data-value"]) for a in cells] == expected
    assert all("k-draw" in a["class"] for a in cells)
    heads = [a for a in pages_of(plain.out)["index.html"].all("th") if a["scope"] == "col"]
    assert [a["data-sort"] for a in heads] == ["text", "text", "high", "high", "low", "low"]  # method, tier, metrics, seconds
    assert [a["data-about"] for a in heads[1:]] == [c.hint for c in sheet.columns]
    text = pages_of(plain.out)["index.html"].text
    for part in (
        board.size_text,
        board.legend,
        *sheet.identity,
        *sheet.footnotes,
        *sheet.sentences,
        *board.signatures.values(),
    ):
        assert part in text
    for row in sheet.rows:
        assert f"{row.name} {row.cells[0].text}" in text
        for cell in row.cells[1:]:
            assert " ".join(filter(None, [cell.text, cell.tail])) in text
    letters = [x.letters for r in sheet.rows for x in r.cells if x.letters]
    assert len(letters) == 9
    assert len(pages_of(plain.out)["index.html"].all("sup")) == 9
    assert "best" in {a.get("class") for a in pages_of(plain.out)["index.html"].all("span")}
    for name, form in (("csv", "csv"), ("tex", "latex"), ("md", "markdown"), ("json", "json")):
        assert (plain.out / f"downloads/leaderboard.{name}").read_text() == render([board], form)


def test_parameters_calls_memory_and_time_have_columns(make_run: Any, tmp_path: Path) -> None:
    scores = {"psnr": [30.0, 31.0, 29.0, 28.0, 27.0, 26.0]}
    make_run("free", scores)
    make_run("net", scores, parameters=12_300_000, row={"nfe": 4, "peak_memory": 512 * 2**20})
    made = build_site(load_runs([tmp_path / "runs"]), tmp_path / "site")
    page = pages_of(made.out)["index.html"]
    heads = [a["data-sort"] for a in page.all("th") if a["scope"] == "col"]
    assert heads == ["text", "text", "high", "low", "low", "low", "low"]  # method, tier, metric, costs
    for words in ("parameters M", "NFE", "memory MiB", "s/slice", "12.3 4 512 0.5"):
        assert words in page.text, words
    assert "- - - 0.5" in page.text  # no network: nothing to count


def test_statistics_have_diagrams_tables_and_sentences(plain: SiteReport) -> None:
    document = json.loads((plain.out / "downloads/statistics/statistics.json").read_text())
    tree = pages_of(plain.out)["statistics.html"]
    assert [r["metric"]["name"] for r in document["results"]] == ["psnr", "ssim", "gmsd"]
    for result in document["results"]:
        assert result["sentence"] in tree.text
        for pair in result["pairs"]:
            assert " ".join(pair["sentence"].split()) in tree.text
    alts = [a["alt"] for a in tree.all("img")]
    assert [a for a in alts if a.startswith("Critical-difference diagram of PSNR. Average ranks: sharp 1.00")]
    assert len([a for a in alts if a.startswith("Forest plot")]) == 3
    assert (plain.out / "figures/cd-1-1.svg").read_text().lstrip().startswith("<?xml")
    assert (plain.out / "downloads/statistics/pairs.csv").is_file()


def test_too_few_subjects_are_said_and_not_tested(tmp_path: Path) -> None:
    make_task(tmp_path / "runs")
    made = build(tmp_path)
    text = pages_of(made.out)["statistics.html"].text
    assert "2 subjects: no test (at least 3 are needed)" in text
    assert "were tested" not in text
    assert not list(made.out.glob("figures/cd-*"))


def test_one_method_alone_has_a_site_without_statistics(tmp_path: Path) -> None:
    make_task(tmp_path / "runs", [Made("alone")])
    made = build(tmp_path)
    assert "No statistics: one method alone" in pages_of(made.out)["statistics.html"].text
    assert not (made.out / "downloads/statistics").exists()


def test_items_hold_the_rows(plain: SiteReport) -> None:
    document = data_of(plain.out / "items.html")
    runs = {r.label: r for r in load_runs([plain.out.parent / "runs"])}
    assert [e["name"] for e in document["entries"]] == ["sharp", "many_draws", "bicubic", "gt"]
    assert [c["name"] for c in document["columns"]] == ["psnr", "ssim", "gmsd"]
    assert [c["up"] for c in document["columns"]] == [True, True, False]
    for item in document["items"]:
        for k, entry in enumerate(document["entries"]):
            rows = runs[entry["name"]].rows
            row = rows[rows["item_id"] == item["id"]].iloc[0]
            shown = [float("inf") if v == "inf" else v for v in item["values"][k]]
            assert shown == pytest.approx([row["psnr"], row["ssim"], row["gmsd"]], rel=1e-5)
            assert item["status"][k] == ""
    lines = (plain.out / "downloads/items-1.csv").read_text().splitlines()
    assert len(lines) == 1 + 4 * 24
    first = lines[1].split(",")
    rows = runs["sharp"].rows
    assert float(first[5]) == rows[rows["item_id"] == first[0]]["psnr"].iloc[0]


def test_failed_items_are_told_with_their_reason(tmp_path: Path) -> None:
    make_task(tmp_path / "runs", [*FOUR, Made("flaky", failed=[1, 2])], error="no luck: </script> in /home/me/x/y.py")
    made = build(tmp_path)
    document = data_of(made.out / "items.html")
    k = [e["name"] for e in document["entries"]].index("flaky")
    states = {i["id"]: i["status"][k] for i in document["items"]}
    assert states["toy/s0/vol/001"] == "failed: no luck: </script> in y.py"
    assert states["toy/s0/vol/000"] == ""
    item = next(i for i in document["items"] if i["id"] == "toy/s0/vol/001")
    assert item["values"][k] == [None, None, None]
    assert item["pictures"]["layers"][k] == []
    index = pages_of(made.out)["index.html"]
    assert "failed, and not in the means: flaky: 2 of 4." in index.text
    assert "2/4" in index.text
    assert "no luck: </script> in y.py" in pages_of(made.out)["runs.html"].text


def test_demonstration_weights_carry_a_banner_and_mark_no_winner(tmp_path: Path) -> None:
    make_task(tmp_path / "runs", [Made("bicubic"), Made("net", 2, tier="demo")])
    made = build(tmp_path)
    for name in ("index.html", "statistics.html", "items.html"):
        tree = pages_of(made.out)[name]
        assert len([a for a in tree.all("p") if a.get("class") == "banner"]) == 1
        assert "Demonstration weights: " in tree.text
    spans = {a.get("class") for a in pages_of(made.out)["index.html"].all("span")}
    assert not spans & {"best", "second"}


def test_data_sets_and_protocols_get_sections_of_their_own(tmp_path: Path) -> None:
    for dataset, protocol in (("one", "uniform-x2"), ("one", "uniform-x4"), ("two", "uniform-x4")):
        make_task(tmp_path / "runs", FOUR[:2], dataset=dataset, protocol=protocol)
    made = build(tmp_path)
    trees = pages_of(made.out)
    assert set(trees) == (PAGES - {"items.html"}) | {f"items-{i}.html" for i in (1, 2, 3)}
    for name in ("index.html", "statistics.html", "runs.html"):
        assert {"task-1", "task-2", "task-3"} <= set(trees[name].ids)
    assert "Items of one, uniform-x2" in trees["items-1.html"].text
    assert [e["id"].split("/")[0] for e in data_of(made.out / "items-3.html")["items"]] == ["two"] * 4
    for tree in trees.values():
        assert tree.faults == []
        assert all((made.out / (link.partition("#")[0] or "index.html")).is_file() for link in links_of(tree))


def test_chosen_columns_alone_are_shown(tmp_path: Path) -> None:
    make_task(tmp_path / "runs", FOUR)
    made = build(tmp_path, metrics=("gmsd",), title="A title of <mine>")
    assert [c["name"] for c in data_of(made.out / "items.html")["columns"]] == ["gmsd"]
    assert "SSIM" not in pages_of(made.out)["index.html"].text
    assert all("A title of <mine>" in t.text for t in pages_of(made.out).values())


def test_intervals_stand_in_for_sd_on_request(tmp_path: Path) -> None:
    make_task(tmp_path / "runs", FOUR[:3], subjects=12)
    board = build_board(load_runs([tmp_path / "runs"]), view=View(level=0.95))
    text = pages_of(build(tmp_path, ci=True).out)["index.html"].text
    assert board.size_text in text
    for row in board.rows:
        assert row.cells["psnr"].interval_text(board.columns[0]) in text


def test_quality_against_time_is_drawn_where_times_compare(plain: SiteReport) -> None:
    tree = pages_of(plain.out)["index.html"]
    alts = [a["alt"] for a in tree.all("img")]
    assert [a for a in alts if a.startswith("Mean psnr against seconds per slice: bicubic 0.100 s and ")]
    assert (plain.out / "figures/pareto-1.svg").is_file()


def test_a_control_is_what_all_are_tested_against(tmp_path: Path) -> None:
    make_task(tmp_path / "runs", FOUR, subjects=8)
    pages = pages_of(build(tmp_path, control="bicubic").out)
    assert "not shown to differ from bicubic" in pages["index.html"].text
    heads = [a for a in pages["index.html"].all("th") if a["scope"] == "col"]
    assert [a["data-sort"] for a in heads][2:8] == ["high", "number", "high", "number", "low", "number"]
    assert [a["class"] for a in heads][2] == [a["class"] for a in heads][3] == "k-draw "  # hidden together
    assert re.search(r"a - b change 95 % interval .*sharp bicubic \+[\d.]+ dB \+[\d.]+ %", pages["statistics.html"].text)
    with pytest.raises(UserError, match="no run is called 'bicubik'"):
        build(tmp_path, control="bicubik")


def test_runs_without_a_metric_still_have_pages(tmp_path: Path) -> None:
    make_task(tmp_path / "runs", FOUR, columns=[])
    made = build(tmp_path)
    assert "No statistics: no column of the board ranks methods" in pages_of(made.out)["statistics.html"].text
    assert data_of(made.out / "items.html")["main"] == -1


def test_runs_that_cannot_be_compared_leave_nothing_behind(tmp_path: Path) -> None:
    make_task(tmp_path / "runs", [Made("demo", tier="demo"), Made("official", tier="official")])
    with pytest.raises(UserError, match="do not stand beside"):
        build(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["runs"]
    with pytest.raises(UserError, match="no runs to report on"):
        build_site([], tmp_path / "site")


# -- what runs say is text -----------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def tame(tmp_path_factory: pytest.TempPathFactory) -> SiteReport:
    """What the hostile sites are compared with."""
    root = tmp_path_factory.mktemp("tame")
    make_task(root / "runs", [Made("bicubic"), Made("b", 1.0, draws=2, options={"b": "b"}), Made("c", 0.5, failed=[0])])
    return build(root)


@pytest.mark.parametrize("name", NASTY)
def test_hostile_names_stay_text(tame: SiteReport, tmp_path: Path, name: str) -> None:
    methods = [Made("bicubic"), Made(name, 1.0, draws=2, options={name: name}), Made("c", 0.5, failed=[0])]
    make_task(tmp_path / "runs", methods, error=name)
    made = build(tmp_path, title=name)
    literal = " ".join("".join(" " if c in "\u202e\u200b" else c for c in name).split())
    for page, tree in pages_of(made.out).items():
        assert tree.faults == []
        assert [tag for tag, _ in tree.elements] == [tag for tag, _ in pages_of(tame.out)[page].elements], page
        assert literal in tree.text
        assert not [a for _, a in tree.elements if any(k.startswith("on") for k in a)]
    document = data_of(made.out / "items.html")
    assert literal in [e["name"] for e in document["entries"]]
    assert [i["status"][-1] for i in document["items"] if any(i["status"])] == [f"failed: {without_places(literal)}"]


def test_long_names_keep_their_ends_in_no_page(tmp_path: Path) -> None:
    make_task(tmp_path / "runs", [Made("x" * 5000), Made("y")])
    assert "x" * 5000 in pages_of(build(tmp_path).out)["index.html"].text


# -- nothing about the maker's disk ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/home/me/data/file.npz", "file.npz"),
        ("~/data/weights", "weights"),
        (r"C:\Users\me\w.pt", "w.pt"),
        ("reads /home/me/data/file.npz: damaged", "reads file.npz: damaged"),
        ("path=/home/me/data, k=1", "path=data, k=1"),
        ("'/opt/x/y.py', line 3", "'y.py', line 3"),
        ("hf://org/repo@abc/file", "hf://org/repo@abc/file"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("GMSD|c:170/255^2|sum(x-y)^2/sum(x^2)|prewitt/3", "GMSD|c:170/255^2|sum(x-y)^2/sum(x^2)|prewitt/3"),
        ("sample/colin27/colin27_t1/086", "sample/colin27/colin27_t1/086"),
        ("and/or", "and/or"),
        ("spread/skill|sqrt((K+1)/K*mean(s^2))/rmse(mean)", "spread/skill|sqrt((K+1)/K*mean(s^2))/rmse(mean)"),
        ("", ""),
        ("/", "/"),
    ],
)
def test_places_are_cut_to_their_last_part(text: str, told: str) -> None:
    assert without_places(text) == told
    assert without_places_in({"a": [text, 1, None]}) == {"a": [told, 1, None]}


def test_no_file_tells_where_the_runs_lie(tmp_path: Path) -> None:
    methods = [Made("bicubic", options={"path": "/home/someone/w.pt"}), Made("b", failed=[0])]
    make_task(tmp_path / "runs", methods, error="FileNotFoundError: /home/someone/private/file.py")
    made = build(tmp_path)
    for path in made.out.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"someone" not in content, path
            assert str(tmp_path).encode() not in content, path


# -- the command -----------------------------------------------------------------------------------------------------------
def call(*arguments: object) -> tuple[int, str]:
    from mrbench.cli.report import report

    app = typer.Typer()
    app.command()(report)
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    return done.exit_code, done.output


def test_the_command_prints_the_page_to_open(tmp_path: Path) -> None:
    make_task(tmp_path / "runs", redistribution="figures", subjects=7)
    code, out = call(tmp_path / "runs", "--out", tmp_path / "site", "--title", "Mine")
    assert code == 0
    assert f"{tmp_path / 'site' / 'index.html'} (" in out
    assert "pictures of 12 of 14 items" in out
    assert "note: figures only: toy allows figures" in out
    code, out = call(tmp_path / "runs", "-o", tmp_path / "site", "--json", "--no-pictures", "--over", "subjects")
    document = json.loads(out)
    assert (code, document["items"], document["items_with_pictures"]) == (0, 14, 0)
    assert document["index"] == str(tmp_path / "site" / "index.html")
    assert "means of 7 subjects" in pages_of(tmp_path / "site")["index.html"].text


def test_making_a_site_never_loads_torch(tmp_path: Path) -> None:
    make_task(tmp_path / "runs")
    code = f"""
import sys
from pathlib import Path
from mrbench.report.site.build import build_site
assert not {{"torch", "pandas", "matplotlib", "scipy", "jinja2", "PIL"}} & set(sys.modules)
from mrbench.store.runs import load_runs
build_site(load_runs([Path({str(tmp_path / "runs")!r})]), Path({str(tmp_path / "site")!r}))
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert (tmp_path / "site" / "index.html").is_file()
