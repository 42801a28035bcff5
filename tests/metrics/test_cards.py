"""Cards, options and signatures of the built-in metrics."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from mrbench.cards import MetricCard, NoOptions
from mrbench.errors import UserError
from mrbench.metrics.cards import cards, column_signature, mrbench_metrics

CARDS = {card.name: card for card in cards() if card.kind != "draws"}  # those: test_uncertainty_cards.py
NAMES = {
    "psnr", "ssim", "ms_ssim", "gmsd", "nmse", "haarpsi", "lpips_alex", "lpips_vgg", "lpips_squeeze", "data_consistency",
    "mae_native", "bias_native",
}  # fmt: skip


def signature(name, suffix="", **options):
    return column_signature(CARDS[name], CARDS[name].parse(options), suffix)


def test_the_hook_brings_all_metrics():
    assert {card.name for card in mrbench_metrics() if card.kind != "draws"} == NAMES == set(CARDS)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_cards_are_complete(name):
    card = CARDS[name]
    assert card.summary
    assert card.title
    assert card.paper
    assert card.licence
    assert card.min_side >= 1
    assert callable(card.load())
    assert signature(name).startswith(f"{card.title}|")
    assert signature(name).endswith(f"|mrbench:{card.version}")
    assert card.higher_is_better == (name in {"psnr", "ssim", "ms_ssim", "haarpsi"})
    described = card.options.__doc__ or ""
    assert all(f"{key} :" in described for key in card.options.model_fields)


def test_min_side_is_what_the_implementation_needs():
    for card in CARDS.values():
        if card.kind == "image":
            assert card.min_side == getattr(card.load()(card.parse({})), "smallest")  # noqa: B009
            assert card.foreground == getattr(card.load(), "foreground", False)


def test_signatures():
    assert signature("ssim") == (
        "SSIM|gauss11|sigma:1.5|L:1|K:0.01,0.03|cov:pop|border:valid|down:none|channels:mean|mask:none|mrbench:1"
    )
    assert signature("ssim", "_fg") == signature("ssim").replace("mask:none", "mask:fg")
    assert "|net:squeeze|v0.1|gray:repeat3|range:-1..1|" in signature("lpips_squeeze")
    assert len({signature(name) for name in NAMES}) == len(NAMES)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("psnr", "data_range", "refmax"),
        ("psnr", "data_range", 2.5),
        ("psnr", "epsilon", 1e-8),
        ("psnr", "quantise", "uint8"),
        ("ssim", "window", "uniform7"),
        ("ssim", "covariance", "sample"),
        ("ssim", "downsample", "auto"),
        ("ssim", "data_range", 0.7),
        ("ssim", "border", "reflect"),
        ("ssim", "quantise", "uint8"),
        ("ms_ssim", "data_range", "refmax"),
        ("gmsd", "c", 0.0026),
        ("gmsd", "ddof", 1),
        ("haarpsi", "c", 5),
        ("haarpsi", "alpha", 5.8),
    ],
)
def test_every_option_changes_the_signature(name, option, value):
    assert signature(name, **{option: value}) != signature(name)


def test_the_list_above_knows_every_option():
    marks = test_every_option_changes_the_signature.pytestmark[0].args[1]
    assert {(name, key) for name, card in CARDS.items() for key in card.options.model_fields} == {m[:2] for m in marks}


def test_bad_options_are_refused_by_name():
    with pytest.raises(UserError, match=r"has no option 'windows'. Known options: window, covariance"):
        CARDS["ssim"].parse({"windows": "gauss11"}, "metric.ssim")
    for bad in (0, -1, "max"):
        with pytest.raises(UserError, match="data_range"):
            CARDS["psnr"].parse({"data_range": bad})
    assert CARDS["psnr"].parse({"data_range": "2.5"}).data_range == 2.5


def test_columns_that_do_not_exist_are_refused():
    with pytest.raises(UserError, match=r"metric lpips_alex has no column lpips_alex_fg\. It has: lpips_alex\."):
        signature("lpips_alex", "_fg")
    with pytest.raises(UserError, match=r"It has: ssim, ssim_fg\."):
        signature("ssim", "_bg")


def test_foreground_signature_of_a_card_that_names_no_mask():
    card = MetricCard("mine", lambda options: None, signature=lambda options: "L:1", foreground=True, version=3)
    assert column_signature(card, NoOptions(), "_fg") == "mine|L:1|mask:fg|mrbench:3"


def test_cards_are_light():
    code = (
        "import sys, mrbench.metrics.cards as c; c.cards(); "
        "heavy = {'torch', 'pandas', 'scipy', 'skimage', 'matplotlib', 'piq', 'lpips'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_data_consistency():
    from mrbench.errors import MetricUnavailable

    class Operator:
        def forward(self, x):
            return torch.nn.functional.avg_pool2d(x, 2)

    class Measurement:
        def __init__(self, y, operator):
            self.y, self.operator = y, operator

    metric = CARDS["data_consistency"].load()(NoOptions())
    metric.prepare(torch.device("cpu"))
    x = torch.rand(3, 2, 8, 6, generator=torch.Generator().manual_seed(0))
    y = Operator().forward(x)
    assert (metric(x, Measurement(y, Operator()))[""] == 0).all()
    shifted = y + torch.tensor([0.0, 0.25, -2.0])[:, None, None, None]
    values = metric(x, Measurement(shifted, Operator()))[""]
    assert values.dtype == torch.float64
    assert torch.allclose(values, torch.tensor([0.0, 0.25, 2.0], dtype=torch.float64), atol=1e-6)
    with pytest.raises(MetricUnavailable, match="needs the degradation as a 2-D operator"):
        metric(x, Measurement(y, None))
    with pytest.raises(ValueError, match="H x is"):
        metric(x, Measurement(y[..., 1:], Operator()))
