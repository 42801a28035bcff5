"""Error rates and power of the statistics on nested data, by simulation.

Scores of k methods on slices of patients,

    score = patient + slice + gain(method) + patient x method + residual,

where ICC is the share of the patient x method term in the variance of the last two. Without gains every rejection is a false
positive; with gains, power is the share of simulations in which the best method is shown to differ from a given other one.
Compared: Kruskal-Wallis and Dunn-Bonferroni on slices, Friedman and Nemenyi on slices, and mrbench's default (Friedman in its
F form on patient means, exact for few, then exact signed-rank tests with Holm's correction, and its choice of test for two methods). The
vectorised formulas are first checked against mrbench.stats. The default keeps its level where its false-positive rate lies in 3.5 to
6.5 %. The family-wise rate of its pairs is a bound that is kept from above, not a level.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from mrbench.stats.presets import Plan, analyse
from mrbench.stats.results import MetricResult
from mrbench.stats.table import Measure, make_block
from mrbench.stats.tests import EXACT_UNITS, friedman_null

K = 4
PATIENT, SLICE, RESIDUAL = 2.0, 1.0, 0.4  # dB
DESIGNS = ((8, 40), (21, 40), (66, 20))  # patients, slices
ICCS = (0.0, 0.05, 0.2, 0.5)
GAPS = (0.05, 0.1, 0.2, 0.3)  # dB, of the best method over all others
ALPHA = 0.05
BAND = (0.035, 0.065)
CHUNK = 100  # simulations in memory at once
LEVELS = ("friedman, patients", "two methods, patients")  # rates that must lie in BAND


@dataclass(frozen=True)
class Design:
    """What is simulated."""

    patients: int
    slices: int
    icc: float
    gap: float = 0.0


def simulate(design: Design, n: int, rng: np.random.Generator) -> np.ndarray:
    """Scores ``[n, patients, slices, K]``."""
    shape = (n, design.patients, design.slices, K)
    x = rng.standard_normal(shape) * (RESIDUAL * np.sqrt(1 - design.icc))
    x += rng.standard_normal((n, design.patients, design.slices, 1)) * SLICE
    x += rng.standard_normal((n, design.patients, 1, 1)) * PATIENT
    x += rng.standard_normal((n, design.patients, 1, K)) * (RESIDUAL * np.sqrt(design.icc))
    x[..., 0] += design.gap
    return x


# -- vectorised tests: no ties, [simulations, units, methods] ----------------------------------------------------------
def row_ranks(x: np.ndarray) -> np.ndarray:
    """Ranks among methods, 1 = best."""
    return 1.0 + sum((x[..., [j]] > x).astype(np.float64) for j in range(K))


def friedman(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """p of chi2, p as mrbench takes it (exact for few units, else F), and mean ranks."""
    n = x.shape[1]
    mean = row_ranks(x).mean(1)
    chi2 = 12 * n / (K * (K + 1)) * ((mean - (K + 1) / 2) ** 2).sum(1)
    f = (n - 1) * chi2 / np.maximum(n * (K - 1) - chi2, 1e-12)
    if n <= EXACT_UNITS.get(K, 0):
        values, shares = friedman_null(np.tile(np.arange(1.0, K + 1), (n, 1)))
        order = values.argsort()
        tail = np.append(np.cumsum(shares[order][::-1])[::-1], 0.0)
        ours = tail[np.searchsorted(values[order], ((n * mean) ** 2).sum(1) - 1e-6)]
    else:
        ours = stats.f.sf(f, K - 1, (K - 1) * (n - 1))
    return stats.chi2.sf(chi2, K - 1), ours, mean


def kruskal_dunn(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """p of Kruskal-Wallis, and of Dunn ``[simulations, pairs]`` after Bonferroni."""
    sims, n, _ = x.shape
    flat = x.reshape(sims, -1)
    ranks = np.empty_like(flat)
    np.put_along_axis(ranks, flat.argsort(1), np.arange(1.0, flat.shape[1] + 1)[None], 1)
    means = ranks.reshape(x.shape).mean(1)
    total = n * K
    h = 12 * n / (total * (total + 1)) * ((means - (total + 1) / 2) ** 2).sum(1)
    z = (means[:, A] - means[:, B]) / np.sqrt(total * (total + 1) / 12 * 2 / n)
    return stats.chi2.sf(h, K - 1), np.minimum(2 * stats.norm.sf(np.abs(z)) * len(A), 1)


def signed_rank(d: np.ndarray) -> np.ndarray:
    """Two-sided p over axis 1 of ``[simulations, units, pairs]``: exact up to 50 units, else normal."""
    n = d.shape[1]
    ranks = np.abs(d).argsort(1).argsort(1) + 1
    plus = np.where(d > 0, ranks, 0).sum(1)
    if n > 50:
        z = (plus - n * (n + 1) / 4) / np.sqrt(n * (n + 1) * (2 * n + 1) / 24)
        return 2 * stats.norm.sf(np.abs(z))
    ways = np.zeros(n * (n + 1) // 2 + 1)
    ways[0] = 1
    for step in range(1, n + 1):
        ways[step:] += ways[:-step].copy()
        ways /= 2
    return np.minimum(1, 2 * np.cumsum(ways)[np.minimum(plus, n * (n + 1) // 2 - plus)])


def holm(p: np.ndarray) -> np.ndarray:
    """Along axis 1."""
    order = p.argsort(1)
    steps = np.take_along_axis(p, order, 1) * np.arange(p.shape[1], 0, -1)
    result = np.empty_like(p)
    np.put_along_axis(result, order, np.minimum(np.maximum.accumulate(steps, 1), 1), 1)
    return result


def two_methods(d: np.ndarray) -> np.ndarray:
    """p of mrbench's choice for two methods, ``[simulations, units]``: paired t, or signed-rank where Shapiro-Wilk rejects."""
    n = d.shape[1]
    t = 2 * stats.t.sf(np.abs(d.mean(1)) / (d.std(1, ddof=1) / np.sqrt(n)), n - 1)
    normal = np.array([stats.shapiro(x).pvalue > ALPHA for x in d])
    return np.where(normal, t, signed_rank(d[..., None])[:, 0])


A, B = np.triu_indices(K, 1)


def check_against_mrbench() -> None:
    """The formulas above give the p values of mrbench.stats (which rounds differences before it ranks them)."""
    rng = np.random.default_rng(1)
    for patients in (8, 21):
        (x,) = simulate(Design(patients, 5, 0.2, 0.1), 1, rng)
        flat = x.reshape(-1, K)
        means = x.mean(1)
        ours, field, pair = _analysed(x, 4), _analysed(x, 4, "res_srdiff"), _analysed(x, 2)
        np.testing.assert_allclose(ours.omnibus.p, friedman(means[None])[1][0], rtol=1e-6)
        corrected = holm(signed_rank(means[None][..., A] - means[None][..., B]))[0]
        np.testing.assert_allclose([p.p_adjusted for p in ours.pairs], corrected, rtol=1e-6)
        np.testing.assert_allclose(pair.pairs[0].outcome.p, two_methods((means[:, 0] - means[:, 1])[None])[0], rtol=1e-6)
        h, dunn = kruskal_dunn(flat[None])
        if field.omnibus.test == "Kruskal-Wallis":
            np.testing.assert_allclose(field.omnibus.p, h[0], rtol=1e-6)
            np.testing.assert_allclose([p.p_adjusted for p in field.pairs], dunn[0], rtol=1e-6)


def _analysed(x: np.ndarray, methods: int, preset: str = "default") -> MetricResult:
    """The result of mrbench itself for the first methods of ``[patients, slices, K]``."""
    patients, slices, _ = x.shape
    scores = {f"m{m}": x[..., m].ravel() for m in range(methods)}
    people = [f"p{i}" for i in range(patients)]
    block = make_block(Measure("psnr", "PSNR", True), scores, people, np.repeat(np.arange(patients), slices))
    return analyse(block, Plan(preset=preset, resamples=100))


def rates(design: Design, simulations: int, seed: int) -> dict[str, float]:
    """Shares of rejections: of the omnibus tests, of any pair, and of the pair of the first two methods."""
    rng = np.random.default_rng(seed)
    sums: dict[str, float] = {}
    nemenyi = stats.studentized_range.isf(ALPHA, K, np.inf) / np.sqrt(2)
    for start in range(0, simulations, CHUNK):
        count = min(CHUNK, simulations - start)
        x = simulate(design, count, rng)
        slices, means = x.reshape(count, -1, K), x.mean(2)
        kruskal, dunn = kruskal_dunn(slices)
        by_slice, _, slice_ranks = friedman(slices)
        _, by_patient, _ = friedman(means)
        ours = (holm(signed_rank(means[..., A] - means[..., B])) <= ALPHA) & (by_patient <= ALPHA)[:, None]
        field = (dunn <= ALPHA) & (kruskal <= ALPHA)[:, None]
        far = np.abs(slice_ranks[:, A] - slice_ranks[:, B]) > nemenyi * np.sqrt(K * (K + 1) / (6 * slices.shape[1]))
        far &= (by_slice <= ALPHA)[:, None]
        found = {
            "kruskal, slices": kruskal <= ALPHA,
            "friedman, slices": by_slice <= ALPHA,
            "friedman, patients": by_patient <= ALPHA,
            "two methods, patients": two_methods(means[..., 0] - means[..., 1]) <= ALPHA,
            "any pair: dunn, slices": field.any(1),
            "any pair: nemenyi, slices": far.any(1),
            "any pair: holm, patients": ours.any(1),
            "one pair: dunn, slices": field[:, 0],
            "one pair: nemenyi, slices": far[:, 0],
            "one pair: holm, patients": ours[:, 0],
        }
        for name, rejected in found.items():
            sums[name] = sums.get(name, 0.0) + float(rejected.sum())
    return {name: value / simulations for name, value in sums.items()}


def run_simulations(simulations: int) -> list[dict[str, float]]:
    """False positives over all designs and ICCs, power over gaps in the middle design."""
    found = []
    for i, (patients, slices) in enumerate(DESIGNS):
        for j, icc in enumerate(ICCS):
            design = Design(patients, slices, icc)
            found.append({**vars(design), "simulations": simulations, **rates(design, simulations, 100 * i + j)})
    fewer = max(simulations // 4, 20)
    for j, icc in enumerate((0.05, 0.2)):
        for g, gap in enumerate(GAPS):
            design = Design(*DESIGNS[1], icc, gap)
            found.append({**vars(design), "simulations": fewer, **rates(design, fewer, 1000 + 10 * j + g)})
    return found


def print_rates(found: list[dict[str, float]]) -> None:
    """The table, in per cent."""
    names = [n for n in found[0] if n not in (*Design.__annotations__, "simulations")]
    for title, power in (("false positives at nominal 5 %", False), ("power", True)):
        shown = [n for n in names if n.startswith("one pair") == power]
        print(f"\n{title} [%], {K} methods, residual sd {RESIDUAL} dB")
        print("patients slices   ICC   gap   sims  " + "  ".join(f"{n.removeprefix('one pair: '):>24}" for n in shown))
        for r in found:
            if (r["gap"] > 0) == power:
                head = f"{r['patients']:8d} {r['slices']:6d} {r['icc']:5.2f} {r['gap']:5.2f} {r['simulations']:6d}  "
                print(head + "  ".join(f"{100 * r[n]:24.1f}" for n in shown))


def outside(found: list[dict[str, float]]) -> list[str]:
    """Where the default does not keep its level."""
    wrong = []
    for r in found:
        if r["gap"] == 0:
            where = f"{r['patients']} patients x {r['slices']}, ICC {r['icc']}"
            margin = 2 * np.sqrt(ALPHA * (1 - ALPHA) / r["simulations"]) if r["simulations"] < 2000 else 0.0
            for name in LEVELS:
                if not BAND[0] - margin <= r[name] <= BAND[1] + margin:
                    wrong.append(f"{name}: {100 * r[name]:.1f} % ({where})")
            if r["any pair: holm, patients"] > BAND[1] + margin:
                wrong.append(f"any pair: {100 * r['any pair: holm, patients']:.1f} % ({where})")
    return wrong


def draw(found: list[dict[str, float]], out: Path) -> Path:
    """False-positive rate over ICC, and power over the gap."""
    from mrbench.report.figures import new_figure, save

    styles = {
        "kruskal, slices": ("#c0392b", "s", ":", "Kruskal-Wallis, slices"),
        "any pair: dunn, slices": ("#c0392b", "s", "--", "... then any Dunn-Bonferroni"),
        "friedman, slices": ("#e08e0b", "^", ":", "Friedman, slices"),
        "any pair: nemenyi, slices": ("#e08e0b", "^", "--", "... then any Nemenyi"),
        "friedman, patients": ("#1f5fa8", "o", "-", "mrbench: Friedman, patient means"),
        "any pair: holm, patients": ("#1f5fa8", "o", "--", "... then any signed-rank, Holm"),
        "two methods, patients": ("#2e8b57", "D", "-", "mrbench: two methods"),
    }
    figure = new_figure(10.4, 5.2)
    left, right = figure.add_axes((0.07, 0.33, 0.4, 0.6)), figure.add_axes((0.57, 0.33, 0.4, 0.6))
    patients, slices = DESIGNS[1]
    null = [r for r in found if r["gap"] == 0 and r["patients"] == patients]
    left.axhspan(100 * BAND[0], 100 * BAND[1], color="#1f5fa8", alpha=0.12, linewidth=0)
    for name, (colour, marker, line, label) in styles.items():
        left.plot([r["icc"] for r in null], [100 * max(r[name], 1e-3) for r in null], color=colour, marker=marker, linestyle=line,
                  markersize=4, linewidth=1.2, label=label)  # fmt: skip
    left.set_yscale("log")
    left.set_ylim(0.08, 130)
    left.set_yticks([0.1, 1, 5, 10, 50, 100], ["≤ 0.1", "1", "5", "10", "50", "100"])
    left.set_xlabel("ICC: share of patient x method in the variance of a difference", fontsize=8)
    left.set_ylabel("rejections without any true difference [%]", fontsize=8)
    left.set_title(f"false positives at nominal 5 %: {patients} patients x {slices} slices", fontsize=9)
    left.legend(fontsize=7, loc="upper left", bbox_to_anchor=(-0.12, -0.15), ncols=2, frameon=False)
    powers = {
        "one pair: dunn, slices": ("#c0392b", "s", "Dunn-Bonferroni, slices"),
        "one pair: nemenyi, slices": ("#e08e0b", "^", "Nemenyi, slices"),
        "one pair: holm, patients": ("#1f5fa8", "o", "mrbench: signed-rank, Holm"),
    }
    for icc, line in ((0.05, "-"), (0.2, "--")):
        chosen = [r for r in found if r["gap"] > 0 and r["icc"] == icc]
        for name, (colour, marker, label) in powers.items():
            right.plot([r["gap"] for r in chosen], [100 * r[name] for r in chosen], color=colour, marker=marker, linestyle=line,
                       markersize=4, linewidth=1.2, label=f"{label}, ICC {icc:g}")  # fmt: skip
    right.set_xlabel("true gap of the best method [dB]", fontsize=8)
    right.set_ylabel("best shown to differ from a given other [%]", fontsize=8)
    right.set_ylim(-3, 103)
    right.set_title("power (that of slices is bought with false positives)", fontsize=9)
    right.legend(fontsize=7, loc="upper left", bbox_to_anchor=(-0.12, -0.15), ncols=2, frameon=False)
    for axes in (left, right):
        axes.tick_params(labelsize=7)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
    return save(figure, out / "statistics-error-rates")[0]
