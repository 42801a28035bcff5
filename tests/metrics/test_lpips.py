"""LPIPS against the lpips package, its weights, and what happens without them."""

from __future__ import annotations

import hashlib
import http.server
import os
import socket
import threading
import warnings
from pathlib import Path

import lpips
import numpy as np
import pytest
import torch

from mrbench.errors import MetricUnavailable, UserError
from mrbench.metrics import lpips_weights
from mrbench.metrics.cards import cards
from mrbench.metrics.lpips import LpipsAlex, LpipsSqueeze, LpipsVgg
from mrbench.metrics.lpips_network import LpipsNetwork, blank_layers
from mrbench.metrics.lpips_weights import (
    backbone_file,
    download,
    load_network,
    packaged_heads,
    self_test,
    squeeze_from_npz,
    unreachable,
    weights_url,
)

CARDS = {card.name: card for card in cards()}
CLASSES = {"alex": LpipsAlex, "vgg": LpipsVgg, "squeeze": LpipsSqueeze}
ROOT = Path(__file__).resolve().parents[2]
SQUEEZE = Path(os.environ.get("MRBENCH_SHARED_DATA", ROOT.parent / "shared" / "data")) / "weights" / "lpips_squeeze_v01.npz"
needs_file = pytest.mark.skipif(not SQUEEZE.is_file(), reason=f"no {SQUEEZE}")


def random_arrays(net):
    generator = torch.Generator().manual_seed(0)
    arrays = {}
    for name, p in blank_layers(net).state_dict().items():
        fan_in = p[0].numel() if p.ndim > 1 else 1
        arrays[name] = torch.randn(p.shape, generator=generator) * ((2 / fan_in) ** 0.5 if p.ndim > 1 else 0.1)
    return arrays


def package_network(net, arrays):
    """The lpips package's own network with the same numbers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    for name, module in reference.net.named_modules():
        position = name.partition(".")[2]
        if isinstance(module, torch.nn.Conv2d):
            module.weight.data, module.bias.data = arrays[f"{position}.weight"], arrays[f"{position}.bias"]
    return reference


def metric_of(net, network=None, **more):
    metric = CLASSES[net](CARDS[f"lpips_{net}"].parse({}), network, **more)
    metric.prepare(torch.device("cpu"))
    return metric


def pairs(count, *size, channels=1):
    x, noise = torch.rand(2, count, channels, *size, generator=torch.Generator().manual_seed(5))
    return x, (x + 0.3 * (noise - 0.5)).clamp(0, 1)


@pytest.mark.parametrize("net", ["alex", "squeeze", "vgg"])
def test_equals_the_lpips_package(net):
    arrays = random_arrays(net)
    network = LpipsNetwork.from_arrays(net, arrays, packaged_heads(net))
    reference = package_network(net, arrays)
    metric = metric_of(net, network)
    for x, y in (pairs(3, 67, 64), pairs(2, 64, 80, channels=3)):
        values = metric(y, metric.reference(x, None))[""]
        with torch.no_grad():
            expected = reference((2 * x - 1).expand(-1, 3, -1, -1), (2 * y - 1).expand(-1, 3, -1, -1)).flatten()
        assert values.dtype == torch.float64
        assert expected.min() > 1e-4
        assert (values - expected).abs().max() < 1e-5 * expected.max()
        assert (metric(x, metric.reference(x, None))[""] == 0).all()


def test_values_do_not_depend_on_batch_or_cache():
    network = LpipsNetwork.from_arrays("squeeze", random_arrays("squeeze"), packaged_heads("squeeze"))
    metric, uncached = metric_of("squeeze", network), metric_of("squeeze", network, cache_bytes=0)
    x, y = pairs(7, 64, 72)
    reference = metric.reference(x, None)
    assert reference.features is not None
    values = metric(y, reference)[""]
    assert torch.equal(metric(y, reference)[""], values)  # the kept features are not spoiled
    alone = torch.cat([metric(y[i : i + 1], metric.reference(x[i : i + 1], None))[""] for i in range(7)])
    assert (values - alone).abs().max() < 1e-6
    again = uncached.reference(x, None)
    assert again.features is None
    assert torch.equal(uncached(y, again)[""], values)


def test_only_fitting_images_and_networks():
    network = LpipsNetwork.from_arrays("squeeze", random_arrays("squeeze"), packaged_heads("squeeze"))
    metric = metric_of("squeeze", network)
    smallest = CARDS["lpips_squeeze"].min_side
    x, y = pairs(1, smallest, smallest)
    assert metric(y, metric.reference(x, None))[""].isfinite().all()
    with pytest.raises(MetricUnavailable, match="at least 24 pixels a side, got 23x64"):
        metric.reference(torch.zeros(1, 1, 23, 64), None)
    with pytest.raises(ValueError, match="does not match"):
        metric(y[..., 1:], metric.reference(x, None))
    with pytest.raises(ValueError, match="expected a network of kind 'alex', got 'squeeze'"):
        LpipsAlex(CARDS["lpips_alex"].parse({}), network)
    with pytest.raises(RuntimeError, match="prepare"):
        LpipsSqueeze(CARDS["lpips_squeeze"].parse({})).reference(x, None)


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_smallest_sides_work(net):
    network = LpipsNetwork.from_arrays(net, random_arrays(net), packaged_heads(net))
    metric = metric_of(net, network)
    side = CARDS[f"lpips_{net}"].min_side
    x, y = pairs(1, side, side)
    assert metric(y, metric.reference(x, None))[""].isfinite().all()


def test_wrong_arrays_are_named():
    arrays, heads = random_arrays("squeeze"), packaged_heads("squeeze")
    with pytest.raises(ValueError, match=r"missing: 3\.squeeze\.bias"):
        LpipsNetwork.from_arrays("squeeze", {k: v for k, v in arrays.items() if k != "3.squeeze.bias"}, heads)
    with pytest.raises(ValueError, match=r"unknown: 99\.weight"):
        LpipsNetwork.from_arrays("squeeze", arrays | {"99.weight": heads[0]}, heads)
    with pytest.raises(ValueError, match=r"0\.bias has the shape \[63\], expected \[64\]"):
        LpipsNetwork.from_arrays("squeeze", arrays | {"0.bias": arrays["0.bias"][1:]}, heads)
    with pytest.raises(ValueError, match="linear layers have"):
        LpipsNetwork.from_arrays("squeeze", arrays, heads[:-1])


@pytest.mark.shared
@needs_file
def test_pretrained_squeeze_gives_the_published_value(monkeypatch):
    monkeypatch.setenv("MRBENCH_LPIPS_SQUEEZE", str(SQUEEZE))
    metric = metric_of("squeeze")
    torch.manual_seed(42)
    a, b = torch.rand(10, 3, 100, 100), torch.rand(10, 3, 100, 100)
    assert metric(b, metric.reference(a, None))[""].mean().item() == pytest.approx(0.100491, abs=1e-6)
    x, y = pairs(1, 64, 64)
    assert metric(y, metric.reference(x, None))[""].item() > 0.01


@pytest.mark.shared
@needs_file
def test_loading_does_not_touch_the_global_generator(monkeypatch):
    monkeypatch.setenv("MRBENCH_LPIPS_SQUEEZE", str(SQUEEZE))
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    load_network("squeeze")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.shared
@needs_file
@pytest.mark.parametrize("spoil", ["key", "shape", "scaling"])
def test_a_bad_weights_file_is_named(tmp_path, spoil):
    with np.load(SQUEEZE) as archive:
        arrays = dict(archive)
    if spoil == "key":
        del arrays["net.slice2.3.squeeze.weight"]
        reason = "missing: 3.squeeze.weight"
    elif spoil == "shape":
        arrays["net.slice1.0.weight"] = arrays["net.slice1.0.weight"][:, :1]
        reason = r"0\.weight has the shape \[64, 1, 3, 3\], expected \[64, 3, 3, 3\]"
    else:
        arrays["scaling_layer.shift"] = np.zeros(3, np.float32)
        reason = "scaling_layer.shift is not"
    file = tmp_path / "spoiled.npz"
    np.savez(file, **arrays)
    with pytest.raises(UserError, match=rf"spoiled\.npz: {reason}.*MRBENCH_LPIPS_SQUEEZE must name"):
        load_network("squeeze", {"MRBENCH_LPIPS_SQUEEZE": str(file)})


def test_files_that_are_no_weights_are_named(tmp_path):
    pickled, text = tmp_path / "pickled.npz", tmp_path / "text.npz"
    np.savez(pickled, a=np.array([{}], dtype=object))
    text.write_text("hello")
    for file in (pickled, text, tmp_path / "absent.npz"):
        with pytest.raises(UserError, match=f"{file.name}: cannot be read"):
            squeeze_from_npz(file)


def test_the_self_test_sees_wrong_weights():
    arrays, heads = random_arrays("squeeze"), packaged_heads("squeeze")
    negative = [torch.randn_like(h) for h in heads]
    assert "linear layer 0 is negative" in self_test(LpipsNetwork.from_arrays("squeeze", arrays, negative))
    assert "zero" in self_test(LpipsNetwork.from_arrays("squeeze", arrays, [h * 0 for h in heads]))
    assert "expected 0.100491" in self_test(LpipsNetwork.from_arrays("squeeze", arrays, heads))
    blank = {name: torch.zeros_like(a) for name, a in random_arrays("alex").items()}
    assert "unequal ones 0" in self_test(LpipsNetwork.from_arrays("alex", blank, packaged_heads("alex")))
    assert self_test(LpipsNetwork.from_arrays("alex", random_arrays("alex"), packaged_heads("alex"))) == ""


@pytest.mark.parametrize("variable", ["MRBENCH_OFFLINE", "HF_HUB_OFFLINE"])
@pytest.mark.parametrize("net", ["alex", "vgg", "squeeze"])
def test_offline_says_what_to_do_without_trying(net, variable, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(lpips_weights, "unreachable", lambda url: pytest.fail("the network was asked"))
    name = weights_url(net).rpartition("/")[2]
    with pytest.raises(MetricUnavailable) as caught:
        load_network(net, {variable: "1"})
    text = str(caught.value)
    assert f"{variable} is set" in text
    assert f"Put {name} (from https://" in text
    assert str(tmp_path / "checkpoints") in text
    assert ("MRBENCH_LPIPS_SQUEEZE=FILE.npz" in text) == (net == "squeeze")


def test_no_network_is_unavailable(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(lpips_weights, "unreachable", lambda url: "no answer within 5 s")
    with pytest.raises(MetricUnavailable, match=r"AlexNet cannot be downloaded: no answer within 5 s\. Put alexnet-owt-"):
        load_network("alex", {})


def test_a_host_that_never_answers_is_given_up(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/file"
        assert unreachable(url, 0.3) != ""
        assert download(url, tmp_path / "file", "00", 0.3) != ""
    assert "no connection" in unreachable(url, 5)


@pytest.fixture
def server(tmp_path):
    """A host that serves a folder."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments, **more):
            super().__init__(*arguments, directory=str(folder), **more)

        def log_message(self, format, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as host:
        thread = threading.Thread(target=host.serve_forever, daemon=True)
        thread.start()
        yield folder, f"http://127.0.0.1:{host.server_port}"
        host.shutdown()
        thread.join()


def test_download_checks_and_cached_file_is_used(server, tmp_path, monkeypatch):
    folder, address = server
    arrays = {f"features.{name}": a for name, a in random_arrays("alex").items()} | {"classifier.1.weight": torch.zeros(2)}
    torch.save(arrays, folder / "raw")
    content = (folder / "raw").read_bytes()
    prefix = hashlib.sha256(content).hexdigest()[:8]
    (folder / f"alexnet-{prefix}.pth").write_bytes(content)
    cache = tmp_path / "hub"
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(cache))
    monkeypatch.setattr(lpips_weights, "weights_url", lambda net: f"{address}/alexnet-{prefix}.pth")
    network = load_network("alex", {})
    assert torch.equal(network.layers[0].weight, arrays["features.0.weight"])
    file = cache / "checkpoints" / f"alexnet-{prefix}.pth"
    assert file.read_bytes() == content
    assert load_network("alex", {"MRBENCH_OFFLINE": "1"}).net == "alex"  # from the cache
    file.write_bytes(content + b"x")
    with pytest.raises(MetricUnavailable, match=f"is damaged .its SHA-256 does not begin with {prefix}.: delete it"):
        backbone_file("alex", {})


def test_a_download_with_another_hash_leaves_nothing(server, tmp_path):
    folder, address = server
    (folder / "a").write_bytes(b"something else")
    target = tmp_path / "cache" / "a"
    assert "expected 00000000" in download(f"{address}/a", target, "00000000")
    assert list(target.parent.iterdir()) == []
    assert "404" in download(f"{address}/missing", target, "00000000")
