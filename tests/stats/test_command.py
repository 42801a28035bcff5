"""``mrbench stats`` from run folders to tables, files and pictures."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys

import pytest

SIX = 15


def test_terminal_tables_and_sentences(mrbench, cohort):
    done = mrbench("stats", cohort, "--metrics", "psnr", "--resamples", 200)
    assert done.code == 0, done.err
    assert "PSNR: the methods differ (Friedman (Iman-Davenport) test of 6 methods on 12 subjects" in done.out
    assert "sinsr is better than nearest" in " ".join(done.out.split())
    assert "controls take no part: gt" in done.out
    assert "Holm over 15 pairs" in done.out


def test_json_is_complete_and_finite(mrbench, cohort):
    done = mrbench("stats", cohort, "--json", "--resamples", 200)
    assert done.code == 0, done.err
    document = json.loads(done.out, parse_constant=lambda c: pytest.fail(f"{c} in JSON"))
    assert [r["metric"]["name"] for r in document["results"]] == ["psnr", "gmsd"]  # coverage ranks nothing
    psnr, gmsd = document["results"]
    assert len(psnr["pairs"]) == len(gmsd["pairs"]) == SIX
    assert psnr["provenance"]["unit"] == "subjects"
    assert psnr["provenance"]["n"] == 12
    assert psnr["provenance"]["n_slices"] == 48
    assert {s["method"] for s in psnr["standings"][:2]} == {"sinsr", "res_srdiff"}
    assert [s["method"] for s in gmsd["standings"]] == [s["method"] for s in psnr["standings"]]  # a falling map of PSNR
    pair = next(p for p in psnr["pairs"] if {p["a"], p["b"]} == {"nearest", "bilinear"})
    assert pair["different"]
    assert pair["better"] == "bilinear"
    assert pair["interval"]["low"] <= pair["difference"] <= pair["interval"]["high"]
    assert pair["mixed"]["n_slices"] == 48
    assert {"p", "p_adjusted", "sentence"} <= {*pair, *pair["outcome"]}


def test_equal_seeds_give_equal_bytes_and_others_do_not(mrbench, cohort):
    def call(seed):
        return mrbench("stats", cohort, "--json", "--metrics", "psnr", "--resamples", 300, "--seed", seed).out

    assert call(1) == call(1)
    assert call(1) != call(2)


def test_files_and_pictures(mrbench, cohort, tmp_path):
    out = tmp_path / "out"
    done = mrbench("stats", cohort, "--out", out, "--resamples", 200)
    assert done.code == 0, done.err
    names = {p.name for p in out.iterdir()}
    pictures = {f"{kind}-{m}.{end}" for kind in ("cd", "forest") for m in ("psnr", "gmsd") for end in ("png", "pdf")}
    assert names == {"methods.csv", "pairs.csv", "sentences.txt", "statistics.json"} | pictures
    pairs = list(csv.DictReader(io.StringIO((out / "pairs.csv").read_text())))
    assert len(pairs) == 2 * SIX
    assert {p["unit"] for p in pairs} == {"subjects"}
    assert all(p["sentence"] for p in pairs)
    methods = list(csv.DictReader(io.StringIO((out / "methods.csv").read_text())))
    assert len(methods) == 12
    text = (out / "sentences.txt").read_text()
    assert text.count("PSNR: ") == SIX + 1
    for name in pictures:
        assert (out / name).stat().st_size > 2000


def test_control_gives_changes_against_it(mrbench, cohort, tmp_path):
    out = tmp_path / "out"
    options = ["--metrics", "psnr", "--control", "bicubic", "--resamples", 200]
    done = mrbench("stats", cohort, *options, "--out", out)
    assert done.code == 0, done.err
    assert "method - bicubic" in done.out
    assert "Holm over 5 pairs" in done.out
    assert not (out / "cd-psnr.png").exists()
    document = json.loads((out / "statistics.json").read_text())
    pairs = document["results"][0]["pairs"]
    assert len(pairs) == 5
    assert {p["b"] for p in pairs} == {"bicubic"}
    means = {s["method"]: s["mean"] for s in document["results"][0]["standings"]}
    changes = [100 * (means[p["a"]] - means["bicubic"]) / means["bicubic"] for p in pairs]
    assert [p["change_percent"] for p in pairs] == pytest.approx(changes)
    lines = list(csv.DictReader(io.StringIO((out / "pairs.csv").read_text())))
    assert [float(x["change_percent"]) for x in lines] == pytest.approx(changes)
    assert all(f"{c:+.1f} %" in done.out for c in changes)
    assert {s["letters"] for s in document["results"][0]["standings"]} == {""}


def test_presets_name_their_tests_and_assumptions(mrbench, cohort):
    field = mrbench("stats", cohort, "--metrics", "psnr", "--preset", "res_srdiff", "--json", "--resamples", 200).json
    where = field["results"][0]["provenance"]
    assert where["unit"] == "slices"
    assert where["n"] == 48
    assert where["posthoc"] in ("Dunn", "Tukey HSD")
    assert "takes slices as independent" in where["assumption"]
    assert any("count as" in n for n in field["results"][0]["notes"])
    ablation = mrbench("stats", cohort, "--metrics", "psnr", "--preset", "ablation", "--json", "--resamples", 200).json
    result = ablation["results"][0]
    assert result["omnibus"] is None
    assert all(p["normality"] for p in result["pairs"])
    assert {p["outcome"]["test"] for p in result["pairs"]} <= {"paired t", "Wilcoxon signed-rank"}


def test_margin_adds_equivalence(mrbench, cohort):
    done = mrbench("stats", cohort, "--metrics", "psnr", "--margin", "psnr=5", "--json", "--resamples", 200).json
    tests = [p["equivalence"] for p in done["results"][0]["pairs"]]
    assert all(t["equivalent"] and t["margin"] == 5 for t in tests)
    near = mrbench("stats", cohort, "--metrics", "psnr", "--margin", "psnr=0.001", "--json", "--resamples", 200).json
    assert not any(p["equivalence"]["equivalent"] for p in near["results"][0]["pairs"])
    assert "not shown to be equivalent within ±0.001 dB" in near["results"][0]["pairs"][0]["sentence"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--control", "bicubik"], "Did you mean 'bicubic'?"),
        (["--control", "gt"], "no run is called 'gt'"),
        (["--margin", "psnr"], "write METRIC=X"),
        (["--margin", "psnr=-1"], "write METRIC=X"),
        (["--margin", "lpips=1"], "no such metric is analysed"),
        (["--metrics", "coverage50"], "ranks nothing"),
        (["--metrics", "psnrr"], "Did you mean 'psnr'?"),
        (["--alpha", "0"], "between 0 and 0.5"),
        (["--resamples", "3"], "too few"),
        (["--posthoc", "nemenyi", "--control", "bicubic"], "no control"),
    ],
)
def test_mistakes_are_explained(mrbench, cohort, options, words):
    done = mrbench("stats", cohort, *options)
    assert done.code == 2
    assert words in done.err


def test_two_subjects_give_no_test(mrbench, write_run, tmp_path):
    for name, shift in (("a", 0.0), ("b", 1.0), ("c", 2.0)):
        write_run(name, {"psnr": [25 + shift, 26 + shift, 27 + shift, 28.5 + shift]}, {"s1": 2, "s2": 2})
    done = mrbench("stats", tmp_path / "runs", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert "PSNR: 2 subjects: no test" in done.out
    assert not list((tmp_path / "out").glob("*.png"))


def test_demonstration_weights_carry_a_banner(mrbench, write_run, tmp_path):
    people = {f"s{i}": 1 for i in range(4)}
    for name, tier in (("a", "demo"), ("b", "none")):
        write_run(name, {"psnr": [20.0, 22.0, 21.0, 25.0 + len(name)]}, people, tier=tier)
    assert "DEMONSTRATION WEIGHTS" in mrbench("stats", tmp_path / "runs").out
    write_run("c", {"psnr": [20.0, 22.0, 21.0, 25.0]}, people, tier="official")
    done = mrbench("stats", tmp_path / "runs")
    assert done.code == 2
    assert "demonstration weights do not stand beside other weights" in done.err


def test_hostile_names_break_nothing(mrbench, write_run, tmp_path):
    people = {f"s{i}": 1 for i in range(6)}
    names = ["<script>alert(1)</script>", r"$\frac{a}{b}$ & 50% _x_", "=1+1" + "very long " * 40]
    for m, name in enumerate(names):
        write_run(name, {"psnr": [20.0 + m, 22.0 + 2 * m, 21.5 + m, 25.0, 23.0 + m, 21.0]}, people)
    out = tmp_path / "out"
    done = mrbench("stats", tmp_path / "runs", "--out", out, "--resamples", 200)
    assert done.code == 0, done.err
    assert (out / "cd-psnr.png").stat().st_size > 2000
    cells = [c for row in csv.reader(io.StringIO((out / "methods.csv").read_text())) for c in row]
    assert not any(c.startswith("=") for c in cells)


def test_two_data_sets_stand_apart(mrbench, write_run, tmp_path):
    people = {f"s{i}": 1 for i in range(5)}
    for dataset in ("one", "two"):
        for m in range(3):
            write_run(f"m{m}", {"psnr": [20.0 + m, 22.0 - m, 21.5, 25.0 + m, 23.0]}, people, dataset=dataset)
    document = mrbench("stats", tmp_path / "runs", "--json", "--resamples", 200).json
    assert [d["dataset"] for d in document] == ["one", "two"]


def test_statistics_never_load_torch(cohort):
    code = f"""
import sys
from pathlib import Path
import mrbench.stats.presets, mrbench.stats.agreement, mrbench.report.stats_figures, mrbench.report.stats_text
heavy = {{"torch", "pandas", "scipy", "matplotlib", "statsmodels", "scikit_posthocs"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
from mrbench.report.statistics import build_statistics
from mrbench.stats.presets import Plan
from mrbench.store.runs import load_runs
build_statistics(load_runs([Path({str(cohort)!r})]), Plan(resamples=100))
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
