"""Metrics of several draws against brute force, closed forms and other libraries, and their edge cases."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch

from mrbench.errors import MetricUnavailable
from mrbench.metrics.uncertainty import Ensemble, ensembles
from mrbench.metrics.uncertainty_calibration import quantile, rank_histogram
from mrbench.metrics.uncertainty_cards import NEEDS_DRAWS, uncertainty_cards
from mrbench.metrics.uncertainty_scores import ensemble_crps
from mrbench.metrics.uncertainty_sorting import merge_exchange, sort_planes
from mrbench.metrics.uncertainty_spread import average_ranks, sparsification

CARDS = {card.name: card for card in uncertainty_cards()}
CPU = torch.device("cpu")
DRAWS = (2, 3, 7, 10, 33)


def load(name, **options):
    metric = CARDS[name].load()(CARDS[name].parse(options))
    metric.prepare(CPU)
    return metric


def draw(k, batch=2, size=(12, 9), channels=1, spread=1.0, bias=0.0, dtype=torch.float64, seed=0):
    """Exchangeable draws and ground truth inside [0, 1] on the right, black on the left; ``spread`` scales the draws."""
    generator = torch.Generator().manual_seed(seed)
    centre = 0.3 + 0.4 * torch.rand(batch, 1, channels, *size, generator=generator, dtype=torch.float64)
    width = 0.01 + 0.05 * torch.rand(batch, 1, channels, *size, generator=generator, dtype=torch.float64)
    noise = torch.randn(batch, k + 1, channels, *size, generator=generator, dtype=torch.float64).clamp(-4, 4)
    x = centre + width * noise * torch.tensor([1.0] + [spread] * k)[:, None, None, None]
    x[:, 1:] += bias
    x[..., : size[1] // 3] = 0
    mask = torch.ones(batch, *size, dtype=torch.bool)
    mask[..., : size[1] // 3] = False
    return x[:, 1:].to(dtype), x[:, 0].to(dtype), mask


def value(name, x, y, mask=None, ending="", **options):
    return load(name, **options)(Ensemble.of(x, y, mask))[ending]


def pixels(x, y):
    """``[B, P, K]`` and ``[B, P]`` as numpy."""
    b, k = x.shape[:2]
    return x.reshape(b, k, -1).transpose(1, 2).numpy(), y.reshape(b, -1).numpy()


# -- sorting -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("n", range(1, 11))
def test_the_network_sorts_every_zero_one_sequence(n):
    for bits in itertools.product((0, 1), repeat=n):
        row = list(bits)
        for i, j in merge_exchange(n):
            assert i < j
            row[i], row[j] = min(row[i], row[j]), max(row[i], row[j])
        assert row == sorted(bits)


@pytest.mark.parametrize("k", [1, 2, 16, 17, 31, 64, 100])
def test_sorted_planes(k):
    planes = torch.randint(0, 9, (k, 70_000 if k < 5 else 501), generator=torch.Generator().manual_seed(k)).float()
    before = planes.clone()
    assert torch.equal(sort_planes(planes), planes.sort(0).values)
    assert torch.equal(planes, before)


# -- scores --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("k", DRAWS)
@pytest.mark.parametrize("estimator", ["fair", "ecdf"])
def test_crps_and_energy_score_are_their_pairwise_forms(k, estimator):
    x, y, mask = draw(k, channels=3)
    over = 2 * k * (k - 1 if estimator == "fair" else k)
    p, t = pixels(x, y)
    pairwise = np.abs(p - t[..., None]).mean(-1) - np.abs(p[..., :, None] - p[..., None, :]).sum((-1, -2)) / over
    inside = mask[:, None].expand(-1, 3, -1, -1).reshape(2, -1).numpy()
    found = load("crps", estimator=estimator)(Ensemble.of(x, y, mask))
    assert found[""].numpy() == pytest.approx(pairwise.mean(1), abs=1e-14)
    assert found["_fg"].numpy() == pytest.approx([m[i].mean() for m, i in zip(pairwise, inside, strict=True)], abs=1e-14)
    single = value("crps", x.float(), y.float(), estimator=estimator)
    assert single.numpy() == pytest.approx(pairwise.mean(1), abs=1e-7)

    found = load("energy_score", estimator=estimator)(Ensemble.of(x, y, mask))
    for region, chosen in (("", np.ones_like(inside)), ("_fg", inside)):
        for b in range(2):
            q, s = p[b][chosen[b]], t[b][chosen[b]]
            norms = np.linalg.norm(q[:, :, None] - q[:, None, :], axis=0).sum() / over
            expected = np.linalg.norm(q - s[:, None], axis=0).mean() - norms
            assert found[region][b] == pytest.approx(expected, rel=1e-12)


def test_fair_crps_does_not_depend_on_k_and_is_least_for_honest_draws():
    # one pixel: N(0, 1) scaled; CRPS of honest normal draws is s / sqrt(pi) on average (Gneiting & Raftery 2007)
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(1, 9, 1, 400, 400, generator=generator, dtype=torch.float64)
    scores = {}
    for k, spread in ((2, 1.0), (8, 1.0), (8, 0.5), (8, 1.6)):
        e = Ensemble.of(0.5 + 0.1 * spread * z[:, 1 : k + 1], 0.5 + 0.1 * z[:, 0], clip=False)
        scores[k, spread] = float(ensemble_crps(e).mean())
    assert scores[2, 1.0] == pytest.approx(0.1 / math.sqrt(math.pi), rel=0.02)
    assert scores[8, 1.0] == pytest.approx(0.1 / math.sqrt(math.pi), rel=0.01)
    assert scores[8, 1.0] < min(scores[8, 0.5], scores[8, 1.6])


def test_gaussian_crps_is_the_integral_of_its_definition():
    x, y, _ = draw(5, batch=1, size=(3, 6))
    e = Ensemble.of(x, y)
    grid = np.linspace(-1, 2, 60_001)
    m, v = e.mean.numpy(), np.maximum(e.variance.numpy(), 1e-6)
    squares = (scipy.stats.norm.cdf(grid, m[:, None], np.sqrt(v)[:, None]) - (grid >= e.truth.numpy()[:, None])) ** 2
    expected = np.trapezoid(squares, grid, axis=1).mean()
    assert value("crps", x, y, estimator="gaussian").item() == pytest.approx(expected, abs=1e-4)


def test_against_scoringrules_if_installed():
    reference = pytest.importorskip("scoringrules")
    x, y, _ = draw(10)
    p, t = pixels(x, y)
    for ours, theirs in (("fair", "fair"), ("ecdf", "nrg")):
        expected = reference.crps_ensemble(t, p, estimator=theirs).mean(1)
        assert value("crps", x, y, estimator=ours).numpy() == pytest.approx(expected, abs=1e-12)


# -- likelihoods ---------------------------------------------------------------------------------------------------
def test_histogram_nll_counts_bins_and_misses():
    # 4 pixels, 4 draws: 2 hits, a miss, the top value in the last bin, the neighbouring bin
    y = torch.tensor([0.5, 0.5, 1.0, 0.25]).view(1, 1, 2, 2)
    x = torch.tensor([[0.5, 0.1, 1.0, 0.2499], [0.5039, 0.2, 0.999, 0.25], [0.4999, 0.9, 0.997, 0.26], [0.9, 0.3, 1.0, 0.2]])
    x = x.view(1, 4, 1, 2, 2)
    hits = np.array([2, 0, 4, 1])
    e = Ensemble.of(x, y, torch.tensor([[[True, False], [True, True]]]))
    found = load("nll")(e)
    assert found["_miss"].item() == 0.25
    assert found["_miss_fg"].item() == 0
    assert found[""].item() == pytest.approx(-np.log(np.maximum(hits / 4, 1e-12)).mean())
    assert found["_fg"].item() == pytest.approx(-np.log([0.5, 1, 0.25]).mean())
    assert load("nll", floor="add", epsilon=0.1)(e)[""].item() == pytest.approx(-np.log(hits / 4 + 0.1).mean())
    assert load("nll", floor="dirichlet", alpha=0.5)(e)[""].item() == pytest.approx(-np.log((hits + 0.5) / (4 + 128)).mean())
    assert load("nll", log="2", epsilon=2**-10)(e)[""].item() == pytest.approx((1 + 10 + 0 + 2) / 4)
    exact = load("nll", epsilon=0)(e)
    assert exact[""].item() == math.inf
    assert exact["_fg"].item() == pytest.approx(found["_fg"].item())


def test_histogram_nll_is_its_miss_share_times_the_surprise_plus_little():
    x, y, mask = draw(10, size=(40, 40), spread=0.3)
    small, large = (load("nll", epsilon=eps)(Ensemble.of(x, y, mask)) for eps in (1e-8, 1e-16))
    assert torch.allclose(large[""] - small[""], small["_miss"] * math.log(1e8))
    assert (small["_miss"] > 0.1).all()


@pytest.mark.parametrize("k", DRAWS)
def test_kde_and_gaussian_nll_are_densities_of_scipy(k):
    x, y, _ = draw(k, batch=1)
    p, t = (a[0] for a in pixels(x, y))
    s = p.std(1, ddof=1)
    h = np.maximum(1.06 * s * k**-0.2, 1 / 256)
    expected = -np.log(scipy.stats.norm.pdf(t[:, None], p, h[:, None]).mean(1)).mean()
    assert value("nll_kde", x, y).item() == pytest.approx(expected, rel=1e-10)
    expected = -scipy.stats.norm.logpdf(t, p.mean(1), np.sqrt(np.maximum(s**2, 1e-6))).mean()
    assert value("nll_gauss", x, y).item() == pytest.approx(expected, rel=1e-10)


def test_kde_nll_does_not_underflow():
    x, y = torch.zeros(1, 4, 1, 2, 2), torch.ones(1, 1, 2, 2)
    h = 1 / 256  # the density is exp(-32768): zero in float64
    assert value("nll_kde", x, y).item() == pytest.approx(256**2 / 2 + math.log(h) + math.log(2 * math.pi) / 2)


# -- calibration ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("k", DRAWS)
@pytest.mark.parametrize("rule", ["weibull", "linear"])
def test_quantiles_are_those_of_numpy(k, rule):
    x, y, _ = draw(k)
    e = Ensemble.of(x, y)
    for q in (0.05, 0.1, 0.25, 0.5, 0.9, 0.95):
        expected = np.quantile(e.draws.numpy(), q, axis=0, method=rule)
        assert quantile(e, q, rule).numpy() == pytest.approx(expected, abs=1e-14)


def test_intervals():
    # sorted draws 0.1 .. 0.9, K = 9: the weibull interval of 80 % goes from the first to the last draw
    x = torch.arange(1, 10, dtype=torch.float64).flip(0).view(1, 9, 1, 1, 1).expand(1, 9, 1, 2, 2) / 10
    y = torch.tensor([0.1, 0.5, 0.95, 0.0], dtype=torch.float64).view(1, 1, 2, 2)
    assert value("coverage", x, y, ending="80").item() == 0.5  # closed: 0.1 is covered
    assert value("interval_width", x, y, ending="80").item() == pytest.approx(0.8)
    assert value("interval_score", x, y, ending="80").item() == pytest.approx(0.8 + 2 / 0.2 * (0.05 + 0.1) / 4)
    assert value("interval_width", x, y, ending="50").item() == pytest.approx(0.5)
    assert value("interval_width", x, y, ending="90").item() == pytest.approx(0.8)  # K < 19: the range of the draws


@pytest.mark.parametrize("k", [4, 10, 19, 40])
def test_exchangeable_draws_reach_the_values_of_calibrated_draws(k):
    x, y, mask = draw(k, batch=1, size=(240, 200))
    e = Ensemble.of(x, y, mask)
    for name, tolerance in (("coverage", 0.02), ("spread_skill", 0.02), ("rank_histogram", 0.01)):
        for part in CARDS[name].load().parts:
            if part.calibrated is not None:
                for options in ({}, {"quantiles": "linear"}) if name == "coverage" else ({},):
                    chosen = CARDS[name].parse(options)
                    # between the sorted draws, coverage follows the line only about: widest for few draws
                    allowed = tolerance + (0.06 / k if name == "coverage" else 0)
                    found = load(name, **options)(e)[f"{part.ending}_fg"].item()
                    assert found == pytest.approx(part.calibrated(chosen, k), abs=allowed), (name, part.ending, options)
    assert load("calibration_error")(e)["_fg"].item() < 0.01
    assert load("rank_histogram")(e)["_fg"].item() < 0.05


def test_over_confident_and_biased_draws_are_exposed():
    honest, narrow, biased = (Ensemble.of(*draw(10, size=(60, 60), **w)) for w in ({}, {"spread": 0.3}, {"bias": 0.05}))
    for name in ("crps", "energy_score", "nll_kde", "nll_gauss", "calibration_error", "rank_histogram"):
        for worse in (narrow, biased):
            assert (load(name)(worse)["_fg"] > load(name)(honest)["_fg"]).all(), name
    assert (load("spread_skill")(narrow)["_fg"] < 0.4).all()
    assert (load("coverage")(narrow)["80_fg"] < 0.5).all()
    assert (load("rank_histogram")(narrow)["_outside_fg"] > 0.4).all()
    somewhat = Ensemble.of(*draw(10, size=(60, 60), spread=0.6))
    assert (load("nll")(somewhat)["_fg"] < load("nll")(honest)["_fg"]).all()  # why it is not ranked
    assert (load("crps")(somewhat)["_fg"] > load("crps")(honest)["_fg"]).all()


def test_rank_histogram_by_hand():
    # ranks: below 0 of 3 -> 0; below all -> 3; one tie at ranks 1 and 2; all equal -> a quarter each
    x = torch.tensor([[0.5, 0.1, 0.2, 0.0], [0.6, 0.2, 0.4, 0.0], [0.7, 0.3, 0.6, 0.0]]).view(1, 3, 1, 2, 2)
    y = torch.tensor([0.1, 0.9, 0.4, 0.0]).view(1, 1, 2, 2)
    mask = torch.tensor([[[True, True], [True, False]]])
    e = Ensemble.of(x, y, mask)
    found = rank_histogram(e)
    assert found[""][0].tolist() == pytest.approx([1.25 / 4, 0.75 / 4, 0.75 / 4, 1.25 / 4])
    assert found["_fg"][0].tolist() == pytest.approx([1 / 3, 0.5 / 3, 0.5 / 3, 1 / 3])
    assert load("rank_histogram")(e)[""].item() == pytest.approx(0.25)
    assert load("rank_histogram")(e)["_outside_fg"].item() == pytest.approx(2 / 3)
    cumulated = np.cumsum(found[""][0].numpy())[:3]
    assert load("calibration_error")(e)[""].item() == pytest.approx(np.abs(cumulated - [0.25, 0.5, 0.75]).mean())


# -- spread --------------------------------------------------------------------------------------------------------
def test_spread_and_correlation_against_numpy_and_scipy():
    x, y, mask = draw(6)
    p, t = pixels(x, y)
    e = Ensemble.of(x, y, mask)
    m, s = p.mean(-1), p.std(-1, ddof=1)
    assert load("spread")(e)[""].numpy() == pytest.approx(s.mean(1))
    expected = np.sqrt(7 / 6 * (s**2).mean(1) / ((m - t) ** 2).mean(1))
    assert load("spread_skill")(e)[""].numpy() == pytest.approx(expected)
    for b in range(2):
        for region, inside in (("", slice(None)), ("_fg", mask[b].reshape(-1).numpy())):
            error, deviation = np.abs(m - t)[b][inside], s[b][inside]
            found = load("error_correlation")(e)[region][b].item()
            assert found == pytest.approx(scipy.stats.spearmanr(error, deviation).statistic)
            found = load("error_correlation", kind="pearson")(e)[region][b].item()
            assert found == pytest.approx(np.corrcoef(error, deviation)[0, 1])


def test_ranks_average_ties():
    values = torch.tensor([3.0, 1, 3, 2, 3, 1])
    assert average_ranks(values).tolist() == scipy.stats.rankdata(values).tolist()


def test_sparsification_by_hand():
    error, by = torch.tensor([4.0, 0, 2, 2]), torch.tensor([1.0, 0, 2, 2])
    # without 0, 1, 2, 3 pixels, equal ones in order: means 8/4, 6/3, 4/2, 0/1
    assert sparsification(error, by, 4).tolist() == pytest.approx([1, 1, 1, 0])
    assert sparsification(error, error, 4).tolist() == pytest.approx([1, 4 / 6, 0.5, 0])


def test_ause_is_zero_for_an_oracle_and_large_for_the_opposite():
    generator = torch.Generator().manual_seed(3)
    error = torch.rand(1, 1, 30, 30, generator=generator, dtype=torch.float64) * 0.2
    y = 0.5 + torch.zeros_like(error)

    def ensemble(spread):  # two draws around y + error
        return Ensemble.of(torch.stack([y + error - spread, y + error + spread], 1), y)

    assert load("ause")(ensemble(error))[""].item() == pytest.approx(0, abs=1e-12)
    assert load("error_correlation")(ensemble(error))[""].item() == pytest.approx(1)
    opposite = load("ause")(ensemble(0.2 - error))
    assert opposite[""].item() > 0.5
    assert load("error_correlation")(ensemble(0.2 - error))[""].item() == pytest.approx(-1)
    squared = load("ause", error="squared")(ensemble(0.2 - error))
    assert squared[""].item() > opposite[""].item()


# -- edges ---------------------------------------------------------------------------------------------------------
def test_one_draw_is_refused_with_the_reason():
    with pytest.raises(MetricUnavailable, match="needs two or more draws"):
        Ensemble.of(torch.rand(1, 1, 1, 4, 4), torch.rand(1, 1, 4, 4))
    assert "deterministic" in NEEDS_DRAWS


def test_bad_shapes_are_refused():
    x, y = torch.rand(2, 3, 1, 4, 4), torch.rand(2, 1, 4, 4)
    with pytest.raises(ValueError, match=r"expected draws \[B, K, C, H, W\]"):
        Ensemble.of(x[0], y)
    with pytest.raises(ValueError, match="do not match"):
        Ensemble.of(x, y[:1])
    with pytest.raises(ValueError, match="mask must be bool"):
        Ensemble.of(x, y, torch.ones(2, 4, 4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_draws(dtype):
    """A collapsed ensemble: CRPS is the absolute error, orders are undefined, the rest is finite."""
    generator = torch.Generator().manual_seed(0)
    y = torch.rand(2, 1, 8, 8, generator=generator, dtype=torch.float64).to(dtype)
    x = torch.rand(2, 1, 1, 8, 8, generator=generator, dtype=torch.float64).to(dtype).expand(2, 7, 1, 8, 8)
    e = Ensemble.of(x, y)
    mae = (x[:, 0] - y).abs().double().mean((1, 2, 3))
    for estimator in ("fair", "ecdf"):
        assert torch.allclose(load("crps", estimator=estimator)(e)[""], mae, atol=1e-7)
        norm = torch.linalg.vector_norm((x[:, 0] - y).double().flatten(1), dim=1)
        assert torch.allclose(load("energy_score", estimator=estimator)(e)[""], norm, atol=1e-6)
    assert load("spread")(e)[""].tolist() == [0, 0]
    assert load("spread_skill")(e)[""].tolist() == [0, 0]
    for name in CARDS:
        values = load(name)(e)
        undefined = name in ("error_correlation", "ause")
        assert all(v.isnan().all() if undefined else v.isfinite().all() for v in values.values()), name


@pytest.mark.parametrize("level", [0.0, 0.4, 1.0])
def test_constant_ground_truth(level):
    x, _, mask = draw(5)
    y = torch.full((2, 1, 12, 9), level, dtype=torch.float64)
    e = Ensemble.of(x, y, mask)
    for name in CARDS:
        assert all(v.isfinite().all() for v in load(name)(e).values()), name


def test_perfect_draws():
    y = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    e = Ensemble.of(y[:, None].expand(1, 4, 1, 8, 8), y)
    for name in ("crps", "energy_score", "nll", "spread", "calibration_error", "rank_histogram"):
        assert load(name)(e)[""].item() == pytest.approx(0, abs=1e-12), name
    assert load("coverage")(e)["90"].item() == 1
    assert load("spread_skill")(e)[""].isnan().all()  # no error to explain


def test_an_empty_foreground_has_no_value_and_harms_no_other():
    x, y, mask = draw(4)
    whole = {name: load(name)(Ensemble.of(x, y, mask)) for name in CARDS}
    mask[0] = False
    for name in CARDS:
        for key, v in load(name)(Ensemble.of(x, y, mask)).items():
            if key.endswith("_fg"):
                assert v[0].isnan()
                assert v[1] == whole[name][key][1]
            else:
                assert torch.equal(v, whole[name][key])


def test_draws_are_clipped_and_complex_images_enter_as_magnitudes():
    x, y, _ = draw(4)
    outside = x.clone()
    outside[..., -1] = -0.3
    zero = x.clone()
    zero[..., -1] = 0
    assert torch.equal(value("crps", outside, y), value("crps", zero, y))
    angle = torch.rand(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 6
    turned = torch.cat([x * angle.cos(), x * angle.sin()], 2)
    assert torch.allclose(value("crps", turned, y), value("crps", x, y))
    assert torch.allclose(value("crps", turned, torch.cat([torch.zeros_like(y), y], 1)), value("crps", x, y))


@pytest.mark.parametrize("name", sorted(CARDS))
def test_results_do_not_depend_on_the_batch_or_the_order_of_draws(name, monkeypatch):
    x, y, mask = draw(5, batch=3, channels=3, dtype=torch.float32)
    together = load(name)(Ensemble.of(x, y, mask))
    for b in range(3):
        alone = load(name)(Ensemble.of(x[b : b + 1], y[b : b + 1], mask[b : b + 1]))
        assert all(torch.allclose(alone[key][0], v[b], rtol=1e-12, equal_nan=True) for key, v in together.items())
    turned = load(name)(Ensemble.of(x.flip(1), y, mask))
    assert all(torch.allclose(turned[key], v, rtol=1e-5, atol=1e-7) for key, v in together.items())
    monkeypatch.setattr("mrbench.metrics.uncertainty.CPU_BYTES", 1)
    parts = [load(name)(e) for e in ensembles(x, y, mask)]
    assert len(parts) == 3
    assert all(torch.allclose(torch.cat([p[key] for p in parts]), v, rtol=1e-12) for key, v in together.items())


def test_scores_change_nothing_of_what_they_are_given():
    x, y, mask = draw(5)
    e = Ensemble.of(x, y, mask, clip=False)
    kept = [t.clone() for t in (e.draws, e.truth, e.mask, e.sorted, e.mean, e.variance, e.error)]
    for name in CARDS:
        load(name)(e)
    assert all(map(torch.equal, kept, (e.draws, e.truth, e.mask, e.sorted, e.mean, e.variance, e.error)))


@pytest.mark.parametrize("k", [2, 10, 100])
def test_float32_is_close_to_float64(k):
    x, y, mask = draw(k, batch=1, size=(32, 32), dtype=torch.float32)
    exact, single = Ensemble.of(x.double(), y.double(), mask), Ensemble.of(x, y, mask)
    for name in CARDS:
        found = load(name)(single)
        for key, v in load(name)(exact).items():
            assert torch.allclose(found[key], v, rtol=2e-6, atol=2e-7), (name, key)
