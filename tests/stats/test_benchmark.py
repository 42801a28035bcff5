"""The simulation of error rates (``benchmarks/statistics_rates.py``) simulates what mrbench does, and finds its level."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "statistics_rates.py"


@pytest.fixture(scope="module")
def rates() -> ModuleType:
    if not FILE.is_file():
        pytest.skip(f"no {FILE}")
    spec = importlib.util.spec_from_file_location("statistics_rates", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_simulated_tests_are_those_of_mrbench(rates: ModuleType) -> None:
    rates.check_against_mrbench()


def test_slices_reject_too_often_and_people_do_not(rates: ModuleType) -> None:
    found = {**vars(design := rates.Design(21, 40, 0.2)), "simulations": 600, **rates.rates(design, 600, 7)}
    assert rates.outside([found]) == []
    assert found["friedman, slices"] > 0.5
    assert found["kruskal, slices"] < 0.02
    assert any("friedman, patients: 9" in w for w in rates.outside([{**found, "friedman, patients": 0.09}]))
    powerful = rates.rates(rates.Design(21, 40, 0.05, 0.2), 100, 8)
    assert powerful["one pair: holm, patients"] > 0.9
    assert powerful["one pair: dunn, slices"] < 0.3
