"""Golden values of image metrics and LPIPS."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mrbench.metrics.cards import cards
from mrbench.metrics.gmsd import gms_map
from mrbench.metrics.lpips import Lpips, LpipsAlex, LpipsSqueeze, LpipsVgg
from mrbench.metrics.lpips_network import LpipsNetwork, blank_layers, unit_length
from mrbench.metrics.lpips_weights import packaged_heads
from mrbench.metrics.ssim import pooling_factor

FAMILY = "metrics"
CPU = torch.device("cpu")
CARDS = {card.name: card for card in cards()}
UNIFORM = {"window": "uniform7", "covariance": "sample"}

# key in the file -> metric, column suffix, options
COLUMNS: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "psnr_L1": ("psnr", "", {}),
    "psnr_L1_in_mask": ("psnr", "_fg", {}),
    "psnr_refmax": ("psnr", "", {"data_range": "refmax"}),
    "nmse": ("nmse", "", {}),
    "ssim_wang": ("ssim", "", {}),
    "ssim_wang_map_mean_in_mask": ("ssim", "_fg", {}),
    "ssim_uniform7_sample": ("ssim", "", UNIFORM),
    "ssim_wang_downsampled": ("ssim", "", {"downsample": "auto"}),
    "ms_ssim": ("ms_ssim", "", {}),
    "gmsd": ("gmsd", "", {}),
    "gmsd_ddof1": ("gmsd", "", {"ddof": 1}),
    "haarpsi_piq": ("haarpsi", "", {}),
}

# values that are no column of mrbench: formulas on top of its maps
FORMULAS: Mapping[str, Callable[[Tensor, Tensor], float]] = {
    "mse": lambda x, y: float((x - y).double().square().mean()),
    "mae": lambda x, y: float((x - y).double().abs().mean()),
    "gms_mean": lambda x, y: float(gms_map(y[:, 0], x[:, 0]).double().mean()),
    "ssim_downsample_factor": lambda x, y: pooling_factor(*x.shape[-2:]),
}

NOT_OURS: Mapping[str, str] = {"vif_p_piq": "VIFp is not among mrbench's metrics"}

IMAGE_SECTIONS = {
    "what", "arrays", "seed", "data_range", "cases", "volume", "checked_by", "tolerance", "definition", "weights_from",
}  # fmt: skip
LPIPS_SECTIONS = {"what", "arrays", "seed", "linear_heads", "random_backbone", "tolerance", "note", "weights_from"}
TYPES = {"float64": torch.float64, "float32": torch.float32}


class Gaps:
    """Collects what differs, so that one run shows everything."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.compared = 0

    def check(self, what: str, value: float, expected: float | str, tolerance: float) -> None:
        wanted = float(expected)
        self.compared += 1
        same = math.isnan(value) if math.isnan(wanted) else value == wanted or abs(value - wanted) <= tolerance
        if not same:
            self.faults.append(f"{what}: {value!r}, expected {wanted!r} (tolerance {tolerance:g})")

    def finish(self) -> None:
        assert not self.faults, "\n".join(self.faults)
        assert self.compared, "nothing was compared"


def evaluate(name: str, options: Mapping[str, Any], x: Tensor, y: Tensor, mask: Tensor | None, suffix: str = "") -> Tensor:
    """One column for ground truth ``x`` and estimate ``y``, both ``[B, 1, H, W]``."""
    card = CARDS[name]
    metric = card.load()(card.parse(options))
    metric.prepare(CPU)
    values: Tensor = metric(y, metric.reference(x, mask))[suffix]
    return values


def mask_of(rule: str, x: Tensor) -> Tensor:
    """The foreground ``[B, H, W]`` by a rule such as ``"ref > 0.1"``."""
    found = re.fullmatch(r"ref (>=?) ([0-9.]+)", rule)
    assert found, f"unknown mask rule {rule!r}"
    image = x[:, 0]
    return image > float(found[2]) if found[1] == ">" else image >= float(found[2])


def check_image_metrics(golden: Any) -> None:
    """Pairs of images: every value that is a column of mrbench, in float64 and float32."""
    document = golden.document
    assert set(document) <= IMAGE_SECTIONS, f"unknown sections {sorted(set(document) - IMAGE_SECTIONS)}"
    assert document["data_range"] == 1.0
    gaps = Gaps()
    for kind, dtype in TYPES.items():
        for name, case in document["cases"].items():
            x, y = (torch.from_numpy(golden.arrays[case[key]]).to(dtype)[None, None] for key in ("ref", "img"))
            mask = mask_of(case["mask"], x)
            for key, expected in case["expected"].items():
                if key in NOT_OURS:
                    continue
                assert key in COLUMNS or key in FORMULAS, f"{name}: unknown value {key!r}"
                if key in FORMULAS:
                    value = FORMULAS[key](x, y)
                else:
                    metric, suffix, options = COLUMNS[key]
                    value = float(evaluate(metric, options, x, y, mask, suffix))
                gaps.check(f"{name} {key} {kind}", value, expected, tolerance_of(document, key, kind))
        if "volume" in document:
            check_volume(golden, kind, dtype, gaps)
    gaps.finish()


def check_volume(golden: Any, kind: str, dtype: torch.dtype, gaps: Gaps) -> None:
    """Values over a whole volume, whose maximum is the data range."""
    volume = golden.document["volume"]
    x, y = (torch.from_numpy(golden.arrays[volume[key]]).to(dtype)[:, None] for key in ("ref", "img"))
    peak = {"data_range": float(x.max())}
    tall_x, tall_y = (t.reshape(1, 1, -1, t.shape[-1]) for t in (x, y))  # pixel sums over slices = over one tall image
    psnr = evaluate("psnr", peak, x, y, None)
    found = {
        "ssim_fastmri_volume": evaluate("ssim", UNIFORM | peak, x, y, None).mean(),
        "psnr_fastmri_volume": evaluate("psnr", peak, tall_x, tall_y, None),
        "nmse_volume": evaluate("nmse", {}, tall_x, tall_y, None),
        "psnr_slicewise_volume_max": psnr,
        "mean_of_slicewise_psnr": psnr.mean(),
        "ssim_wang_slices_volume_max": evaluate("ssim", peak, x, y, None),
    }
    for key, expected in volume["expected"].items():
        if key == "note":
            continue
        assert key in found, f"volume: unknown value {key!r}"
        values, wanted = np.atleast_1d(found[key].numpy()), np.atleast_1d(expected)
        assert len(values) == len(wanted), f"volume {key}: {len(values)} values, expected {len(wanted)}"
        for k, (value, number) in enumerate(zip(values, wanted, strict=True)):
            gaps.check(f"volume {key}[{k}] {kind}", float(value), number, tolerance_of(golden.document, key, kind))


def tolerance_of(document: Mapping[str, Any], key: str, kind: str) -> float:
    """The file's own tolerance for a value in float64 or float32."""
    special = f"psnr_{kind}" if "psnr" in key else kind
    return float(document["tolerance"].get(special, document["tolerance"][kind]))


def check_lpips(golden: Any) -> None:
    """Linear layers on given features, and whole networks with given backbones."""
    document = golden.document
    assert set(document) <= LPIPS_SECTIONS, f"unknown sections {sorted(set(document) - LPIPS_SECTIONS)}"
    heads, whole = document["linear_heads"]["expected"], document["random_backbone"]["expected"]
    gaps = Gaps()
    for net in sorted(set(heads) | set(whole)):
        network = filled_network(golden, net)
        for kind, dtype in reversed(TYPES.items()):  # float32 first: the conversion is in place
            network = network.to(dtype)
            if net in heads:
                check_heads(golden, network, heads[net], kind, gaps)
            if net in whole:
                check_network(golden, network, whole[net], kind, gaps)
    gaps.finish()


def check_network(golden: Any, network: LpipsNetwork, expected: Mapping[str, Any], kind: str, gaps: Gaps) -> None:
    """LPIPS of images in [0, 1], directly and (float32) through the metric."""
    net, document = network.net, golden.document
    known = {"n_conv", "lpips", "swapped_input_range_bug", "gap_to_torchmetrics"}
    assert set(expected) <= known, f"{net}: unknown values {sorted(set(expected) - known)}"
    x, y = (torch.from_numpy(golden.arrays[key])[:, None].to(TYPES[kind]) for key in ("img_ref", "img_img"))
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    gaps.check(f"{net} n_conv", len(convolutions), expected["n_conv"], 0)
    with torch.inference_mode():
        right = network(x, y)
        wrong = network((x + 1) / 2, (y + 1) / 2)  # as if [0, 1] were taken for [-1, 1]
    compare(f"{net} {kind}", right, expected["lpips"], document, kind, gaps)
    compare(f"{net} {kind} wrong range", wrong, expected["swapped_input_range_bug"], document, kind, gaps)
    if kind == "float32":
        metric = metric_class(net)(CARDS[f"lpips_{net}"].parse({}), network=network)
        metric.prepare(CPU)
        compare(f"{net} metric", metric(y, metric.reference(x, None))[""], expected["lpips"], document, kind, gaps)


def check_heads(golden: Any, network: LpipsNetwork, expected: Mapping[str, Any], kind: str, gaps: Gaps) -> None:
    """Distances per layer and their sum for the two feature images of each layer."""
    net, dtype = network.net, TYPES[kind]
    features = [torch.from_numpy(golden.arrays[f"{net}_feat{k}"]).to(dtype) for k in range(len(network.taps))]
    a, b = ([unit_length(f[i : i + 1].permute(0, 2, 3, 1)) for f in features] for i in (0, 1))
    distances = network.layer_distances(a, b)
    compare(f"{net} heads {kind}", distances[0], expected["per_layer"], golden.document, kind, gaps)
    compare(f"{net} total {kind}", distances.sum(1), [expected["total"]], golden.document, kind, gaps)


def compare(what: str, values: Tensor, expected: Any, document: Mapping[str, Any], kind: str, gaps: Gaps) -> None:
    """float64 within an absolute, float32 within a relative tolerance of the file."""
    assert len(values) == len(expected), f"{what}: {len(values)} values, expected {len(expected)}"
    for k, (value, wanted) in enumerate(zip(values.tolist(), expected, strict=True)):
        tolerance = document["tolerance"]
        allowed = tolerance["float64"] if kind == "float64" else tolerance["float32_rel"] * abs(wanted)
        gaps.check(f"{what}[{k}]", value, wanted, allowed)


def filled_network(golden: Any, net: str) -> LpipsNetwork:
    """The network with the weights that the file's ``weights_from`` names."""
    heads, backbone = golden.weights_from("linear_heads"), golden.weights_from("backbone")
    assert heads.get("package") == "lpips", f"no way to get linear layers from {dict(heads)}"
    recipe = golden.document
    for part in backbone["recipe"].split("."):
        recipe = recipe[part]
    return LpipsNetwork.from_arrays(net, random_backbone(net, str(recipe), int(golden.document["seed"])), packaged_heads(net))


def random_backbone(net: str, recipe: str, seed: int) -> dict[str, np.ndarray[Any, Any]]:
    """Weights by the recipe in words: normal numbers times sqrt(2 / fan_in), one RandomState per convolution; zero biases."""
    modulus = re.search(r"RandomState\(seed % (\d+) \+ i\)\.standard_normal\(shape\) \* sqrt\(2/fan_in\), bias 0", recipe)
    assert modulus, f"unknown recipe {recipe!r}"
    filled: dict[str, np.ndarray[Any, Any]] = {}
    shapes = {name: tuple(p.shape) for name, p in blank_layers(net).state_dict().items()}
    for i, name in enumerate(n for n in shapes if n.endswith(".weight")):
        shape = shapes[name]
        state = np.random.RandomState(seed % int(modulus[1]) + i)
        filled[name] = state.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
        filled[name.removesuffix("weight") + "bias"] = np.zeros(shape[0])
    return filled


def metric_class(net: str) -> type[Lpips]:
    """The metric on a backbone."""
    return {"alex": LpipsAlex, "vgg": LpipsVgg, "squeeze": LpipsSqueeze}[net]


HANDLERS = {"image_metrics": check_image_metrics, "lpips": check_lpips}
