"""Results as JSON documents and flat rows: every number finite or null."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from mrbench.stats.results import MetricResult, Pair, Standing
from mrbench.stats.sentences import methods_paragraph, omnibus_sentence, pair_sentence


def document(result: MetricResult) -> dict[str, Any]:
    """One metric's result. Field names are those of ``mrbench.stats.results``; ``sentences`` are added."""
    found = {
        "metric": asdict(result.measure),
        "provenance": asdict(result.provenance),
        "reason": result.reason,
        "normality": asdict(result.normality) if result.normality else None,
        "omnibus": asdict(result.omnibus) if result.omnibus else None,
        "effect": {"name": result.effect[0], "value": result.effect[1]} if result.effect else None,
        "standings": [asdict(s) for s in result.standings],
        "groups": [list(g) for g in result.groups],
        "critical_difference": result.critical_difference,
        "wins": {"methods": list(result.methods), "share": [list(row) for row in result.wins]},
        "rank_stability_tau": result.tau,
        "pairs": [_pair(result, p) for p in result.pairs],
        "notes": list(result.notes),
        "sentence": omnibus_sentence(result),
        "methods_paragraph": methods_paragraph(result),
    }
    cleaned: dict[str, Any] = finite(found)
    return cleaned


def pair_row(result: MetricResult, pair: Pair) -> dict[str, Any]:
    """One comparison as one flat row; absent numbers are ``None``."""
    w, i, e, x = result.provenance, pair.interval, pair.equivalence, pair.mixed
    row = {
        "metric": result.measure.name,
        "higher_is_better": result.measure.higher_is_better,
        "a": pair.a,
        "b": pair.b,
        "different": pair.different,
        "better": pair.better,
        "difference": pair.difference,
        "change_percent": result.change(pair),
        "ci_low": i.low if i else None,
        "ci_high": i.high if i else None,
        "ci_level": i.level if i else None,
        "ci_method": f"{i.method} over {i.unit}" if i else "",
        "test": pair.outcome.test,
        "how": pair.outcome.how,
        "statistic": pair.outcome.statistic,
        "value": pair.outcome.value,
        "p": pair.outcome.p,
        "log10_p": pair.outcome.log10_p,
        "correction": pair.correction,
        "p_adjusted": pair.p_adjusted,
        "unit": w.unit,
        "n": pair.outcome.n,
        "n_subjects": w.n_subjects,
        "n_slices": w.n_slices,
        "rank_biserial": pair.effects.rank_biserial,
        "cliffs_delta": pair.effects.cliffs_delta,
        "a12": pair.effects.a12,
        "dz": pair.effects.dz,
        "hodges_lehmann": pair.effects.hodges_lehmann,
        "detectable": pair.detectable,
        "margin": e.margin if e else None,
        "equivalence_p_adjusted": e.p_adjusted if e else None,
        "equivalent": e.equivalent if e else None,
        "mixed_mean": x.mean if x else None,
        "mixed_se": x.se if x else None,
        "mixed_p": x.p if x else None,
        "mixed_icc": x.icc if x else None,
        "signature": w.signature,
    }
    cleaned: dict[str, Any] = finite(row)
    return cleaned


def standing_row(result: MetricResult, standing: Standing) -> dict[str, Any]:
    """One method under one metric as one flat row."""
    w = result.provenance
    row = {
        "metric": result.measure.name,
        "method": standing.method,
        "mean": standing.mean,
        "sd": standing.sd,
        "mean_rank": standing.mean_rank,
        "letters": standing.letters,
        "best_share": standing.first,
        "place_low": standing.places[0],
        "place_high": standing.places[1],
        "unit": w.unit,
        "n": w.n,
        "n_subjects": w.n_subjects,
        "n_slices": w.n_slices,
        "signature": w.signature,
    }
    cleaned: dict[str, Any] = finite(row)
    return cleaned


def finite(value: Any) -> Any:
    """The same structure with ``None`` for NaN and infinities, and lists for tuples."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _pair(result: MetricResult, pair: Pair) -> dict[str, Any]:
    found = asdict(pair)
    if pair.mixed is not None:
        found["mixed"] |= {"icc": pair.mixed.icc, "design_effect": pair.mixed.design_effect}
    return {**found, "change_percent": result.change(pair), "sentence": pair_sentence(result, pair)}
