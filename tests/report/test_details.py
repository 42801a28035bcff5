"""What is told about one run."""

from __future__ import annotations

import io
import json

import pytest
from rich.cells import cell_len
from rich.console import Console

from mrbench.errors import UserError
from mrbench.report.details import DetailsView, details, status_counts, worst_items

INF = float("inf")
A = [30.0, 31, 32, 33, 34, 35]


def printed(found, width: int = 100) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(DetailsView(found))
    return stream.getvalue()


def test_worst_items_follow_the_direction_and_break_ties_by_id(make_run) -> None:
    run = make_run("a", {"psnr": [33, 30, 30, None, 35, INF], "gmsd": [0.1, 0.3, 0.2, 0.3, 0.1, 0.0]})
    assert [(w.item_id, w.value) for w in worst_items(run, "psnr", 3)] == [
        ("toy/s1/vol/001", 30.0), ("toy/s1/vol/002", 30.0), ("toy/s1/vol/000", 33.0),
    ]  # fmt: skip
    assert [w.item_id for w in worst_items(run, "gmsd", 3)] == ["toy/s1/vol/001", "toy/s2/vol/000", "toy/s1/vol/002"]
    assert len(worst_items(run, "psnr", 99)) == 5
    assert worst_items(run, "psnr", 99)[-1].value == INF


def test_statuses_come_with_their_reasons(make_run) -> None:
    status = {
        1: ("failed", "RuntimeError: a"),
        2: ("failed", "RuntimeError: a"),
        3: ("failed", "b"),
        4: ("oom", "CUDA out of memory"),
    }
    counts = status_counts(make_run("a", {"psnr": A}, status=status).rows)
    assert [(c.status, c.n) for c in counts] == [("ok", 2), ("failed", 3), ("oom", 1)]
    assert counts[0].reasons == ()
    assert counts[1].reasons == (("RuntimeError: a", 2), ("b", 1))
    assert counts[2].reasons == (("CUDA out of memory", 1),)


def test_details_hold_subjects_worst_and_reasons(make_run) -> None:
    run = make_run(
        "dps",
        {"psnr": [INF, *A[1:]], "ssim": [None, *A[1:]], "nmse": [None] * 6},
        unavailable={"lpips_vgg": "no weights"},
        draws=1,
    )
    found = details(run, worst=2)
    assert found.metric == "psnr"
    assert [w.value for w in found.worst] == [31, 32]
    assert found.subjects["s1"]["psnr"].mean == pytest.approx((100 + 31 + 32) / 3)
    assert found.subjects["s1"]["ssim"].n == 2
    assert set(found.subjects) == {"s1", "s2"}
    assert found.unavailable == {"nmse": "no item has a value", "lpips_vgg": "no weights"}
    d = json.loads(json.dumps(found.document(), allow_nan=False))
    assert d["worst"] == {
        "metric": "psnr",
        "items": [{"item_id": f"toy/s1/vol/00{i}", "subject": "s1", "value": 30.0 + i} for i in (1, 2)],
    }
    assert d["subjects"]["s2"]["psnr"] == {"mean": 34.0, "sd": 1.0, "n": 3}
    assert d["metrics"]["psnr"]["inf"] == 1
    assert d["statuses"] == [{"status": "ok", "n": 6, "reasons": {}}]
    assert details(run, "ssim", 1).worst[0].value == 31


def test_an_unknown_metric_is_refused(make_run) -> None:
    with pytest.raises(UserError, match="Did you mean 'psnr'"):
        details(make_run("a", {"psnr": A, "ssim": A}), "psn")


@pytest.mark.parametrize("width", [60, 100])
def test_the_view_shows_everything_within_the_width(make_run, width) -> None:
    names = ["psnr", "psnr_fg", "ssim", "gmsd", "nmse", "haarpsi", "lpips_alex", "data_consistency"]
    run = make_run(
        "[red]dps[/red]",
        {n: A for n in names},
        method="[bold]x[/bold]",
        folder="r",
        status={5: ("failed", "ValueError: [/] bad\nnews")},
        unavailable={"lpips_vgg": "no weights at hand"},
        environment={"processor": "Some CPU", "packages": {"torch": "2.0"}},
        warnings=["no subject ids"],
    )
    text = printed(details(run), width)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    for part in (
        "[bold]x[/bold] version 1",
        "[red]dps[/red]",
        "Some CPU",
        "torch 2.0",
        "no subject ids",
        "kernel=cubic",
        "aaaa000011112222",
    ):
        assert part in text
    assert "1 x ValueError: [/] bad news" in text
    assert "32.00 ± 1.58" in text
    assert "no weights" in text
    assert "worst 5 items by psnr" in text
    assert "toy/s1/vol/000" in text
    assert all(f"{t} " in text for t in ("PSNR", "PSNR fg", "SSIM", "GMSD", "LPIPS-alex", "DC"))


def test_a_run_without_rows_or_results_can_be_shown(make_run) -> None:
    empty = details(make_run("a", {"psnr": A}, drop=range(6)))
    assert empty.worst == ()
    assert "n/a" in printed(empty)
    failed = details(make_run("b", {"psnr": A}, status={i: ("failed", "x") for i in range(6)}))
    assert failed.subjects == {}
    assert "6 x x" in printed(failed)
    assert failed.unavailable == {"psnr": "no item succeeded"}
