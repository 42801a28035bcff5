"""Published numbers: read as printed, chosen by scale, shown apart, never ranked."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests_support import Done

from mrbench.plugins import discover
from mrbench.protocol import named_protocols
from mrbench.report.paper_numbers import METRICS, TITLE, load_numbers, load_papers, paper_table, scale_text

KNOWN_DATASETS = {
    "", "fastmri_brain", "fastmri_knee", "fastmri_prostate", "brain_tumor", "oasis2", "prostate", "bids",
}  # fmt: skip


def value(paper: str, table: str, dataset: str, scale: str, method: str, metric: str) -> str:
    found = [
        n.value
        for n in load_numbers()
        if (n.paper, n.table, n.dataset, n.scale, n.method_in_paper, n.metric) == (paper, table, dataset, scale, method, metric)
    ]
    assert len(found) == 1, found
    return found[0]


def test_every_number_is_one_with_known_names() -> None:
    numbers, methods = load_numbers(), discover().methods
    assert len(numbers) > 100
    for n in numbers:
        assert float(n.value) >= 0
        assert n.sd == "" or float(n.sd) > 0
        assert n.metric in METRICS
        assert n.method in methods.names()
        assert n.dataset in KNOWN_DATASETS
        assert n.method_in_paper
        if n.metric == "ssim":
            assert float(n.value) <= 1
    keys = [(n.paper, n.table, n.dataset, n.scale, n.method_in_paper, n.metric) for n in numbers if n.dataset]
    assert len(set(keys)) == len(keys)


def test_papers_name_protocols_that_exist() -> None:
    for paper in load_papers().values():
        assert set(paper.protocols) <= set(named_protocols())
        assert paper.notes


@pytest.mark.parametrize(
    ("key", "printed"),
    [
        (("msp_sr", "3", "fastmri_brain", "4", "MSP-SR", "lpips_vgg"), "0.1450"),
        (("msp_sr", "3", "fastmri_brain", "4", "I2SB", "psnr"), "16.01"),
        (("msp_sr", "4", "fastmri_brain", "2", "MSP-SR, TD stage only", "psnr"), "5.051"),
        (("res_srdiff", "1", "prostate", "3x3x2", "Bicubic", "psnr"), "25.47"),
        (("res_srdiff", "1", "bids", "4x4x4", "Res-SRDiff", "gmsd"), "0.07"),
        (("res_srdiff", "2", "bids", "4x4x4", "Res-SRDiff", "gmsd"), "0.09"),
        (("scale_cascaded", "1", "fastmri_brain", "2", "Scale-cascaded DiffPIR", "psnr"), "31.27"),
        (("scale_cascaded", "2", "fastmri_brain", "4", "Scale-cascaded DiffPIR, 3 levels", "psnr"), "31.69"),
        (("scale_cascaded", "1", "fastmri_prostate", "2", "DiffPIR", "ssim"), "0.94"),
    ],
)
def test_numbers_are_as_printed(key: tuple[str, ...], printed: str) -> None:
    assert value(*key) == printed


def test_numbers_of_the_scale_and_of_the_data_set_first() -> None:
    table = paper_table("fastmri_knee", (2.0, 2.0))
    assert table.scale == "2"
    assert table.rows[0].dataset == "fastmri_knee"
    assert table.parts[0].paper.key == "scale_cascaded"
    assert {r.scale for r in table.rows} == {"2", ""}
    assert "those on fastmri_knee first" in table.intro
    brain = paper_table("bids", (4.0, 4.0, 4.0))
    assert brain.rows[0].text("ssim") == "0.31 ± 0.16"
    assert {"4", "4x4x4", ""} == {r.scale for r in brain.rows}
    assert "none of them on sample" in paper_table("sample", (8.0, 8.0)).intro
    assert not [r for r in paper_table("sample", (5.0, 5.0)).rows if r.scale]
    assert paper_table("sample", (2.0, 2.0), []).intro == "No published number at 2x in-plane is recorded."
    assert scale_text((2, 3, 3)) == "3"
    assert scale_text((4, 1)) == "4x1"


def test_numbers_of_which_nobody_knows_the_data_set_stay_together() -> None:
    row = next(r for r in paper_table("prostate", (3.0, 3.0)).rows if r.method == "i2sb" and r.paper == "res_srdiff")
    assert row.text("psnr") == "24.74 or 23.22"
    assert "which is prostate and which brain is not recorded" in row.notes[0]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def board(runs: Path, mrbench: Callable[..., Done]) -> Callable[..., Done]:
    """The leaderboard command on two small runs."""
    if not list(runs.rglob("manifest.json")):
        done = mrbench(
            "run", "--method", "bicubic", "--method", "nearest", "--dataset", "sample", "--subset", 2, "--metrics", "psnr", "--out", runs,
            "--no-pictures", "--images", "none",
        )  # fmt: skip
        assert done.code == 0, done.err
    return lambda *arguments: mrbench("leaderboard", runs, *arguments)


def test_every_format_shows_them_apart_and_nothing_else_changes(board: Callable[..., Done]) -> None:
    for form in ("terminal", "markdown", "latex", "html"):
        plain, more = board("--format", form).out, board("--format", form, "--paper").out
        assert "5.051" not in plain
        assert "28.71" not in plain
        assert TITLE in more
        assert "28.71" in more
        assert "PSNR of the brain at 4x" in more or "brain at 4x (31.69 dB) is above that at 2x (31.27 dB)" in " ".join(
            more.split()
        )
        assert plain.split("Published")[0].strip()[:200] in more
        for line in more.splitlines():
            if "28.71" in line:
                assert not any(mark in line for mark in ("**", "<u>", r"\textbf", r"\underline", 'class="best"', "*28.71 ±"))
    html = board("--format", "html", "--paper").out
    assert html.count("<table>") == 1 + len(load_papers())
    assert html.rstrip().endswith("</html>")


def test_csv_and_json_keep_them_in_places_of_their_own(board: Callable[..., Done]) -> None:
    lines = list(csv.DictReader(io.StringIO(board("--format", "csv", "--paper").out)))
    published = [line for line in lines if line["tier"] == "published"]
    assert len(lines) - len(published) == 2
    assert all(line["psnr_mean"] == "" and line["psnr_mark"] == "" for line in published)
    assert "31.69" in {line["published_psnr"] for line in published}
    plain, document = json.loads(board("--format", "json").out), json.loads(board("--format", "json", "--paper").out)
    assert "published" not in plain
    assert document["published"]["ranked"] is False
    assert {p["key"] for p in document["published"]["papers"]} == set(load_papers())
    assert {k: v for k, v in document.items() if k != "published"} == plain
