"""Golden values of the statistics."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrbench.report.leaderboard import _marks
from mrbench.stats import agreement, bootstrap, effects, mixed, ranks, tests
from mrbench.stats.results import Outcome

FAMILY = "metrics"
Array = NDArray[Any]

SECTIONS = {
    "what", "arrays", "seed", "cases", "multiplicity", "clusters", "bootstrap", "likert", "table_marks", "tolerance",
    "definition", "weights_from",
}  # fmt: skip
CASE = {"array", "what", "rows", "columns", "higher_is_better", "pairs_order", "expected", "checked_by"}
VANISHING = 1e-12  # smaller p are only compared to be smaller, too
EXACT = 1e-9  # effect sizes and statistics, whatever the file allows
NOT_EXACT = {"p_exact"}  # absent where ties or zeros make the file's exact p undefined; ours is conditional on them


def close(what: str, value: Any, expected: Any, tolerance: float, relative: bool = False) -> None:
    """Numbers, or lists of numbers; NaN and infinities as strings."""
    values, wanted = np.atleast_1d(np.asarray(value, float)), np.atleast_1d(np.asarray(expected, float))
    assert values.shape == wanted.shape, f"{what}: {values.shape} values, expected {wanted.shape}"
    for i, (a, b) in enumerate(zip(values.ravel(), wanted.ravel(), strict=True)):
        if not math.isfinite(b):
            assert a == b or (math.isnan(a) and math.isnan(b)), f"{what}[{i}]: {a}, expected {b}"
            continue
        limit = tolerance * (abs(b) if relative else max(1.0, abs(b)))
        assert abs(a - b) <= limit, f"{what}[{i}]: {a!r}, expected {b!r} (gap {abs(a - b):.2g} > {limit:.2g})"


def close_p(what: str, value: Any, expected: Any, tolerance: float) -> None:
    """p values: absolutely, and relatively where they are small; below 1e-12 only that they are."""
    for i, (a, b) in enumerate(zip(np.atleast_1d(value), np.atleast_1d(expected), strict=True)):
        if b < VANISHING:
            assert a < VANISHING, f"{what}[{i}]: {a!r}, expected < 1e-12"
            continue
        assert abs(a - b) <= tolerance * max(b, 1e-4), f"{what}[{i}]: {a!r}, expected {b!r}"


def pair_list(matrix: Array, order: list[list[int]]) -> list[float]:
    """The entries of a matrix over pairs."""
    return [float(matrix[a, b]) for a, b in order]


# -- matrices ----------------------------------------------------------------------------------------------------------
class Case:
    """One matrix ``[blocks, methods]`` and all that is computed from it."""

    def __init__(self, values: Array, higher: bool, order: list[list[int]]) -> None:
        self.x, self.higher, self.order = values, higher, order
        self.d = [values[:, a] - values[:, b] for a, b in order]

    def outcome(self, found: Outcome) -> dict[str, float]:
        """A statistic and its p under the names that the file uses."""
        return {found.statistic: found.value, "p": found.p}

    def dunn(self) -> list[Outcome]:
        """In the order of pairs."""
        found = tests.dunn_all(self.x)
        return [found[a][b] for a, b in self.order]

    def dunn_p(self, correction: Any) -> Array:
        """Corrected."""
        return tests.adjust(np.array([o.p for o in self.dunn()]), correction)

    def friedman(self) -> tests.Friedman:
        """With everything."""
        return tests.friedman(self.x, self.higher)

    def wilcoxon(self) -> list[dict[str, float]]:
        """Every form of the signed-rank test; the exact one only where the file has it."""
        found = []
        for d in self.d:
            s = tests.signed_rank(d, digits=None)  # the file ranks differences with their last bits
            entry: dict[str, float] = {"n_nonzero": s.n_nonzero, "w_plus": s.w_plus, "w_minus": s.w_minus, "z": s.z}
            entry |= {"p_normal": s.p_normal, "p_normal_continuity": s.p_continuity}
            found.append(entry | ({"p_exact": s.p_exact} if s.p_exact is not None else {}))
        return found

    def paired_t(self) -> list[dict[str, Any]]:
        """With means and intervals."""
        found = []
        for d in self.d:
            o = tests.paired_t(d)
            found.append({"t": o.value, "p": o.p, "mean_diff": float(d.mean()), "ci95": tests.t_interval(d, 0.95)})
        return found

    def effect(self, name: str) -> list[float]:
        """One effect size, pair by pair."""
        return [getattr(effects.effects_of(self.x[:, a], self.x[:, b]), name) for a, b in self.order]


def _anova(c: Case) -> dict[str, float]:
    outcome, eta2 = tests.anova_one_way(c.x)
    return {**c.outcome(outcome), "eta2": eta2}


def _kruskal(c: Case) -> dict[str, float]:
    outcome = tests.kruskal(c.x)
    return {**c.outcome(outcome), "epsilon2": tests.epsilon_squared(outcome.value, c.x.size)}


def _blocked(c: Case) -> Outcome:
    x = c.x
    return tests.shapiro((x - x.mean(0) - x.mean(1, keepdims=True) + x.mean()).T)


def _holm(p: list[float]) -> Array:
    return tests.adjust(np.array(p), "holm")


VALUES: Mapping[str, Callable[[Case], Any]] = {
    "shapiro_residuals_one_way": lambda c: c.outcome(tests.shapiro(tests.one_way_residuals(c.x))),
    "shapiro_residuals_blocked": lambda c: c.outcome(_blocked(c)),
    "anova_one_way": _anova,
    "anova_repeated": lambda c: c.outcome(tests.anova_repeated(c.x)),
    "levene_median": lambda c: c.outcome(tests.levene(c.x)),
    "tukey_hsd_p": lambda c: pair_list(tests.tukey(c.x), c.order),
    "kruskal": _kruskal,
    "dunn_z": lambda c: [o.value for o in c.dunn()],
    "dunn_p": lambda c: [o.p for o in c.dunn()],
    "dunn_p_bonferroni": lambda c: c.dunn_p("bonferroni"),
    "dunn_p_holm": lambda c: c.dunn_p("holm"),
    "dunn_p_fdr_bh": lambda c: c.dunn_p("fdr_bh"),
    "mean_ranks_1_is_best": lambda c: c.friedman().mean_ranks,
    "friedman": lambda c: c.outcome(c.friedman().chi2),
    "kendall_W": lambda c: c.friedman().w,
    "iman_davenport": lambda c: c.outcome(c.friedman().f),
    "nemenyi_p": lambda c: pair_list(tests.nemenyi(c.friedman().mean_ranks, len(c.x)), c.order),
    "nemenyi_cd_0.05": lambda c: ranks.critical_difference(c.x.shape[1], len(c.x), 0.05),
    "wilcoxon": lambda c: c.wilcoxon(),
    "wilcoxon_p_normal_holm": lambda c: _holm([w["p_normal"] for w in c.wilcoxon()]),
    "paired_t": lambda c: c.paired_t(),
    "paired_t_p_holm": lambda c: _holm([t["p"] for t in c.paired_t()]),
    "cliffs_delta": lambda c: c.effect("cliffs_delta"),
    "vargha_delaney_A12": lambda c: c.effect("a12"),
    "matched_rank_biserial": lambda c: c.effect("rank_biserial"),
    "cohens_dz": lambda c: c.effect("dz"),
    "hodges_lehmann_paired": lambda c: c.effect("hodges_lehmann"),
    "mean": lambda c: c.x.mean(0),
    "sd_ddof1": lambda c: c.x.std(0, ddof=1),
    "median": lambda c: np.median(c.x, axis=0),
}
RANGE = {"tukey_hsd_p", "nemenyi_p"}  # of the studentised range: computed by numerical integration


def check_expected(what: str, case: Case, expected: Mapping[str, Any], tolerance: Mapping[str, Any]) -> None:
    """Everything that the file expects of a matrix."""
    for key, wanted in expected.items():
        assert key in VALUES, f"{what}: unknown value {key!r}"
        found, name = VALUES[key](case), f"{what} {key}"
        if key in RANGE:
            close(name, found, wanted, min(1e-7, tolerance["tukey_and_nemenyi_p"]))
        elif key.startswith("shapiro"):
            close(name, found["W"], wanted["W"], EXACT)
            close(name, found["p"], wanted["p"], tolerance["shapiro_p_rel"], relative=True)
        elif isinstance(wanted, dict):
            compare(name, found, wanted, tolerance)
        elif isinstance(wanted, list) and isinstance(wanted[0], dict):
            assert len(found) == len(wanted)
            for i, (own, other) in enumerate(zip(found, wanted, strict=True)):
                compare(f"{name}[{i}]", own, other, tolerance)
        elif "_p" in key:
            close_p(name, found, wanted, tolerance["p_default"])
        elif key == "nemenyi_cd_0.05":
            close(name, found, wanted, 1e-7)
        else:
            close(name, found, wanted, tolerance["statistics"])


def compare(what: str, found: Mapping[str, Any], wanted: Mapping[str, Any], tolerance: Mapping[str, Any]) -> None:
    """A statistic with its p."""
    assert set(wanted) <= set(found), f"{what}: {sorted(set(wanted) - set(found))} missing"
    assert set(found) - set(wanted) <= NOT_EXACT, f"{what}: {sorted(set(found) - set(wanted))} not expected"
    for key, value in wanted.items():
        if key.startswith("p"):
            close_p(f"{what} {key}", found[key], value, tolerance["p_default"])
        else:
            close(f"{what} {key}", found[key], value, tolerance["statistics"])


# -- other sections ----------------------------------------------------------------------------------------------------
def check_clusters(section: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Slices in patients."""
    patient, d = arrays["cluster_patient"].astype(int), arrays["cluster_diff"]
    n = np.bincount(patient)
    patients = np.flatnonzero(n)
    means = np.array([d[patient == s].mean() for s in patients])
    sums = means * n[patients]
    icc = mixed.icc_anova(d, patient)
    effect = mixed.design_effect(icc, d.size, patients.size)
    model = mixed.difference_model(d, patient)
    assert model is not None
    fit = {"mean": model.mean, "se": model.se, "var_between": model.var_between, "var_within": model.var_within}
    signed = tests.signed_rank(means)

    def t_test(x: Array) -> dict[str, float]:
        o = tests.paired_t(x)
        return {"n": x.size, "mean": x.mean(), "se": x.std(ddof=1) / np.sqrt(x.size), "t": o.value, "p": o.p}

    def interval(sums: Array, sizes: Array) -> list[float]:
        drawn = arrays["cluster_boot_patients"].astype(int)
        position = {s: i for i, s in enumerate(patients)}
        index = np.vectorize(position.__getitem__)(drawn) if drawn.max() >= patients.size else drawn
        found = bootstrap.percentile(sums[index].sum(1) / sizes[index].sum(1), 0.95)
        return [found.low, found.high]

    found: dict[str, Any] = {
        "naive_slice_t": t_test(d),
        "patient_mean_t": t_test(means),
        "patient_mean_wilcoxon_exact": {"W": min(signed.w_plus, signed.w_minus), "p": signed.outcome.p},
        "icc1_anova": icc,
        "design_effect_mean_size": effect,
        "effective_n": d.size / effect,
        "cluster_robust_se_of_slice_mean": mixed.cluster_robust_se(d, patient),
        "mixed_model_reml_intercept": fit,
        "mixed_model_reml_intercept_R_nlme": fit,
        "cluster_bootstrap_slice_mean_ci95": interval(sums, n[patients].astype(float)),
        "cluster_bootstrap_patient_mean_ci95": interval(means, np.ones(patients.size)),
    }
    tolerance = section["tolerance"]
    assert set(section["expected"]) == set(found)
    for key, wanted in section["expected"].items():
        relative = key.startswith("mixed")
        limit = tolerance["mixed_model_rel"] if relative else tolerance["default"]
        if isinstance(wanted, dict):
            for name, value in wanted.items():
                close(f"clusters {key} {name}", found[key][name], value, limit, relative)
        else:
            close(f"clusters {key}", found[key], wanted, limit, relative)


def check_bootstrap(section: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Intervals on given resamples, and our own random numbers against many."""
    values, index = arrays["boot_values"], arrays["boot_idx"].astype(int)
    for name, f in {"mean": np.mean, "median": np.median}.items():
        wanted = dict(section["expected"][name])
        replicates = f(values[index], axis=1)
        estimate = float(f(values))
        left = np.array([f(np.delete(values, i)) for i in range(values.size)])
        exact = bootstrap.bca(replicates, estimate, left, 0.95)
        percentile, basic = bootstrap.percentile(replicates, 0.95), bootstrap.basic(replicates, estimate, 0.95)
        found = {
            "estimate": estimate,
            "se_bootstrap_ddof1": bootstrap.standard_error(replicates),
            "percentile95": [percentile.low, percentile.high],
            "basic95": [basic.low, basic.high],
            "bca95": [exact.interval.low, exact.interval.high],
            "bca_z0": exact.z0,
            "bca_acceleration": exact.acceleration,
            "bca_levels": exact.levels,
        }
        large = wanted.pop("large_R")
        wanted.pop("gap_to_scipy_bootstrap_bca_on_its_own_resamples")
        assert set(found) == set(wanted)
        for key, value in wanted.items():
            close(f"bootstrap {name} {key}", found[key], value, EXACT)
        for key, method in {"percentile95": "percentile", "bca95": "bca"}.items():
            own = bootstrap.bootstrap(values, lambda x, f=f: f(x, axis=1), method=method)
            width = large[key][1] - large[key][0]
            limit = (0.03 if name == "mean" else 0.2) * width  # the median's replicates are few distinct numbers
            close(f"bootstrap {name} {key} of our own draws", [own.low, own.high], large[key], limit)
    assert section["degenerate"].startswith("all values equal: every CI must be [c, c]")
    for method in ("percentile", "basic", "bca"):
        own = bootstrap.bootstrap(np.full(9, 0.3), lambda x: np.median(x, axis=1), method=method, resamples=50)
        assert (own.low, own.high) == (0.3, 0.3)


def check_likert(section: Mapping[str, Any], arrays: Mapping[str, Array], tolerance: Mapping[str, Any]) -> None:
    """Agreement of raters, and the comparison of methods on images' means over raters."""
    ratings = arrays["likert"].astype(int)
    flat, gaps = ratings.reshape(len(ratings), -1), arrays["likert_flat_missing"].astype(float)
    gaps = np.where(gaps == 0, np.nan, gaps)
    found: dict[str, Any] = {
        "fleiss_kappa": agreement.fleiss_kappa(flat),
        "icc": agreement.icc(flat),
        "per_method_mean_over_raters_and_images": ratings.mean((0, 1)),
        "per_method_sd_ddof1": ratings.reshape(-1, ratings.shape[2]).std(0, ddof=1),
        "exact_agreement_raters01": agreement.agreement_within(flat[0], flat[1]),
        "within_one_agreement_raters01": agreement.agreement_within(flat[0], flat[1], 1),
    }
    for weights in ("none", "linear", "quadratic"):
        found[f"cohen_kappa_raters01_{weights}"] = agreement.cohen_kappa(flat[0], flat[1], weights)
    for scale in ("nominal", "ordinal", "interval"):
        found[f"krippendorff_alpha_{scale}"] = agreement.krippendorff_alpha(flat, scale)
        found[f"krippendorff_alpha_missing_{scale}"] = agreement.krippendorff_alpha(gaps, scale)
    expected = dict(section["expected"])
    methods = ratings.shape[2]
    order = [[a, b] for a in range(methods) for b in range(a + 1, methods)]
    check_expected("likert", Case(ratings.mean(0), True, order), expected.pop("friedman_on_image_means"), tolerance)
    assert set(found) == set(expected)
    for key, wanted in expected.items():
        if isinstance(wanted, dict):
            assert set(found[key]) == set(wanted)
            for name, value in wanted.items():
                close(f"likert {key} {name}", found[key][name], value, EXACT)
        else:
            close(f"likert {key}", found[key], wanted, EXACT)


def check_marks(section: Mapping[str, Any]) -> None:
    """Best and second of a printed table: exact ties share the mark."""
    for table in ("pelvis", "brain"):
        for column, (name, higher) in enumerate(zip(section["columns"], section["higher"], strict=True)):
            marks = _marks({i: row[column] for i, row in enumerate(section[table])}, higher)
            wanted = section[f"{table}_expected"][name]
            for key, mark in {"best": "best", "second_distinct_value": "second"}.items():
                named = [section["models"][i] for i, m in sorted(marks.items()) if m == mark]
                assert named == wanted[key], f"{table} {name} {key}: {named}, expected {wanted[key]}"


def check(golden: Any) -> None:
    """All sections of a statistics file."""
    document, arrays = golden.document, golden.arrays
    assert set(document) <= SECTIONS, f"unknown sections {sorted(set(document) - SECTIONS)}"
    tolerance = document["tolerance"]
    for name, case in document["cases"].items():
        assert set(case) <= CASE, f"{name}: unknown {sorted(set(case) - CASE)}"
        matrix = Case(arrays[case["array"]].astype(float), case["higher_is_better"], case["pairs_order"])
        check_expected(name, matrix, case["expected"], tolerance)
    section = document["multiplicity"]
    for correction, wanted in section["expected"].items():
        found = tests.adjust(arrays[section["array"]], correction)
        close(f"multiplicity {correction}", found, wanted, 1e-12, relative=True)
    check_clusters(document["clusters"], arrays)
    check_bootstrap(document["bootstrap"], arrays)
    check_likert(document["likert"], arrays, tolerance)
    check_marks(document["table_marks"])


HANDLERS = {"stats": check}
