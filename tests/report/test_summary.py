"""Aggregates of one run and its JSON summary."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from mrbench.report.summary import PSNR_CAP, aggregate, summarize, summary_document

SUBJECTS = np.array(["a", "a", "b"], dtype=object)
INF, NAN = float("inf"), float("nan")


def test_slices_and_subjects_give_their_own_mean_sd_and_n() -> None:
    values = np.array([1.0, 3.0, 8.0])
    slices = aggregate(values, SUBJECTS)
    subjects = aggregate(values, SUBJECTS, "subjects")
    assert slices is not None
    assert subjects is not None
    assert (slices.mean, slices.median, slices.n, slices.n_subjects) == (4.0, 3.0, 3, 2)
    assert slices.sd == pytest.approx(np.std(values, ddof=1))
    assert (subjects.mean, subjects.median, subjects.n, subjects.n_subjects) == (5.0, 5.0, 2, 2)  # means 2 and 8
    assert subjects.sd == pytest.approx(math.sqrt(18))


def test_a_single_value_has_no_sd() -> None:
    one = aggregate(np.array([2.5]), np.array(["a"], dtype=object))
    assert one is not None
    assert one.sd is None
    assert one.document() == {"mean": 2.5, "sd": None, "n": 1}
    several_of_one_subject = aggregate(np.array([1.0, 2.0]), np.array(["a", "a"], dtype=object), "subjects")
    assert several_of_one_subject is not None
    assert (several_of_one_subject.n, several_of_one_subject.sd) == (1, None)


def test_nan_is_left_out_and_counted() -> None:
    found = aggregate(np.array([1.0, NAN, 3.0]), SUBJECTS)
    assert found is not None
    assert (found.mean, found.n, found.nan) == (2.0, 2, 1)
    assert found.document() == {"mean": 2.0, "sd": pytest.approx(math.sqrt(2)), "n": 2, "nan": 1}
    assert aggregate(np.array([NAN, NAN, NAN]), SUBJECTS) is None


def test_infinite_psnr_enters_as_the_cap_and_is_counted() -> None:
    found = aggregate(np.array([INF, 120.0, 40.0]), SUBJECTS, cap=PSNR_CAP)
    assert found is not None
    assert found.mean == pytest.approx((100 + 100 + 40) / 3)
    assert (found.inf, found.capped, found.n) == (1, 2, 3)
    assert found.document()["inf"] == 1


@pytest.mark.parametrize("over", ["slices", "subjects"])
def test_infinity_without_a_cap_makes_the_mean_infinite_and_null_in_json(over) -> None:
    found = aggregate(np.array([INF, 1.0, 2.0]), SUBJECTS, over)
    assert found is not None
    assert math.isinf(found.mean)
    assert found.sd is None
    assert found.document()["mean"] is None
    assert found.document()["inf"] == 1


def test_both_infinities_give_no_warning_and_null() -> None:
    found = aggregate(np.array([INF, -INF, 2.0]), SUBJECTS)
    assert found is not None
    assert found.document() == {"mean": None, "sd": None, "n": 3, "inf": 2}


def test_the_document_has_exactly_the_documented_keys(make_run) -> None:
    run = make_run(
        "dps",
        {"psnr": [30, 31, 32, INF, 33, 34], "ssim": [0.9, 0.8, None, 0.9, 0.9, 0.9], "nmse": [None] * 6},
        status={4: ("oom", "out of memory"), 5: ("failed", "boom")},
        unavailable={"lpips_vgg": "no weights at hand"},
        tier="demo",
        method="dps_method",
        row={"nfe": 100, "seconds": 0.25},
    )
    d = summary_document(run)
    assert list(d) == [
        "run", "label", "method", "tier", "dataset", "protocol", "protocol_hash", "items", "ok", "failed", "skipped",
        "n_subjects", "metrics", "seconds_per_item", "nfe", "unavailable",
    ]  # fmt: skip
    assert (d["label"], d["method"], d["tier"], d["dataset"], d["protocol"]) == (
        "dps",
        "dps_method",
        "demo",
        "toy",
        "uniform-x4",
    )
    assert (d["items"], d["ok"], d["failed"], d["skipped"], d["n_subjects"]) == (6, 4, 2, 0, 2)
    assert d["metrics"]["psnr"] == {
        "mean": (30 + 31 + 32 + 100) / 4,
        "sd": pytest.approx(np.std([30, 31, 32, 100], ddof=1)),
        "n": 4,
        "inf": 1,
    }
    assert d["metrics"]["ssim"] == {
        "mean": pytest.approx(2.6 / 3),
        "sd": pytest.approx(np.std([0.9, 0.8, 0.9], ddof=1)),
        "n": 3,
        "nan": 1,
    }
    assert "nmse" not in d["metrics"]
    assert d["unavailable"] == {"nmse": "no item has a value", "lpips_vgg": "no weights at hand"}
    assert (d["seconds_per_item"], d["nfe"]) == (0.25, 100)
    json.dumps(d, allow_nan=False)


def test_a_metric_for_some_items_only_is_a_metric(make_run) -> None:
    run = make_run("a", {"psnr": [30, None, 32, 33, 34, 35]}, unavailable={"psnr": "for some items: too small"})
    d = summary_document(run)
    assert d["metrics"]["psnr"]["n"] == 5
    assert d["unavailable"] == {}


def test_a_run_in_which_all_failed_has_no_metrics_but_reasons(make_run) -> None:
    run = make_run("a", {"psnr": [None] * 6}, status={i: ("failed", "x") for i in range(6)})
    d = summary_document(run)
    assert (d["ok"], d["failed"], d["n_subjects"], d["metrics"]) == (0, 6, 0, {})
    assert d["unavailable"] == {"psnr": "no item succeeded"}


def test_a_run_without_rows_can_be_summarised(make_run) -> None:
    run = make_run("a", {"psnr": [1.0] * 6}, drop=range(6))
    assert summarize(run) == {}
    d = summary_document(run)
    assert (d["items"], d["ok"], d["seconds_per_item"], d["nfe"]) == (0, 0, None, None)


def test_the_order_of_rows_does_not_move_a_bit(make_run) -> None:
    values = [1e16, 1.0, -1e16, 1.0, 1.0, 1.0]  # sums of these depend on their order
    assert sum(values) != sum(values[::-1])
    one = make_run("a", {"psnr": values})
    other = make_run("b", {"psnr": values}, reverse=True, batch=1)
    assert list(one.rows["item_id"]) != list(other.rows["item_id"])
    assert summarize(one)["psnr"] == summarize(other)["psnr"]
