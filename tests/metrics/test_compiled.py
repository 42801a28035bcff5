"""Compiled kernels: the same numbers, one compilation for all sizes, and no silent way back."""

from __future__ import annotations

import shutil

import pytest
import torch

from mrbench.errors import MetricUnavailable
from mrbench.metrics.cards import cards
from mrbench.metrics.kernels import CompileUnavailable, Kernel

CARDS = {card.name: card for card in cards()}
CPU = torch.device("cpu")


def load(name, compile, **options):
    metric = CARDS[name].load()(CARDS[name].parse(options))
    metric.prepare(CPU, compile)
    return metric


def numbers(metric, x, y, mask):
    return metric(y, metric.reference(x, mask))


def pair(*size):
    x, noise = torch.rand(2, *size, generator=torch.Generator().manual_seed(1))
    return x, (x + 0.2 * noise).clamp(0, 1)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling on the CPU needs g++")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "options"),
    [("ssim", {"window": "uniform7", "covariance": "sample"}), ("ms_ssim", {}), ("gmsd", {}), ("haarpsi", {})],
    ids=["ssim-uniform7", "ms_ssim", "gmsd", "haarpsi"],
)
def test_compiled_equals_plain_for_every_size(name, options):
    plain, compiled = load(name, False, **options), load(name, True, **options)
    assert compiled.compiled
    assert not plain.compiled
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for size in ((2, 1, 200, 210), (1, 1, 211, 197), (3, 3, 200, 200), (1, 1, 320, 320)):
        x, y = pair(*size)
        mask = x[:, 0] > 0.4
        expected, found = numbers(plain, x, y, mask), numbers(compiled, x, y, mask)
        assert expected.keys() == found.keys()
        for key, values in expected.items():
            assert (values - found[key]).abs().max() < 1e-6
        with torch.inference_mode():  # as in a run
            assert torch.equal(numbers(compiled, x.clone(), y.clone(), mask)[""], found[""])
        assert (numbers(compiled, x, x, mask)[""] - (0 if name == "gmsd" else 1)).abs().max() < 1e-12
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs


def test_metrics_without_kernels_take_the_flag():
    for name in ("psnr", "nmse"):
        metric = load(name, True)
        assert not metric.compiled
        x, y = pair(2, 1, 32, 32)
        assert torch.equal(numbers(metric, x, y, None)[""], numbers(load(name, False), x, y, None)[""])


def test_a_failing_compiler_is_reported_at_prepare(monkeypatch):
    def broken(function, **options):
        def run(*arguments):
            raise RuntimeError("no compiler found\nlong trace")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(CompileUnavailable, match=r"gmsd: compiling failed for \[1, 162, 130\].*: no compiler found"):
        load("gmsd", True)
    assert issubclass(CompileUnavailable, MetricUnavailable)


def test_a_compiled_kernel_that_differs_is_refused(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **options: lambda *a: function(*a) + 0.5)
    with pytest.raises(CompileUnavailable, match=r"gmsd: the compiled kernel differs from the plain one by 0\.5"):
        load("gmsd", True)


def double(x):
    return x * 2


def test_after_a_failure_the_plain_function_still_runs(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **options: lambda *a: function(*a) + 0.5)
    kernel = Kernel(double, lambda device: (torch.ones(1, 2, 2),))
    with pytest.raises(CompileUnavailable):
        kernel.compile("double", CPU)
    assert torch.equal(kernel(torch.ones(1, 2, 2)), torch.full((1, 2, 2), 2.0))
