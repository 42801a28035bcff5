"""Columns of ticks from what runs say about their weights; costs from what they say about themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mrbench.errors import UserError
from mrbench.report import as_html, as_latex, as_markdown, as_terminal
from mrbench.report.leaderboard import build_board
from mrbench.report.render import FORMATS, render
from mrbench.report.view import View

A = [30.0, 31, 32, 33, 34, 35]
HEADINGS = ("OOD", "ID", "TD", "ControlNet", "l_CON")


def recipe(*present: str, **options: Any) -> dict[str, Any]:
    return {
        "preset": "small",
        "seed": 0,
        "steps": 9,
        "stages": ["td"],
        "options": options,
        "factors": {h: h in present for h in HEADINGS},
    }


@pytest.fixture
def ablated(make_run):
    """The full method, two ablations, and bicubic."""
    return [
        make_run("full", {"psnr": [v + 3 for v in A]}, tier="retrained", recipe=recipe(*HEADINGS)),
        make_run("td_only", {"psnr": A}, tier="retrained", recipe=recipe("TD", "l_CON")),
        make_run("no_control", {"psnr": [v + 1 for v in A]}, tier="retrained", recipe=recipe("OOD", "ID", "TD", "l_CON")),
        make_run("bicubic", {"psnr": [v - 1 for v in A]}),
    ]


def test_ticks_as_the_recipe_names_them(ablated) -> None:
    board = build_board(ablated, view=View(ablation=True))
    assert board.factors == HEADINGS
    assert [r.name for r in board.rows] == ["bicubic", "td_only", "no_control", "full"]  # by number of ticks
    sheet = board.sheet()
    titles = [c.title for c in sheet.columns]
    ticks = {r.name: [r.cells[titles.index(h)].text for h in HEADINGS] for r in sheet.rows}
    assert ticks == {
        "bicubic": ["-"] * 5,
        "td_only": ["", "", "✓", "", "✓"],
        "no_control": ["✓", "✓", "✓", "", "✓"],
        "full": ["✓"] * 5,
    }
    assert next(r for r in board.rows if r.name == "full").cells["psnr"].mark == "best"


def test_ticks_in_every_format(ablated, check_latex) -> None:
    board = build_board(ablated, view=View(ablation=True))
    cells = check_latex(as_latex.render(board))
    assert {len(row) for row in cells} == {9}
    assert "amssymb" in as_latex.render(board).splitlines()[0]
    assert "llcccccr" in as_latex.render(board)
    assert r"\checkmark{}" in as_latex.render(board)
    assert "| full | retrained | ✓ | ✓ | ✓ | ✓ | ✓ |" in as_markdown.render(board)
    assert '<td title="yes">✓</td>' in as_html.render([board])
    assert '<td title="no"></td>' in as_html.render([board])
    assert "✓" in as_terminal.render(board)
    document = json.loads(render([board], "json"))
    assert document["rows"][1]["factors"] == {"OOD": False, "ID": False, "TD": True, "ControlNet": False, "l_CON": True}
    assert "factor_ControlNet" in render([board], "csv")
    assert "amssymb" not in as_latex.render(build_board(ablated))


def test_other_weights_show_what_differs(make_run) -> None:
    def told(stages: list[str], **options: Any) -> dict[str, Any]:
        return {"preset": "demo", "seed": 0, "steps": 1, "stages": stages, "options": {"tier": "demo", "same": 1, **options}}

    runs = [
        make_run("a", {"psnr": A}, tier="retrained", recipe=told(["pre", "main"], swin=True, net={"width": 8, "depth": 2})),
        make_run("b", {"psnr": A}, tier="retrained", recipe=told(["main"], swin=False, net={"width": 16, "depth": 2})),
    ]
    board = build_board(runs, view=View(ablation=True))
    assert board.factors == ("pre", "swin", "net.width")
    assert {r.name: dict(r.factors) for r in board.rows} == {
        "a": {"pre": True, "swin": True, "net.width": "8"},
        "b": {"pre": False, "swin": False, "net.width": "16"},
    }


def test_runs_that_say_nothing_are_refused_with_the_way_on(make_run, ablated) -> None:
    with pytest.raises(UserError, match="none of these runs says how its weights were trained"):
        build_board([make_run("a", {"psnr": A})], view=View(ablation=True))
    same = {"preset": "x", "stages": ["main"], "options": {"a": 1}}
    with pytest.raises(UserError, match="trained alike"):
        build_board([make_run(n, {"psnr": A}, recipe=same) for n in "ab"], view=View(ablation=True))


def test_hostile_headings_and_values(make_run, check_latex) -> None:
    nasty = {"factors": {"<script>&%_$x$": "</td>|`x` \\ ~", "a|b": True}}
    runs = [make_run("a", {"psnr": A}, recipe=nasty), make_run("b", {"psnr": A})]
    board = build_board(runs, view=View(ablation=True))
    assert {len(row) for row in check_latex(as_latex.render(board))} == {6}
    assert "<script>" not in as_html.render([board])
    for form in FORMATS:
        assert render([board], form)


def test_the_recipe_of_msp_sr_names_the_columns_of_its_paper() -> None:
    from mrbench_methods.msp_sr.recipe import MSPSRRecipe

    from mrbench.train.presets import read_options

    def factors(ablation: str) -> dict[str, Any]:
        made = MSPSRRecipe.__new__(MSPSRRecipe)
        made.options = read_options(MSPSRRecipe, "msp_sr", "demo", MSPSRRecipe.ablations.get(ablation, {}))
        return made.factors([s.name for s in made.stages()])

    assert factors("full") == dict.fromkeys(HEADINGS, True)
    assert factors("no_id") == {**factors("full"), "ID": False}
    assert factors("no_ood") == {**factors("full"), "OOD": False}
    assert factors("td_only") == {"OOD": False, "ID": False, "TD": True, "ControlNet": False, "l_CON": True}
    assert factors("no_control")["ControlNet"] is False
    assert factors("no_consistency")["l_CON"] is False
    assert factors("paper_consistency")["l_CON"] == "paper"


# -- what runs record -----------------------------------------------------------------------------------------------


def test_runs_record_parameters_and_recipe(mrbench, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    common = (
        "--dataset",
        "sample",
        "--scale",
        4,
        "--subset",
        1,
        "--metrics",
        "psnr",
        "--threads",
        1,
        "--images",
        "none",
        "--out",
        out,
    )
    done = mrbench("run", "--method", "bicubic", "--method", "edsr", *common)
    assert done.code == 0, done.err
    told = {m["label"]: m for p in out.rglob("manifest.json") for m in [json.loads(p.read_text())["method"]]}
    assert told["bicubic"]["parameters"] is None
    assert told["bicubic"]["recipe"] is None
    assert told["edsr"]["parameters"] > 100_000
    assert told["edsr"]["recipe"]["preset"] == "demo"
    assert told["edsr"]["recipe"]["stages"] == ["main"]
    assert "subjects" not in told["edsr"]["recipe"]
    text = mrbench("leaderboard", out).out
    assert "parameters" in text
    assert f"{told['edsr']['parameters'] / 1e6:.3f}" in text


def test_old_runs_show_a_dash_and_the_way_to_fill_it(make_run) -> None:
    runs = [
        make_run("new", {"psnr": A}, parameters=5_000_000, row={"nfe": 4}),
        make_run("old", {"psnr": A}, row={"nfe": 4}),
        make_run("bicubic", {"psnr": A}),
    ]
    board = build_board(runs)
    assert board.show_parameters
    assert {r.name: r.parameters_text for r in board.rows} == {"new": "5.00", "old": "-", "bicubic": "-"}
    assert any("parameters are not recorded for old;" in n for n in board.footnotes)


def test_memory_is_the_largest_peak_of_equal_hardware(make_run) -> None:
    def with_memory(label: str, batch: int, device: str = "cuda:0 (card)"):
        rows = {i: {"peak_memory": (i + 1) * 2.0**20} for i in range(6)}
        return make_run(label, {"psnr": A}, rows=rows, row={"device": device, "batch": batch})

    board = build_board([with_memory("a", 4), with_memory("b", 16)])
    assert board.show_memory
    assert [r.memory_text for r in board.rows] == ["6.00", "6.00"]
    assert any("batches were not alike (a: 4, b: 16)" in n for n in board.footnotes)
    assert not build_board([with_memory("a", 4), with_memory("c", 4, "cuda:0 (other)")]).show_memory
