"""Cards, options and signatures of the metrics of several draws."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from mrbench.errors import UserError
from mrbench.metrics.cards import cards, column_signature
from mrbench.metrics.uncertainty import Ensemble
from mrbench.metrics.uncertainty_calibration import expected_coverage
from mrbench.metrics.uncertainty_cards import WITH_DRAWS, uncertainty_cards

CARDS = {card.name: card for card in uncertainty_cards()}
NAMES = {
    "crps", "energy_score", "nll", "nll_kde", "nll_gauss", "coverage", "interval_width", "interval_score", "calibration_error",
    "rank_histogram", "spread", "spread_skill", "error_correlation", "ause",
}  # fmt: skip


def signature(name, ending="", draws=10, suffix="", **options):
    card = CARDS[name]
    chosen = card.parse(options)
    part = next(p for p in card.load().parts if p.ending == ending)
    return column_signature(card, chosen, suffix) + part.tail(chosen, draws)


def test_they_are_among_the_cards():
    assert set(CARDS) == NAMES == {card.name for card in cards() if card.kind == "draws"}
    assert set(WITH_DRAWS) <= NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_cards_are_complete_and_tell_what_the_metric_gives(name):
    card = CARDS[name]
    assert card.kind == "draws"
    assert card.summary
    assert card.paper
    assert card.licence
    assert card.notes
    assert all(f"{key} :" in (card.options.__doc__ or "") for key in card.options.model_fields)
    assert card.foreground
    assert card.higher_is_better == (name == "error_correlation")
    metric = card.load()(card.parse({}))
    parts = metric.parts
    metric.prepare(torch.device("cpu"))
    x = torch.rand(3, 4, 1, 6, 5, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(3, 6, 5, dtype=torch.bool)
    values = metric(Ensemble.of(x[:, 1:], x[:, 0], mask))
    assert set(values) == {part.ending + suffix for part in parts for suffix in ("", "_fg")}
    assert all(v.shape == (3,) and v.dtype == torch.float64 for v in values.values())
    assert all(torch.equal(values[p.ending], values[p.ending + "_fg"]) for p in parts)  # the mask is the frame
    assert set(metric(Ensemble.of(x[:, 1:], x[:, 0]))) == {part.ending for part in parts}


def test_signatures_hold_k_the_part_and_what_calibrated_draws_reach():
    assert signature("crps") == "CRPS|estimator:fair|draws:clipped|channels:mean|mask:none|mrbench:1|K:10"
    assert signature("crps", draws=2, suffix="_fg") == signature("crps").replace("none", "fg").replace("K:10", "K:2")
    assert signature("coverage", "90").endswith("|level:0.9|K:10|calibrated:0.8182")
    assert signature("coverage", "50", quantiles="linear").endswith("|level:0.5|K:10|calibrated:0.4091")
    assert signature("coverage", "90", draws=19).endswith("|level:0.9|K:19|calibrated:0.9")
    assert signature("rank_histogram", "_outside").endswith("|f0+fK|K:10|calibrated:0.1818")
    assert "|floor:max:1e-12|" in signature("nll")
    every = [signature(c.name, p.ending) for c in CARDS.values() for p in c.load().parts]
    assert len(set(every)) == len(every)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("crps", {"estimator": "ecdf"}),
        ("energy_score", {"estimator": "ecdf"}),
        ("nll", {"bins": 128}),
        ("nll", {"floor": "dirichlet"}),
        ("nll", {"epsilon": 1e-10}),
        ("nll", {"alpha": 0.5}),
        ("nll", {"log": "2"}),
        ("nll_kde", {"factor": 1}),
        ("nll_kde", {"smallest": 0.01}),
        ("nll_gauss", {"variance_floor": 1e-4}),
        ("coverage", {"quantiles": "linear"}),
        ("interval_width", {"quantiles": "linear"}),
        ("interval_score", {"quantiles": "linear"}),
        ("calibration_error", {"levels": "deciles-linear"}),
        ("error_correlation", {"kind": "pearson"}),
        ("ause", {"error": "squared"}),
        ("ause", {"steps": 10}),
    ],
)
def test_every_option_changes_the_signature(name, options):
    base = {"floor": "dirichlet"} if "alpha" in options else {}
    ending = CARDS[name].load().parts[0].ending
    assert signature(name, ending, **base, **options) != signature(name, ending, **base)


def test_the_list_above_knows_every_option():
    marks = test_every_option_changes_the_signature.pytestmark[0].args[1]
    assert {(name, key) for name, card in CARDS.items() for key in card.options.model_fields} == {
        (name, key) for name, options in marks for key in options
    }


def test_bad_options_are_refused_by_name():
    for name, bad in (("nll", {"epsilon": -1}), ("nll", {"bins": 1}), ("crps", {"estimator": "best"}), ("ause", {"steps": 1})):
        with pytest.raises(UserError, match=next(iter(bad))):
            CARDS[name].parse(bad)
    with pytest.raises(UserError, match=r"has no option 'eps'. Known options: bins, floor, epsilon"):
        CARDS["nll"].parse({"eps": 1e-8})


def test_expected_coverage():
    assert expected_coverage(0.8, "weibull", 10) == 0.8
    assert expected_coverage(0.9, "weibull", 10) == pytest.approx(9 / 11)
    assert expected_coverage(0.9, "linear", 10) == pytest.approx(0.9 * 9 / 11)


def test_cards_are_light():
    code = (
        "import sys, mrbench.metrics.uncertainty_cards as c; c.uncertainty_cards(); "
        "heavy = {'torch', 'pandas', 'scipy', 'skimage', 'matplotlib', 'numpy'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
