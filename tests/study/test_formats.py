"""Tables, sentences and pictures from one object, in every format, and with names that try to break them."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from study_support import make_study, read_by, write_runs
from typesetting import typeset

from mrbench.errors import UserError
from mrbench.stats.presets import Plan
from mrbench.study.analysis import analyse_study
from mrbench.study.figure import ratings_figure
from mrbench.study.formats import FORMATS, agreement_csv, pairs_csv, ratings_csv, render, sentences_text
from mrbench.study.readings import Readings, collect
from mrbench.study.results import StudyResult

EVIL = "<script>alert('x')</script> & 50% $_{a}$ \\input{x} | =1+1"


@pytest.fixture
def rated(tmp_path: Path) -> tuple[StudyResult, Readings]:
    names = ["zebranet", "quokka_sr", EVIL]
    runs = write_runs(tmp_path / "runs", dict.fromkeys(names[:2], 0.0), {f"s{i}": 1 for i in range(8)})
    # the label alone is evil: folders have names that files can have
    write_runs(tmp_path / "runs", {"third": 0.0}, {f"s{i}": 1 for i in range(8)})
    manifest = tmp_path / "runs" / "toy" / "uniform-x4" / "third-key" / "manifest.json"
    document = json.loads(manifest.read_text())
    document["method"]["label"] = EVIL
    manifest.write_text(json.dumps(document))
    folder = make_study(runs, tmp_path / "study", images=8, criteria=("contrast", "<b>sharp_ness</b>"), truth=True, repeats=4)
    level = {"zebranet": 5, "quokka_sr": 3}
    for seed, name in enumerate(("Anna", "=HYPERLINK(1)", "<i>Carl</i>")):
        rng = np.random.default_rng(seed)
        read_by(folder, name, lambda s, c, rng=rng: int(np.clip(level.get(s.method, 2) + rng.integers(-1, 2), 1, 5)))
    readings = collect(folder)
    return analyse_study(readings, Plan(resamples=500)), readings


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_all_formats_print_the_same_numbers(rated) -> None:
    result, _ = rated
    texts = {form: render(result, form) for form in FORMATS}
    lines = rows(texts["csv"])
    assert len(lines) == 2 * 4
    document = json.loads(texts["json"])
    for criterion, found in zip(document["criteria"], result.criteria, strict=True):
        assert criterion["criterion"] == found.criterion
        assert len(criterion["sentences"]) == 1 + 3 + 1
        for score, s in zip(criterion["scores"], found.scores, strict=True):
            line = next(x for x in lines if x["criterion"] == found.criterion and x["method"] == s.method)
            assert float(line["mean"]) == score["mean"] == s.mean
            assert s.bca is not None
            assert float(line["bca_low"]) == score["bca"]["low"] == s.bca.low
            mean = f"{s.mean:.2f} ± {s.sd:.2f}"
            assert mean in texts["terminal"]
            assert f"{s.mean:.2f}" in texts["markdown"]
            assert f"{s.mean:.2f}" in texts["latex"]
            assert sum(int(line[f"rated_{v}"]) for v in range(1, 6)) == s.n
    assert all("ICC(2,1)" in texts[f] for f in ("terminal", "markdown", "latex"))


def test_marks_in_every_format(rated) -> None:
    result, _ = rated
    best = next(s for s in result.criteria[0].scores if s.mark == "best")
    assert best.method == "zebranet"
    assert f"*{best.mean:.2f} ± " in render(result, "terminal")
    assert f"**{best.mean:.2f}** ± " in render(result, "markdown")
    assert rf"\textbf{{{best.mean:.2f}}} $\pm$ " in render(result, "latex")


def test_hostile_names_stay_text(rated) -> None:
    result, readings = rated
    markdown = render(result, "markdown")
    assert not re.search(r"<(script|b|i)\b", markdown)
    wide = 0
    for line in markdown.splitlines():
        if line.startswith("| "):
            cells = len(re.findall(r"(?<!\\)\|", line))
            assert wide in (0, cells)  # every row of a table has the cells of its first
            wide = cells
        else:
            wide = 0
    latex = render(result, "latex")
    assert r"\input" not in latex
    assert latex.count("{") == latex.count("}")
    for text in (render(result, "csv"), agreement_csv(result), pairs_csv(result), ratings_csv(readings)):
        for row in csv.reader(io.StringIO(text)):
            assert not any(cell.startswith(("=", "@", "+")) for cell in row)
    json.loads(render(result, "json"))
    assert "=HYPERLINK(1)" in sentences_text(result)


def test_latex_compiles(rated) -> None:
    latex = render(rated[0], "latex")
    log = typeset(latex.splitlines()[0].partition("needs ")[2], latex)
    if log is None:
        pytest.skip("no TeX engine here")
    assert "Float too large" not in log


def test_ratings_csv_has_every_rating_that_counts(rated) -> None:
    _, readings = rated
    lines = rows(ratings_csv(readings))
    assert len(lines) == 3 * 2 * (8 * 4 + 4)
    assert sum(int(x["repeat"]) for x in lines) == 3 * 2 * 4
    assert {x["subject"] for x in lines} == {f"s{i}" for i in range(8)}


def test_the_agreement_table_has_every_pair_and_reader(rated) -> None:
    result, _ = rated
    lines = rows(agreement_csv(result))
    assert {x["measure"] for x in lines if x["other"] == ""} == {"ICC(2,1)", "ICC(2,k)", "Krippendorff alpha, ordinal"}
    assert len([x for x in lines if x["measure"] == "kappa, quadratic" and x["reader"] != x["other"]]) == 2 * 3
    assert len([x for x in lines if x["measure"] == "equal" and x["reader"] == x["other"]]) == 2 * 3


def test_the_figure_shows_what_the_numbers_say(rated) -> None:
    result, _ = rated
    figure = ratings_figure(result)
    shares, means = figure.axes[0], figure.axes[1]
    assert [t.get_text() for t in shares.get_yticklabels()][:2] != []
    scores = [s for s in result.criteria[0].scores if not s.control] + [s for s in result.criteria[0].scores if s.control]
    widths = np.array([p.get_width() for p in shares.patches]).reshape(len(scores), 5)
    assert np.allclose(widths, [[n / s.n for n in s.counts] for s in scores])
    squares = [line.get_xdata()[0] for line in means.lines if line.get_marker() == "s" and line.get_markersize() == 5]
    assert squares == [s.mean for s in scores]
    assert len(figure.axes) == 2 * len(result.criteria)


def test_an_unknown_format(rated) -> None:
    with pytest.raises(UserError, match="Did you mean 'latex'"):
        render(rated[0], "latx")
