"""Golden values of the metrics of several draws."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mrbench.metrics.cards import cards
from mrbench.metrics.uncertainty import Ensemble
from mrbench.metrics.uncertainty_calibration import quantile, rank_histogram
from mrbench.metrics.uncertainty_cards import DECILES
from mrbench.metrics.uncertainty_likelihood import hits
from mrbench.metrics.uncertainty_scores import ensemble_crps
from mrbench.metrics.uncertainty_spread import area_between, sparsification

_NAME = "mrbench_golden_family_metrics"
if _NAME not in sys.modules:  # tests are no package
    _spec = importlib.util.spec_from_file_location(_NAME, Path(__file__).resolve().parent / "family_metrics.py")
    assert _spec is not None
    assert _spec.loader is not None
    sys.modules[_NAME] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules[_NAME])
Gaps: Any = sys.modules[_NAME].Gaps

FAMILY = "metrics"
CPU = torch.device("cpu")
CARDS = {card.name: card for card in cards()}
TYPES = {"float64": torch.float64, "float32": torch.float32}
SECTIONS = {"what", "arrays", "seed", "cases", "checked_by", "tolerance", "definition", "weights_from"}
CASE = {"truth", "samples", "shape", "spread_factor", "bias", "expected"}
BLOCK = 4  # of the means that stand for the degradation
LINEAR = {"quantiles": "linear"}

# key in the file -> metric, column ending, options
COLUMNS: dict[str, tuple[str, str, Mapping[str, Any]]] = {
    "hist_miss_rate": ("nll", "_miss", {}),
    "hist_nll_exact": ("nll", "", {"epsilon": 0}),
    "hist_nll_add_eps_1e-12_bits": ("nll", "", {"floor": "add", "epsilon": 1e-12, "log": "2"}),
    "hist_nll_dirichlet_alpha_1/256": ("nll", "", {"floor": "dirichlet", "alpha": 1 / 256}),
    "hist_nll_dirichlet_alpha_0.5": ("nll", "", {"floor": "dirichlet", "alpha": 0.5}),
    "hist_nll_dirichlet_alpha_1": ("nll", "", {"floor": "dirichlet", "alpha": 1}),
    "gauss_nll": ("nll_gauss", "", {}),
    "gauss_crps": ("crps", "", {"estimator": "gaussian"}),
    "kde_nll": ("nll_kde", "", {}),
    "crps_ecdf": ("crps", "", {"estimator": "ecdf"}),
    "crps_fair": ("crps", "", {}),
    "quantile_calibration_error": ("calibration_error", "", {"levels": "deciles-linear"}),
    "rank_histogram_delta": ("rank_histogram", "", {}),
    "spread_skill_ratio": ("spread_skill", "", {}),
    "energy_score_per_image": ("energy_score", "", {"estimator": "ecdf"}),
    "energy_score_fair_per_image": ("energy_score", "", {}),
    "ause": ("ause", "", {}),
    "spearman_abs_err_std": ("error_correlation", "", {}),
    "pearson_abs_err_std": ("error_correlation", "", {"kind": "pearson"}),
    "std_mean_ddof1": ("spread", "", {}),
}
for _exponent in ("08", "10", "12", "16", "20"):
    for _floor in ("max", "add"):
        _options = {"floor": _floor, "epsilon": float(f"1e-{_exponent}")}
        COLUMNS[f"hist_nll_{_floor}_eps_1e-{_exponent}"] = ("nll", "", _options)
for _level in ("50", "80", "90"):
    COLUMNS[f"coverage_{_level}"] = ("coverage", _level, LINEAR)
    COLUMNS[f"width_{_level}"] = ("interval_width", _level, LINEAR)
    COLUMNS[f"interval_score_{_level}"] = ("interval_score", _level, LINEAR)


def load(name: str, options: Mapping[str, Any]) -> Any:
    """A metric, ready to use."""
    metric = CARDS[name].load()(CARDS[name].parse(options))
    metric.prepare(CPU)
    return metric


def column(name: str, ending: str, options: Mapping[str, Any], ensemble: Ensemble) -> list[float]:
    """One column of an ensemble."""
    values: list[float] = load(name, options)(ensemble)[ending].tolist()
    return values


# -- values that are no column of mrbench: formulas on top of its parts. One ensemble per file: all images as one tall one --------
def hits_only(e: Ensemble) -> float:
    """NLL of the pixels that some draw hits."""
    found = hits(e, 256).double()
    return float(-(found[found > 0] / e.count).log().mean())


def density(e: Ensemble) -> float:
    """NLL of the histogram as a density: 256 p + 1e-12."""
    return float(-(hits(e, 256).double() / e.count * 256 + 1e-12).log().mean())


def curves(e: Ensemble) -> tuple[Tensor, Tensor]:
    """Sparsification by the deviation, and the oracle's."""
    error = e.error.abs()
    return sparsification(error, e.deviation, 20), sparsification(error, error, 20)


def consistency(e: Ensemble, side: int, relative: bool) -> float:
    """Root mean square over all draws of A x - A y with A the block means, through the metric of single images."""
    images = e.draws.view(e.count, -1, 1, side, side)
    truth = F.avg_pool2d(e.truth.view(-1, 1, side, side), BLOCK)
    operator = SimpleNamespace(forward=lambda x: F.avg_pool2d(x, BLOCK))
    metric = load("data_consistency", {})
    per_image = torch.stack([metric(x, SimpleNamespace(y=truth, operator=operator))[""] for x in images])
    rmse = float(per_image.square().mean().sqrt())
    return rmse / float(truth.double().square().mean().sqrt()) if relative else rmse


FORMULAS: Mapping[str, Callable[[Ensemble, int], Any]] = {
    "hist_nll_hits_only": lambda e, side: hits_only(e),
    "hist_nll_density_add_eps_1e-12": lambda e, side: density(e),
    "quantile_freq_0.1_to_0.9": lambda e, side: [float((e.truth <= quantile(e, q, "linear")).double().mean()) for q in DECILES],
    "rank_histogram_ties_split": lambda e, side: rank_histogram(e)[""][0].tolist(),
    "rank_histogram_foreground": lambda e, side: rank_histogram(e)["_fg"][0].tolist(),
    "spread": lambda e, side: float(e.variance.mean().sqrt()),
    "skill_rmse_of_mean": lambda e, side: float(e.error.square().mean().sqrt()),
    "sparsification": lambda e, side: curves(e)[0].tolist(),
    "sparsification_oracle": lambda e, side: curves(e)[1].tolist(),
    "std_mean_ddof0": lambda e, side: float((e.variance * (e.count - 1) / e.count).sqrt().mean()),
    "rel_std_mean": lambda e, side: float((e.deviation / (e.mean + 1e-3)).mean()),
    "data_consistency_rmse_block4": lambda e, side: consistency(e, side, relative=False),
    "data_consistency_rel_block4": lambda e, side: consistency(e, side, relative=True),
}


def psnr(estimate: Tensor, truth: Tensor) -> Tensor:
    """PSNR of ``[B, 1, H, W]``."""
    metric = load("psnr", {})
    values: Tensor = metric(estimate, metric.reference(truth, None))[""]
    return values


AT_LEAST = {"spearman_abs_err_std": 1e-6}  # one pair of deviations is a tie or not by its last bit: 2e-7
PER_IMAGE = {"energy_score_per_image", "energy_score_fair_per_image"}
OF_DRAWS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "psnr_of_mean_per_image": lambda x, y: psnr(x.mean(1), y),
    "mean_psnr_of_samples_per_image": lambda x, y: torch.stack([psnr(x[:, k], y) for k in range(x.shape[1])]).mean(0),
}


def check(golden: Any) -> None:
    """Ensembles: every value that is a column of mrbench, in float64 and float32."""
    document = golden.document
    assert set(document) <= SECTIONS, f"unknown sections {sorted(set(document) - SECTIONS)}"
    gaps = Gaps()
    for kind, dtype in TYPES.items():
        tolerance = float(document["tolerance"][kind])
        for name, case in document["cases"].items():
            assert set(case) <= CASE, f"{name}: unknown sections {sorted(set(case) - CASE)}"
            truth = torch.from_numpy(golden.arrays[case["truth"]]).to(dtype)[:, None]
            draws = torch.from_numpy(golden.arrays[case["samples"]]).to(dtype)[:, :, None]
            mask = torch.from_numpy(golden.arrays[f"{name}_foreground"])
            separate = Ensemble.of(draws, truth, mask)
            b, k, _, side, _ = draws.shape
            tall = Ensemble.of(
                draws.transpose(1, 2).transpose(0, 2).reshape(k, 1, b * side, side)[None], tall_of(truth), tall_of(mask)
            )
            for key, expected in case["expected"].items():
                value: Any
                if key == "ause" and case["spread_factor"] == 0:  # no order: no column, but the curves are defined
                    assert math.isnan(column("ause", "", {}, tall)[0])
                    value = area_between(*curves(tall))
                elif key in COLUMNS:
                    metric, ending, options = COLUMNS[key]
                    value = column(metric, ending, options, separate if key in PER_IMAGE else tall)
                elif key in FORMULAS:
                    value = FORMULAS[key](tall, side)
                else:
                    assert key in OF_DRAWS, f"{name}: unknown value {key!r}"
                    value = OF_DRAWS[key](draws, truth).tolist()
                compare(f"{name} {key} {kind}", value, expected, max(tolerance, AT_LEAST.get(key, 0)), gaps)
            for key, found in (("crps_ecdf_map", ensemble_crps(separate, "ecdf")), ("std_map", separate.deviation)):
                gap = np.abs(found.numpy() - golden.arrays[f"{name}_{key}"].reshape(-1)).max()
                gaps.check(f"{name} {key} {kind}", float(gap), 0.0, max(tolerance, 1e-7))  # the maps are float32
    gaps.finish()


def tall_of(images: Tensor) -> Tensor:
    """Images one below the other, as a batch of one."""
    return images.reshape(1, *images.shape[1:-2], -1, images.shape[-1])


def compare(what: str, value: Any, expected: Any, tolerance: float, gaps: Any) -> None:
    """Numbers or lists of numbers; tolerances are relative above 1."""
    values, wanted = np.atleast_1d(value), np.atleast_1d(expected)
    assert len(values) == len(wanted), f"{what}: {len(values)} values, expected {len(wanted)}"
    for i, (a, b) in enumerate(zip(values, wanted, strict=True)):
        size = abs(float(b))
        gaps.check(f"{what}[{i}]", float(a), str(b), tolerance * (size if 1 < size < math.inf else 1))


HANDLERS = {"uncertainty": check}
