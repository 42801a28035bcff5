"""The rules of leaderboards: what may stand together, what is ranked, what is said below."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from mrbench.errors import UserError
from mrbench.report.as_json import document
from mrbench.report.columns import sort_key
from mrbench.report.leaderboard import _marks, build_board, build_boards

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(os.environ.get("MRBENCH_GOLDEN", ROOT.parent / "shared" / "golden"))
INF, NAN = float("inf"), float("nan")
A = [30.0, 31, 32, 33, 34, 35]
B = [29.0, 30, 31, 32, 33, 34]
C = [28.0, 29, 30, 31, 32, 33]


def marks_of(board, column):
    return {r.name: r.cells[column].mark for r in board.all_rows}


def notes(board):
    return "\n".join(board.footnotes)


# -- marks ------------------------------------------------------------------------------------------------------


def test_best_and_second_follow_the_direction_of_the_metric(make_run) -> None:
    board = build_board(
        [make_run("c", {"psnr": C, "gmsd": A}), make_run("a", {"psnr": A, "gmsd": C}), make_run("b", {"psnr": B, "gmsd": B})]
    )
    assert marks_of(board, "psnr") == {"a": "best", "b": "second", "c": ""}
    assert marks_of(board, "gmsd") == {"a": "best", "b": "second", "c": ""}
    assert [r.name for r in board.rows] == ["a", "b", "c"]  # best first
    assert [c.arrow for c in board.columns] == ["↑", "↓"]


def test_ranks_are_by_unrounded_means_and_exact_ties_share_the_mark(make_run) -> None:
    nearly = [v + 1e-9 for v in A]
    board = build_board(
        [make_run("a", {"psnr": A}), make_run("tie", {"psnr": A}, reverse=True), make_run("nearly", {"psnr": nearly})]
    )
    assert marks_of(board, "psnr") == {"a": "second", "tie": "second", "nearly": "best"}


def test_one_entry_alone_is_no_winner(make_run) -> None:
    board = build_board([make_run("a", {"psnr": A}), make_run("gt", {"psnr": [INF] * 6}, control=True)])
    assert marks_of(board, "psnr") == {"a": "", "gt": ""}


def test_controls_stand_below_and_are_never_ranked(make_run) -> None:
    board = build_board(
        [make_run("gt", {"psnr": [INF] * 6}, control=True), make_run("a", {"psnr": A}), make_run("b", {"psnr": B})]
    )
    assert [r.name for r in board.rows] == ["a", "b"]
    assert [r.name for r in board.controls] == ["gt"]
    assert marks_of(board, "psnr") == {"a": "best", "b": "second", "gt": ""}
    assert "never ranked" in notes(board)


def test_best_of_draws_is_shown_and_never_ranked(make_run) -> None:
    columns = {"psnr": A, "psnr@mean": B, "psnr@best": C}
    board = build_board(
        [make_run("a", columns, draws=4), make_run("b", {k: [x - 1 for x in v] for k, v in columns.items()}, draws=4)]
    )
    assert [c.name for c in board.columns] == ["psnr", "psnr@mean", "psnr@best"]
    assert marks_of(board, "psnr@mean") == {"a": "best", "b": "second"}
    assert set(marks_of(board, "psnr@best").values()) == {""}
    assert "@best is the best of all draws" in notes(board)


def test_deterministic_methods_have_no_posterior_mean(make_run) -> None:
    board = build_board([make_run("a", {"psnr": A, "psnr@mean": A}, draws=4), make_run("b", {"psnr": B})])
    cell = next(r for r in board.rows if r.name == "b").cells["psnr@mean"]
    assert cell.aggregate is None
    assert cell.reason == "one draw only"
    assert "n/a in PSNR@mean for b: one draw only" in notes(board)


def test_columns_of_several_draws_are_left_out_where_every_run_has_one(make_run) -> None:
    run = make_run("a", {"psnr": A, "psnr@mean": A}, draws=1)
    assert [c.name for c in build_board([run]).columns] == ["psnr"]
    assert [c.name for c in build_board([run], metrics=["psnr@mean"]).columns] == ["psnr@mean"]


@pytest.mark.shared
@pytest.mark.skipif(not GOLDEN.exists(), reason="the golden data are not beside the repository (MRBENCH_GOLDEN)")
@pytest.mark.parametrize("part", ["pelvis", "brain"])
def test_marks_agree_with_the_published_table(part: str) -> None:
    golden = json.loads((GOLDEN / "metrics" / "stats.json").read_text())["table_marks"]
    for j, (column, higher) in enumerate(zip(golden["columns"], golden["higher"], strict=True)):
        found = _marks({i: row[j] for i, row in enumerate(golden[part])}, higher)
        by_mark = {m: sorted(golden["models"][i] for i, mark in found.items() if mark == m) for m in ("best", "second")}
        expected = golden[f"{part}_expected"][column]
        assert by_mark == {"best": sorted(expected["best"]), "second": sorted(expected["second_distinct_value"])}


# -- protocol, data set, signatures, tiers ----------------------------------------------------------------------


def test_two_protocols_are_refused_naming_hashes_protocols_runs_and_folders(make_run) -> None:
    runs = [
        make_run("a", {"psnr": A}),
        make_run("b", {"psnr": B}, protocol="uniform-x2", protocol_hash="bbbb000011112222"),
        make_run("c", {"psnr": B}, protocol="uniform-x2", protocol_hash="bbbb000011112222"),
    ]
    with pytest.raises(UserError) as caught:
        build_board(runs)
    text = str(caught.value)
    assert "aaaa000011112222 (uniform-x4): a" in text
    assert "bbbb000011112222 (uniform-x2): b, c" in text
    assert str(runs[1].folder.parent) in text
    assert "cannot be compared" in text


def test_equal_names_with_different_hashes_are_refused_too(make_run) -> None:
    with pytest.raises(UserError, match="2 protocols"):
        build_board([make_run("a", {"psnr": A}), make_run("b", {"psnr": B}, protocol_hash="cccc")])


def test_several_data_sets_are_refused_on_one_board_and_get_one_each(make_run) -> None:
    runs = [make_run("a", {"psnr": A}), make_run("a", {"psnr": B}, dataset="other"), make_run("b", {"psnr": B})]
    with pytest.raises(UserError, match="2 data sets") as caught:
        build_board(runs)
    assert "other version 1" in str(caught.value)
    boards = build_boards(runs)
    assert [b.dataset for b in boards] == ["toy", "other"]
    assert [[r.name for r in b.rows] for b in boards] == [["a", "b"], ["a"]]


def test_two_versions_of_a_data_set_are_refused(make_run) -> None:
    runs = [make_run("a", {"psnr": A}), make_run("b", {"psnr": B}, dataset_version="2")]
    with pytest.raises(UserError, match="toy version 2: b"):
        build_boards(runs)


def test_two_signatures_in_one_column_are_refused_naming_both(make_run) -> None:
    runs = [
        make_run("a", {"psnr": A, "ssim": A}, signatures={"ssim": "SSIM|gauss11|mrbench:1"}),
        make_run("b", {"psnr": B, "ssim": B}, signatures={"ssim": "SSIM|uniform7|mrbench:1"}),
    ]
    with pytest.raises(UserError) as caught:
        build_board(runs)
    text = str(caught.value)
    assert "column ssim" in text
    assert "SSIM|gauss11|mrbench:1: a" in text
    assert "SSIM|uniform7|mrbench:1: b" in text
    assert "--metrics" in text
    assert [c.name for c in build_board(runs, metrics=["psnr"]).columns] == ["psnr"]


@pytest.mark.parametrize("tier", ["retrained", "official", "author", "files"])
def test_demonstration_weights_do_not_mix_with_others(make_run, tier) -> None:
    runs = [make_run("a", {"psnr": A}, tier="demo"), make_run("b", {"psnr": B}, tier=tier), make_run("c", {"psnr": C})]
    with pytest.raises(UserError) as caught:
        build_board(runs)
    assert "demo: a" in str(caught.value)
    assert f"{tier}: b" in str(caught.value)
    assert ": c" not in str(caught.value)


def test_a_demo_board_has_a_banner_and_no_winner(make_run) -> None:
    runs = [make_run("b", {"psnr": B}), make_run("a", {"psnr": A}, tier="demo")]
    board = build_board(runs)
    assert board.banner == "demonstration weights: this table ranks nothing"
    assert set(marks_of(board, "psnr").values()) == {""}
    assert [r.name for r in board.rows] == ["b", "a"]  # as given: nothing is ranked
    assert "no winner is marked" in board.legend
    assert [r.tier for r in board.rows] == ["none", "demo"]


def test_other_tiers_stand_together(make_run) -> None:
    tiers = ["none", "retrained", "official", "author", "files"]
    board = build_board([make_run(t, {"psnr": [v + i for v in A]}, tier=t) for i, t in enumerate(tiers)])
    assert board.banner == ""
    assert {r.tier for r in board.rows} == set(tiers)


# -- items ------------------------------------------------------------------------------------------------------


def test_unequal_item_sets_are_refused_saying_who_lacks_how_many(make_run) -> None:
    runs = [make_run("a", {"psnr": A}), make_run("b", {"psnr": B}, drop=[1, 4])]
    with pytest.raises(UserError) as caught:
        build_board(runs)
    text = str(caught.value)
    assert "a: lacks 0 of 6 items" in text
    assert "b: lacks 2 of 6 items" in text
    assert "--intersect" in text


def test_the_intersection_is_used_on_request_and_its_size_is_printed(make_run) -> None:
    runs = [make_run("a", {"psnr": A}), make_run("b", {"psnr": B}, drop=[1, 4])]
    board = build_board(runs, intersect=True)
    assert (board.n_items, board.n_subjects) == (4, 2)
    means = {r.name: r.cells["psnr"].aggregate.mean for r in board.rows}
    assert means == {"a": np.mean([30, 32, 33, 35]), "b": np.mean([29, 31, 32, 34])}
    assert "intersection: 4 of 6 items" in notes(board)
    assert marks_of(board, "psnr") == {"a": "best", "b": "second"}


def test_an_empty_intersection_is_refused(make_run) -> None:
    runs = [make_run("a", {"psnr": A}, drop=[0, 1, 2]), make_run("b", {"psnr": B}, drop=[3, 4, 5])]
    with pytest.raises(UserError, match="no item in common"):
        build_board(runs, intersect=True)


def test_other_content_under_the_same_name_is_refused_and_left_out_of_the_intersection(make_run) -> None:
    runs = [make_run("a", {"psnr": A}), make_run("b", {"psnr": B}, rows={2: {"item_hash": "changed"}})]
    with pytest.raises(UserError) as caught:
        build_board(runs)
    text = str(caught.value)
    assert "b: 1 item of other content than in a (first: toy/s1/vol/002, changed instead of h2)" in text
    assert "--intersect" in text
    board = build_board(runs, intersect=True)
    assert board.n_items == 5
    assert "intersection: 5 of 6 items" in notes(board)


def test_failed_items_are_counted_shown_and_keep_a_mean_from_being_ranked(make_run) -> None:
    runs = [
        make_run("a", {"psnr": [20.0, 31, 32, 33, 34, 35]}, status={0: ("failed", "boom"), 1: ("oom", "memory")}),
        make_run("b", {"psnr": B}),
        make_run("c", {"psnr": C}),
    ]
    board = build_board(runs)
    a = next(r for r in board.rows if r.name == "a")
    assert (a.items, a.ok, a.failed) == (6, 4, 2)
    assert a.cells["psnr"].aggregate.mean == np.mean([32, 33, 34, 35])
    assert a.cells["psnr"].incomplete
    assert board.show_counts
    assert marks_of(board, "psnr") == {"a": "", "b": "best", "c": "second"}
    assert [r.name for r in board.rows] == ["b", "c", "a"]  # a higher mean over fewer items does not lead the table
    assert "failed, and not in the means: a: 2 of 6." in notes(board)
    assert "† mean over fewer items" in notes(board)
    common = build_board(runs, intersect=True)
    assert common.n_items == 4
    assert [(r.counts_text, r.failed) for r in common.rows] == [("4/6", 2), ("6/6", 0), ("6/6", 0)]
    assert "failed, and not in the means: a: 2 of 6." in notes(common)
    assert marks_of(common, "psnr") == {"a": "best", "b": "second", "c": ""}


def test_a_run_in_which_everything_failed_is_shown_as_na(make_run) -> None:
    runs = [
        make_run("a", {"psnr": A}),
        make_run("b", {"psnr": B}),
        make_run("x", {"psnr": A}, status={i: ("failed", "no") for i in range(6)}),
    ]
    for intersect in (False, True):
        board = build_board(runs, intersect=intersect)
        assert board.n_items == 6
        x = next(r for r in board.rows if r.name == "x")
        assert (x.ok, x.failed, x.cells["psnr"].aggregate) == (0, 6, None)
        assert board.rows[-1] is x
        assert marks_of(board, "psnr") == {"a": "best", "b": "second", "x": ""}


def test_a_control_that_failed_does_not_shrink_the_intersection(make_run) -> None:
    control = make_run("impostor", {"psnr": C}, control=True, status={0: ("failed", "one subject only")})
    board = build_board([make_run("a", {"psnr": A}), control], intersect=True)
    assert board.n_items == 6
    assert board.controls[0].ok == 5
    assert board.controls[0].cells["psnr"].incomplete


def test_missing_values_that_all_share_do_not_keep_from_ranking(make_run) -> None:
    empty = [NAN, *A[1:]]
    board = build_board([make_run("a", {"nmse": empty}), make_run("b", {"nmse": [NAN, *B[1:]]})])
    assert marks_of(board, "nmse") == {"b": "best", "a": "second"}
    assert "NMSE: no value on some slices, which are left out of its mean (a: 1, b: 1)." in notes(board)
    unequal = build_board([make_run("a", {"nmse": A}), make_run("b", {"nmse": [NAN, *B[1:]]}), make_run("c", {"nmse": C})])
    assert marks_of(unequal, "nmse") == {"c": "best", "a": "second", "b": ""}


def test_unreadable_files_are_no_items(make_run) -> None:
    skipped = {0: {"status": "skipped", "item_hash": "", "error": "file.png: truncated", "psnr": None}}
    board = build_board([make_run("a", {"psnr": A}, rows=skipped), make_run("b", {"psnr": B}, rows=skipped)])
    assert board.n_items == 5
    assert [(r.items, r.ok, r.skipped) for r in board.rows] == [(5, 5, 1)] * 2
    assert "skipped" in notes(board)
    with pytest.raises(UserError, match="a: lacks 1 of 6 items"):
        build_board([make_run("a", {"psnr": A}, rows=skipped), make_run("b", {"psnr": B})])


def test_an_item_twice_in_a_run_is_refused(make_run) -> None:
    run = make_run("a", {"psnr": A}, rows={1: {"item_id": "toy/s1/vol/000"}})
    with pytest.raises(UserError, match="1 item twice"):
        build_board([run])


def test_no_runs_and_no_rows_are_refused_with_a_way_on(make_run) -> None:
    for build in (build_board, build_boards):
        with pytest.raises(UserError, match="mrbench run"):
            build([])
    with pytest.raises(UserError, match="no rows yet"):
        build_board([make_run("a", {"psnr": A}, drop=range(6))])


# -- values, footnotes, columns ---------------------------------------------------------------------------------


def test_over_subjects_averages_per_subject_first(make_run) -> None:
    run = make_run("a", {"psnr": [10.0, 20, 30, 40]}, subjects={"s1": 3, "s2": 1})
    slices, subjects = build_board([run]), build_board([run], over="subjects")
    assert slices.rows[0].cells["psnr"].aggregate.mean == 25
    assert subjects.rows[0].cells["psnr"].aggregate.mean == 30
    assert subjects.rows[0].cells["psnr"].aggregate.n == 2
    assert slices.size_text == "mean ± sd over 4 slices of 2 subjects"
    assert subjects.size_text == "mean ± sd over the means of 2 subjects (4 slices)"
    with pytest.raises(UserError, match="slices, subjects"):
        build_board([run], over="volumes")  # type: ignore[arg-type]


def test_infinite_psnr_is_capped_and_footnoted_other_infinities_are_not_ranked(make_run) -> None:
    runs = [
        make_run("a", {"psnr": [INF, *A[1:]], "haarpsi": [INF, *A[1:]]}),
        make_run("b", {"psnr": B, "haarpsi": B}),
        make_run("c", {"psnr": C, "haarpsi": C}),
    ]
    board = build_board(runs)
    a = board.rows[0].cells
    assert a["psnr"].aggregate.mean == pytest.approx((100 + sum(A[1:])) / 6)
    assert marks_of(board, "psnr") == {"a": "best", "b": "second", "c": ""}
    assert a["haarpsi"].text(board.columns[1]) == "inf"
    assert marks_of(board, "haarpsi") == {"a": "", "b": "best", "c": "second"}
    assert "enter means as 100 dB (a: 1)" in notes(board)
    assert "HaarPSI: infinite on some slices (a: 1); such a mean is infinite and not ranked." in notes(board)


def test_the_default_order_of_columns(make_run) -> None:
    names = [
        "data_consistency",
        "mystery",
        "lpips_vgg",
        "lpips_alex",
        "haarpsi",
        "nmse",
        "gmsd",
        "ssim",
        "psnr_fg",
        "psnr",
        "psnr@best",
        "psnr@mean",
    ]
    board = build_board([make_run("a", {n: A for n in names}, draws=4)])
    assert [c.name for c in board.columns] == [
        "psnr", "psnr_fg", "ssim", "gmsd", "nmse", "haarpsi", "lpips_alex", "lpips_vgg", "data_consistency", "mystery",
        "psnr@mean", "psnr@best",
    ]  # fmt: skip
    assert sorted(["ssim_fg", "gmsd_fg", "ms_ssim", "gmsd", "nmse_fg", "ssim", "nmse"], key=sort_key) == [
        "ssim", "ssim_fg", "ms_ssim", "gmsd", "gmsd_fg", "nmse", "nmse_fg",
    ]  # fmt: skip
    assert [c.header for c in board.columns][:3] == ["PSNR", "PSNR fg", "SSIM"]


def test_chosen_columns_keep_their_order_and_unknown_ones_are_refused(make_run) -> None:
    run = make_run("a", {"psnr": A, "ssim": A, "gmsd": A})
    assert [c.name for c in build_board([run], metrics=["gmsd", "psnr", "gmsd"]).columns] == ["gmsd", "psnr"]
    with pytest.raises(UserError) as caught:
        build_board([run], metrics=["pnsr"])
    assert "Did you mean 'psnr'?" in str(caught.value)
    assert "Columns: psnr, ssim, gmsd." in str(caught.value)


def test_metrics_that_cannot_be_had_are_left_out_with_the_reason_or_shown_as_na_when_asked_for(make_run) -> None:
    runs = [
        make_run(n, {"psnr": v, "nmse": [None] * 6}, unavailable={"lpips_vgg": "no weights at hand"})
        for n, v in (("a", A), ("b", B))
    ]
    board = build_board(runs)
    assert [c.name for c in board.columns] == ["psnr"]
    assert "left out: lpips_vgg: no weights at hand." in notes(board)
    asked = build_board(runs, metrics=["psnr", "lpips_vgg", "nmse"])
    assert [c.name for c in asked.columns] == ["psnr", "lpips_vgg", "nmse"]
    assert [r.cells["lpips_vgg"].text(asked.columns[1]) for r in asked.rows] == ["n/a", "n/a"]
    assert "n/a in lpips_vgg for a, b: no weights at hand." in notes(asked)
    assert "n/a in NMSE for a, b: no item has a value." in notes(asked)


def test_a_column_that_one_run_lacks_is_na_for_it_and_ranks_the_others(make_run) -> None:
    board = build_board(
        [make_run("a", {"psnr": A, "ssim": A}), make_run("b", {"psnr": B, "ssim": B}), make_run("c", {"psnr": C})]
    )
    assert marks_of(board, "ssim") == {"a": "best", "b": "second", "c": ""}
    assert "mrbench score" in next(r for r in board.rows if r.name == "c").cells["ssim"].reason


def test_equal_labels_get_the_key_and_equal_keys_a_number(make_run) -> None:
    board = build_board(
        [
            make_run("a", {"psnr": A}, key="k1"),
            make_run("a", {"psnr": B}, key="k2"),
            make_run("b", {"psnr": C}),
            make_run("b", {"psnr": C}),
        ]
    )
    assert [r.name for r in board.rows] == ["a (k1)", "a (k2)", "b (k1) #1", "b (k1) #2"]


def test_data_set_warnings_and_other_splits_are_shown(make_run) -> None:
    rules = {"split": {"part": "val", "unit": "subject"}}
    board = build_board([make_run("a", {"psnr": A}, warnings=["no subject ids: each file is its own subject"], rules=rules)])
    assert board.warnings == ("no subject ids: each file is its own subject", "split: val (not test)")


def test_partial_runs_and_changed_tasks_are_footnoted(make_run) -> None:
    board = build_board(
        [make_run("a", {"psnr": A}, task_items=50), make_run("b", {"psnr": B}, task_items=50, task_hash="task0002")]
    )
    assert "partial: 6 of the 50 items of the task." in notes(board)
    assert "task task0001: a; task0002: b" in notes(board)
    assert board.task_hashes == ("task0001", "task0002")


def test_row_warnings_are_footnoted_with_their_number(make_run) -> None:
    board = build_board([make_run("a", {"psnr": A}, rows={i: {"warning": "weights were trained for x2"} for i in (0, 1)})])
    assert "a: weights were trained for x2 (2 of 6 slices)." in notes(board)


def test_times_are_shown_only_for_equal_conditions(make_run) -> None:
    same = build_board([make_run("a", {"psnr": A}), make_run("b", {"psnr": B})])
    assert same.show_seconds
    assert same.rows[0].seconds == 0.5
    assert "seconds per slice, of the method alone: cpu, 2 threads, fp32." in notes(same)
    for other in ({"threads": 4}, {"device": "cuda:0 (card)"}, {"precision": "bf16"}):
        board = build_board([make_run("a", {"psnr": A}), make_run("b", {"psnr": B}, row=other)])
        assert not board.show_seconds
        assert "seconds per slice are left out" in notes(board)
        assert document(board)["rows"][0]["seconds_per_item"] is None
    two_machines = build_board(
        [make_run("a", {"psnr": A}, environment={"processor": "X"}), make_run("b", {"psnr": B}, environment={"processor": "Y"})]
    )
    assert not two_machines.show_seconds
    assert "b: cpu (Y), 2 threads, fp32" in notes(two_machines)


def test_conditions_of_failed_rows_do_not_count(make_run) -> None:
    run = make_run("b", {"psnr": B}, status={0: ("failed", "x")}, rows={0: {"threads": 9}})
    assert build_board([make_run("a", {"psnr": A}), run]).show_seconds


def test_nfe_is_shown_where_a_run_has_some(make_run) -> None:
    assert not build_board([make_run("a", {"psnr": A})]).show_nfe
    board = build_board([make_run("a", {"psnr": A}), make_run("b", {"psnr": B}, row={"nfe": 1000})])
    assert board.show_nfe
    assert [r.nfe_text for r in board.rows] == ["-", "1000"]


def test_a_board_of_a_hundred_thousand_rows(make_run) -> None:
    n = 20_000
    rng = np.random.default_rng(0)
    runs = [
        make_run(
            f"m{i}", {"psnr": rng.normal(30 + i, 1, n).tolist()}, subjects={f"s{k}": n // 40 for k in range(40)}, batch=5000
        )
        for i in range(5)
    ]
    board = build_board(runs)
    assert (board.n_items, board.n_subjects) == (n, 40)
    assert marks_of(board, "psnr") == {"m4": "best", "m3": "second", "m2": "", "m1": "", "m0": ""}
