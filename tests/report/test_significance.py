"""Marks, letters, intervals and sentences on boards."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest

from mrbench.errors import UserError
from mrbench.report import as_csv, as_json, as_terminal
from mrbench.report.leaderboard import build_board
from mrbench.report.render import FORMATS, render
from mrbench.report.view import View
from mrbench.stats.presets import Plan

SUBJECTS = {f"s{i:02d}": 3 for i in range(12)}
N = sum(SUBJECTS.values())
TESTED = View(plan=Plan(resamples=200))


def scores(gain: float, seed: int, noise: float = 0.05) -> list[float]:
    """Slices of the same people; the gain comes with noise of its own."""
    base = np.random.default_rng(0).normal(30, 2, N)
    return (base + gain + noise * np.random.default_rng(seed).normal(size=N)).tolist()


@pytest.fixture
def four(make_run):
    """Two good methods that are alike, one clearly worse, one that is worst."""
    runs = [("worst", -2.0), ("good", 1.0), ("worse", -1.0), ("alike", 1.001)]
    made = [make_run(name, {"psnr": scores(gain, i)}, subjects=SUBJECTS) for i, (name, gain) in enumerate(runs, 1)]
    return [*made, make_run("gt", {"psnr": [float("inf")] * N}, subjects=SUBJECTS, control=True)]


def cells(board, column="psnr"):
    return {r.name: r.cells[column] for r in board.all_rows}


def test_letters_and_marks_show_who_was_not_shown_to_differ(four) -> None:
    found = cells(build_board(four, view=TESTED))
    best = max(("good", "alike"), key=lambda n: found[n].aggregate.mean)
    other = {"good": "alike", "alike": "good"}[best]
    assert [found[n].letters for n in (best, other, "worse", "worst")] == ["a", "a", "b", "c"]
    assert {n for n, c in found.items() if c.not_shown} == {other}
    assert found[best].mark == "best"
    assert found["gt"].letters == ""


def test_sentences_name_test_unit_n_correction_effect_and_interval(four) -> None:
    board = build_board(four, view=TESTED)
    text = "\n".join(board.significance.sentences)
    for part in ("Friedman", "4 methods on 12 subjects", "Wilcoxon signed-rank", "12 subject means", "Holm over 6 pairs",
                 "rank-biserial", "bootstrap interval over subjects", "no evidence of equality", "averaged per subject"):  # fmt: skip
        assert part in text
    assert "equal to" not in text


def test_without_asking_nothing_is_tested(four) -> None:
    board = build_board(four)
    assert board.significance is None
    assert not any(c.letters or c.not_shown or c.interval for c in cells(board).values())


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_has_marks_letters_and_sentences(four, form) -> None:
    text = render([build_board(four, view=TESTED)], form)
    if form == "csv":
        assert "psnr_letters,psnr_not_shown_to_differ" in text
        return
    assert "Friedman" in text
    assert {"latex": r"\ddag{}\textsuperscript{a}", "html": "‡<sup>a</sup>", "markdown": "‡</u><sup>a</sup>"}.get(
        form, {"json": '"letters"', "terminal": "‡ a"}.get(form, "")
    ) in text


def test_json_holds_groups_and_whole_results(four) -> None:
    document = json.loads(render([build_board(four, view=TESTED)], "json"))["significance"]
    found = document["columns"]["psnr"]
    assert document["reference"] == "best"
    assert [set(g) for g in found["groups"]] == [{"good", "alike"}, {"worse"}, {"worst"}]
    assert len(found["not_shown_to_differ"]) == 1
    assert len(document["results"][0]["pairs"]) == 6


def test_a_control_takes_the_place_of_the_best(four) -> None:
    board = build_board(four, view=View(plan=Plan(resamples=200, control="good")))
    found = cells(board)
    assert {n for n, c in found.items() if c.not_shown} == {"alike"}
    assert {c.letters for c in found.values()} == {""}
    assert "not shown to differ from good" in board.legend
    assert "share a letter" not in board.legend
    sheet = board.sheet()
    titles = [c.title for c in sheet.columns]
    assert titles[:3] == ["tier", "PSNR ↑", "change"]
    means = {r.name: r.cells["psnr"].aggregate.mean for r in board.rows}  # people have equally many slices
    expected = {n: "-" if n == "good" else f"{100 * (m - means['good']) / means['good']:+.1f}" for n, m in means.items()}
    assert {r.name: r.cells[2].text for r in sheet.rows} == expected
    assert {r.cells[2].text for r in sheet.controls} == {"-"}
    assert not [c for c in build_board(four, view=View(plan=Plan(resamples=200))).sheet().columns if c.title == "change"]
    rows = {r["method"]: r for r in csv.DictReader(io.StringIO(render([board], "csv")))}
    assert rows["good"]["psnr_change_percent"] == ""
    assert f"{float(rows['alike']['psnr_change_percent']):+.1f}" == expected["alike"]
    for form in ("terminal", "markdown", "latex", "html"):
        assert "change" in render([board], form)
    with pytest.raises(UserError, match="Did you mean 'good'"):
        build_board(four, view=View(plan=Plan(control="goood")))


def test_demonstration_weights_get_no_marks(make_run) -> None:
    runs = [
        make_run("a", {"psnr": scores(1, 1)}, subjects=SUBJECTS, tier="demo"),
        make_run("b", {"psnr": scores(0, 2)}, subjects=SUBJECTS),
    ]
    board = build_board(runs, view=View(plan=Plan(resamples=200), level=0.95))
    assert all(not (c.letters or c.not_shown or c.mark) for c in cells(board).values())
    assert board.significance.sentences == ()
    assert "‡" not in as_terminal.render(board)
    assert any("demonstration weights rank nothing" in n for n in board.footnotes)
    assert all(c.interval is not None for c in cells(board).values())  # describes, ranks nothing


def test_too_few_subjects_are_said_in_words(make_run) -> None:
    runs = [make_run(n, {"psnr": [30.0 + i + g for i in range(6)]}) for g, n in enumerate("ab")]
    board = build_board(runs, view=View(plan=Plan(resamples=200), level=0.95))
    assert any("2 subjects: no test (at least 3 are needed)" in s for s in board.significance.sentences)
    assert any("no intervals: 2 subjects" in n for n in board.footnotes)
    assert all(not (c.letters or c.not_shown or c.interval) for c in cells(board).values())
    assert {c.mark for c in cells(board).values()} == {"best", "second"}  # means are still what they are


def test_few_subjects_say_what_their_tests_can_show(make_run) -> None:
    subjects = {f"s{i}": 1 for i in range(5)}
    runs = [make_run(n, {"psnr": [30.0 + i + 3 * g for i in range(5)]}, subjects=subjects) for g, n in enumerate("abc")]
    board = build_board(runs, view=TESTED)
    assert any("cannot give p below" in s for s in board.significance.sentences)
    assert all(c.letters == "a" for c in cells(board).values())


def test_one_entry_alone_is_not_tested(make_run) -> None:
    board = build_board([make_run("a", {"psnr": scores(0, 1)}, subjects=SUBJECTS)], view=TESTED)
    assert any("one entry alone" in n for n in board.footnotes)


def test_labels_are_the_names_in_sentences_too(four) -> None:
    view = View(plan=Plan(resamples=200, control="good"), labels={"good": "Good & <b>", "psnr": "Peak"})
    board = build_board(four, view=view)
    assert "Good & <b>" in {r.name for r in board.rows}
    assert any(s.startswith("Peak: ") and "Good & <b>" in s for s in board.significance.sentences)
    with pytest.raises(UserError, match="two entries the name"):
        build_board(four, view=View(labels={"good": "worse"}))


# -- intervals ----------------------------------------------------------------------------------------------------


def test_intervals_resample_subjects(make_run) -> None:
    """Slices of a subject are copies of each other: the interval is that of the subjects' values, whatever their number."""
    rng = np.random.default_rng(5)
    values = rng.normal(30, 2, 20)
    few = make_run("few", {"psnr": values.tolist()}, subjects={f"s{i:02d}": 1 for i in range(20)}, out="one")
    many = make_run("many", {"psnr": np.repeat(values, 10).tolist()}, subjects={f"s{i:02d}": 10 for i in range(20)}, out="ten")
    ends = []
    for run in (few, many):
        cell = build_board([run], view=View(level=0.95)).rows[0].cells["psnr"]
        ends.append((cell.interval.low, cell.interval.high))
    assert ends[0] == pytest.approx(ends[1], rel=1e-9)
    mean, se = values.mean(), values.std(ddof=1) / np.sqrt(20)
    assert ends[0] == pytest.approx((mean - 1.96 * se, mean + 1.96 * se), abs=0.35 * se)


def test_intervals_agree_with_scipy(make_run) -> None:
    from scipy.stats import bootstrap

    values = np.random.default_rng(6).gamma(2.0, 3.0, 30)
    run = make_run("a", {"nmse": values.tolist()}, subjects={f"s{i:02d}": 1 for i in range(30)})
    found = build_board([run], view=View(level=0.95)).rows[0].cells["nmse"].interval
    expected = bootstrap((values,), np.mean, n_resamples=10_000, method="BCa", rng=np.random.default_rng(1)).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.12)


def test_intervals_follow_the_unit(make_run) -> None:
    """A subject with many slices counts more in the mean over slices, once in the mean over subjects' means."""
    subjects = {"s1": 9, "s2": 1, "s3": 1, "s4": 1}
    run = make_run("a", {"psnr": [40.0] * 9 + [20.0, 21.0, 22.0]}, subjects=subjects)
    for over in ("slices", "subjects"):
        cell = build_board([run], view=View(level=0.95, over=over)).rows[0].cells["psnr"]
        assert cell.interval.low <= cell.aggregate.mean <= cell.interval.high
        assert cell.aggregate.mean == pytest.approx(35.25 if over == "slices" else 25.75)


def test_intervals_stand_instead_of_sd_and_in_full_in_files(four) -> None:
    board = build_board(four, view=View(level=0.9))
    assert "mean [90 % BCa bootstrap interval" in board.size_text
    text = as_terminal.render(board)
    assert "±" not in text
    row = board.rows[0]
    interval = row.cells["psnr"].interval
    assert f"[{interval.low:.2f}, {interval.high:.2f}]" in text
    document = as_json.document(board)
    assert document["rows"][0]["psnr"]["interval"] == [interval.low, interval.high]
    assert document["interval_level"] == 0.9
    assert f",{interval.low!r},{interval.high!r}," in as_csv.render([board])


def test_a_column_without_finite_mean_has_no_interval(make_run) -> None:
    values = scores(0, 1)
    values[0] = float("inf")
    runs = [
        make_run("a", {"ssim": values, "gmsd": [None] * N}, subjects=SUBJECTS),
        make_run("b", {"ssim": scores(0, 2), "gmsd": scores(0, 3)}, subjects=SUBJECTS),
    ]
    board = build_board(runs, view=View(level=0.95))
    found = next(r for r in board.rows if r.name == "a").cells
    assert found["ssim"].interval is None
    assert found["gmsd"].interval is None
    assert "n/a" in as_terminal.render(board)
