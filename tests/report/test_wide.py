"""Column groups, mean ranks and board files."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from mrbench.errors import UserError
from mrbench.report.board_file import read_board_file
from mrbench.report.render import FORMATS, render
from mrbench.report.sheet import Sheet
from mrbench.report.view import View
from mrbench.report.wide import build_wide, mean_ranks, tasks_of

OTHER = "bbbb000011112222"
MEANS = {
    "toy": {"a": 30.0, "b": 31.0, "c": 29.0},
    "brain": {"a": 33.0, "b": 32.0, "c": 32.0},
    "knee": {"a": 27.0, "b": 28.0, "c": 26.0},
}


def values(mean: float) -> list[float]:
    return [mean + d for d in (-1.0, -0.5, 0.0, 0.0, 0.5, 1.0)]


@pytest.fixture
def three(make_run):
    """Three data sets under one protocol, three methods."""
    return [make_run(m, {"psnr": values(v)}, dataset=d) for d, means in MEANS.items() for m, v in means.items()]


def cell(sheet: Sheet, name: str, title: str) -> str:
    titles = [sheet.full_title(c) for c in sheet.columns]
    return next(r for r in sheet.all_rows if r.name == name).cells[titles.index(title)].plain


def test_mean_ranks_with_ties(three) -> None:
    wide = build_wide(tasks_of(three), View(), overall=True)
    (found,) = wide.overall
    assert found.ranks == {"a": (2, 1, 2), "b": (1, 2.5, 1), "c": (3, 2.5, 3)}
    assert found.means == {"a": pytest.approx(5 / 3), "b": pytest.approx(1.5), "c": pytest.approx(8.5 / 3)}
    assert found.marks == {"b": "best", "a": "second"}
    assert wide.names == ("b", "a", "c")
    sheet = wide.sheet()
    assert sheet.groups == ("toy", "brain", "knee", "mean rank")
    assert cell(sheet, "b", "mean rank: PSNR ↓") == "1.50 (1, 2.5, 1)"
    assert cell(sheet, "a", "brain: PSNR ↑") == "33.00 ± 0.71"


def test_lower_is_better_turns_ranks_round(make_run) -> None:
    runs = [make_run(m, {"gmsd": [v] * 6}, dataset=d) for d in ("x", "y") for m, v in (("low", 0.1), ("high", 0.2))]
    (found,) = build_wide(tasks_of(runs), View(), overall=True).overall
    assert found.ranks == {"low": (1, 1), "high": (2, 2)}


def test_entries_that_lack_a_data_set_have_no_rank_and_move_nobody(make_run, three) -> None:
    runs = [*three, make_run("extra", {"psnr": values(50.0)}, dataset="toy")]
    wide = build_wide(tasks_of(runs), View(), overall=True)
    (found,) = wide.overall
    assert found.ranks["b"] == (1, 2.5, 1)
    assert found.left_out == {"extra": ("brain", "knee")}
    assert any("extra (brain, knee)" in n for n in wide.notes)
    sheet = wide.sheet()
    assert cell(sheet, "extra", "mean rank: PSNR ↓") == "-"
    assert cell(sheet, "extra", "knee: PSNR ↑") == "-"


def test_means_over_fewer_items_are_not_ranked(make_run, three) -> None:
    runs = [
        *three,
        *[
            make_run("part", {"psnr": values(60.0)}, dataset=d, status={0: ("failed", "boom")} if d == "toy" else None)
            for d in MEANS
        ],
    ]
    (found,) = build_wide(tasks_of(runs), View(), overall=True).overall
    assert found.left_out == {"part": ("toy",)}


def test_ranks_need_one_protocol_but_column_groups_do_not(make_run, three) -> None:
    runs = [
        *three,
        *[make_run(m, {"psnr": values(v)}, protocol="uniform-x2", protocol_hash=OTHER) for m, v in MEANS["toy"].items()],
    ]
    with pytest.raises(UserError, match="several protocols") as caught:
        build_wide(tasks_of(runs), View(), overall=True)
    assert OTHER in str(caught.value)
    assert "--wide" in str(caught.value)
    wide = build_wide(tasks_of(runs), View())
    assert wide.overall == ()
    assert any("several protocols" in n for n in wide.notes)
    assert wide.titles == ("toy, uniform-x4", "brain, uniform-x4", "knee, uniform-x4", "toy, uniform-x2")


def test_one_group_has_no_mean_rank(three) -> None:
    with pytest.raises(UserError, match="at least two data sets"):
        build_wide(tasks_of(three[:3]), View(), overall=True)


def test_demonstration_weights_anywhere_rank_nothing_anywhere(make_run, three) -> None:
    runs = [make_run("a", {"psnr": values(30)}, tier="demo"), make_run("b", {"psnr": values(31)}), *three[3:]]
    wide = build_wide(tasks_of(runs), View())
    assert wide.overall == ()
    assert wide.banner
    assert {c.mark for r in wide.sheet().all_rows for c in r.cells} == {""}
    mixed = [
        make_run("a", {"psnr": values(30)}, tier="demo"),
        make_run("z", {"psnr": values(31)}, tier="official", dataset="brain"),
    ]
    with pytest.raises(UserError, match="do not stand beside"):
        build_wide(tasks_of(mixed), View())


def test_a_name_is_one_method_everywhere(make_run) -> None:
    runs = [
        make_run("a", {"psnr": values(30)}, method="edsr"),
        make_run("a", {"psnr": values(30)}, method="dps", dataset="brain"),
    ]
    with pytest.raises(UserError, match="edsr in toy; dps in brain"):
        build_wide(tasks_of(runs), View())
    runs = [
        make_run("a", {"psnr": values(30)}, options={"steps": 1}),
        make_run("a", {"psnr": values(30)}, options={"steps": 9}, dataset="brain"),
    ]
    assert any("a has other options" in n for n in build_wide(tasks_of(runs), View()).notes)


def test_columns_of_several_definitions_are_not_ranked_together(make_run) -> None:
    runs = [
        make_run(m, {"psnr": values(30 + i)}, dataset=d, signatures={"psnr": f"PSNR|{d}"})
        for d in ("x", "y")
        for i, m in enumerate("ab")
    ]
    wide = build_wide(tasks_of(runs), View())
    assert wide.overall == ()
    assert any("several definitions" in n for n in wide.notes)
    assert wide.sheet().signatures == {"psnr (x)": "PSNR|x", "psnr (y)": "PSNR|y"}


def test_costs_stand_in_groups_when_asked(make_run) -> None:
    runs = [
        make_run("a", {"psnr": values(30)}, dataset=d, parameters=12_100_000, row={"nfe": 4, "peak_memory": 3 * 2.0**20})
        for d in ("x", "y")
    ]
    plain, costly = (build_wide(tasks_of(runs), View(), costs=c).sheet() for c in (False, True))
    assert not any("s/slice" in c.title for c in plain.columns)
    assert not any("seconds per slice" in n for n in plain.footnotes)
    assert [cell(costly, "a", f"y: {t}") for t in ("parameters", "NFE", "memory", "s/slice")] == ["12.1", "4", "3.00", "0.500"]
    assert any("seconds per slice" in n for n in costly.footnotes)


def test_mean_ranks_alone(three) -> None:
    groups = tasks_of(three)
    wide = build_wide(groups, View(), overall=False)
    assert wide.overall == ()
    assert mean_ranks(wide.boards, wide.titles, wide.boards[0].columns[0]).ranks["b"] == (1, 2.5, 1)


def test_csv_and_json_hold_groups_and_ranks(three) -> None:
    wide = build_wide(tasks_of(three), View())
    rows = list(csv.DictReader(io.StringIO(render([wide], "csv"))))
    assert len(rows) == 9
    found = {(r["group"], r["method"]): r for r in rows}
    assert (found["brain", "b"]["psnr_rank"], found["brain", "b"]["psnr_mean_rank"]) == ("2.5", "1.5")
    document = json.loads(render([wide], "json"))
    assert [g["title"] for g in document["groups"]] == ["toy", "brain", "knee"]
    assert document["mean_ranks"]["psnr"]["methods"]["b"] == {"mean_rank": 1.5, "ranks": {"toy": 1, "brain": 2.5, "knee": 1}}


# -- board files --------------------------------------------------------------------------------------------------


@pytest.fixture
def board(mrbench, tmp_path: Path, three):
    """``mrbench leaderboard --board`` with a text as the file."""

    def call(text: str, *arguments: object):
        file = tmp_path / "board.yaml"
        file.write_text(text, encoding="utf-8")
        return mrbench("leaderboard", tmp_path / "runs", "--board", file, *arguments)

    return call


def test_a_board_file_says_groups_methods_order_digits_labels_and_title(board) -> None:
    done = board(
        """
        title: Knees & brains
        groups:
          - {title: Knees, dataset: knee}
          - {dataset: brain, protocol: uniform-x4}
        methods: [c, a]
        order: given
        digits: {psnr: 1}
        labels: {a: "Method A", psnr: P}
        """,
        "--format",
        "markdown",
    )
    assert done.code == 0, done.err
    table = [line for line in done.out.splitlines() if line.startswith("|")]
    assert table[0] == "| method | tier | Knees: P ↑ (dB) | brain: P ↑ (dB) | mean rank: P ↓ |"
    assert table[2] == "| c | none | <u>26.0 ± 0.7</u> | <u>32.0 ± 0.7</u> | <u>2.00 (2, 2)</u> |"
    assert table[3] == "| Method A | none | **27.0 ± 0.7** | **33.0 ± 0.7** | **1.00 (1, 1)** |"
    assert done.out.startswith("### Knees &amp; brains")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metric: [psnr]", "metric: unknown key. Did you mean 'metrics'? Known keys: title, groups"),
        ("groups: [{dataset: brain, protocl: x}]", "groups, 1, protocl: unknown key. Did you mean 'protocol'?"),
        (
            "groups: [{dataset: brian}]",
            "groups, 1: data set 'brian': none of the runs is on it. Did you mean 'brain'? The runs have dataset: brain, protocol",
        ),
        ("groups: [{dataset: brain, protocol: uniform-x8}]", "under protocol 'uniform-x8': none of the runs is on it"),
        ("groups: []", "groups: value error, is empty"),
        ("digits: {psnr: 99}", "digits, psnr: input should be less than or equal to 10 (got 99)"),
        ("digits: {pnsr: 2}", "digits: 'pnsr' is no column of these runs. Did you mean 'psnr'?"),
        ("labels: {d: x}", "labels: 'd' is no entry or column of these runs"),
        ("methods: [d]", "no run is called 'd'"),
        ("metrics: [pnsr]", "no run has a metric column 'pnsr'. Did you mean 'psnr'?"),
        ("order: pnsr", "'pnsr'"),
        ("title: [", "line 1"),
        ("[1, 2]", "expected keys and values"),
        ("", "expected keys and values"),
        ("significance: perhaps", "significance: input should be a valid boolean"),
    ],
)
def test_board_files_are_refused_with_clear_words(board, text: str, message: str) -> None:
    done = board(text, "--wide")
    assert done.code == 2
    assert message in " ".join(done.err.split())
    assert "Traceback" not in done.err


def test_a_board_file_that_is_not_there(mrbench, tmp_path: Path) -> None:
    done = mrbench("leaderboard", tmp_path, "--board", tmp_path / "none.yaml")
    assert done.code == 2
    assert "cannot be read (No such file or directory)" in " ".join(done.err.split())
    (tmp_path / "latin.yaml").write_bytes(b"title: \xe9\xff")
    with pytest.raises(UserError, match="not UTF-8"):
        read_board_file(tmp_path / "latin.yaml")


def test_a_group_that_means_two_tasks_is_refused(make_run, board) -> None:
    make_run("a", {"psnr": values(20)}, dataset="toy", protocol="uniform-x2", protocol_hash=OTHER)
    done = board("groups: [{dataset: toy}]")
    assert done.code == 2
    assert "means 2 tasks" in done.err
    done = board(f"groups: [{{dataset: toy, protocol: {OTHER}}}]", "--format", "json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["groups"][0]["protocol"] == "uniform-x2"


def test_the_command_makes_wide_tables(mrbench, tmp_path: Path, three) -> None:
    for form in FORMATS:
        done = mrbench("leaderboard", tmp_path / "runs", "--overall", "--significance", "--ci", "--format", form)
        assert done.code == 0, done.err
        assert "PSNR" in done.out or form == "csv"
    plain = mrbench("leaderboard", tmp_path / "runs")
    assert plain.out.count("mean ± sd") == 3
