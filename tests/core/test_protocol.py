"""Protocols: one text, one hash, on any machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from mrbench.errors import UserError
from mrbench.plugins import discover
from mrbench.protocol import (
    Protocol,
    canonical,
    find_protocol,
    named_protocols,
    parse_protocol,
    resolve,
    task_hash,
    uniform_name,
)

# A committed name never changes its hash. If a rule must change, give the protocol a new name or version instead.
PINNED = {
    "msp_sr-x2": "2c0d3e57f1aff850",
    "msp_sr-x4": "6560ac81080f9c28",
    "msp_sr-x8": "ccb90125dc8ee776",
    "res_srdiff_code": "d154eabc3fd68b84",
    "res_srdiff_paper-brain": "9f219901da4a1fca",
    "res_srdiff_paper": "fed684b5b01540d2",
    "scale_cascaded-x2": "2e811d5b1479aaad",
    "scale_cascaded-x4": "6f034c1804852d82",
    "uniform-kspace-x4-complex": "b4649c2d7136da04",
    "uniform-kspace-x4": "44b8ae4a93faf940",
    "uniform-slab-3x3x2": "85c9eed17c84b5e7",
    "uniform-slab-4x4x4": "1a5408ffd1c0c44c",
    "uniform-thick-x4": "f15b13b1d258615d",
    "uniform-x2": "f0f075c9b52945de",
    "uniform-x4": "f43933104ac92863",
    "uniform-x8": "70b98a0a67a4a14f",
}


def test_pinned_hashes() -> None:
    registry = discover()
    assert {name: resolve(p, registry).hash for name, p in named_protocols().items()} == PINNED


def test_hash_covers_the_rules_and_only_them() -> None:
    registry = discover()
    base = named_protocols()["uniform-x4"]
    same = [{"metrics": ("psnr",)}, {"draws": 9}, {"summary": "other words"}, {"assumptions": ()}, {"name": "other"}]
    for change in same:
        assert resolve(base.model_copy(update=change), registry).hash == PINNED["uniform-x4"]
    other = [
        {"scale": 2.0},
        {"clip_measurement": True},
        {"noise": base.noise.model_copy(update={"kind": "gaussian", "sigma": 0.01})},
        {"split": base.split.model_copy(update={"part": "val"})},
        {"degradation": base.degradation.model_copy(update={"name": "area", "options": {}})},
        {"degradation": base.degradation.model_copy(update={"options": {"a": -0.75}})},
        {"preparation": base.preparation.model_copy(update={"plane": "axial"})},
    ]
    hashes = [resolve(base.model_copy(update=c), registry).hash for c in other]
    assert len({*hashes, PINNED["uniform-x4"]}) == len(other) + 1


def test_writing_out_a_default_changes_nothing() -> None:
    registry = discover()
    short = parse_protocol({"name": "a", "scale": 4, "metrics": ["psnr"], "degradation": {"name": "bicubic_aa"}}, "x")
    long = parse_protocol(
        {"name": "a", "scale": 4.0, "metrics": ["psnr"], "degradation": {"name": "bicubic_aa", "options": {"a": -0.5}}}, "x"
    )
    assert resolve(short, registry).hash == resolve(long, registry).hash


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"scael": 4}, r"unknown field 'scael'. Did you mean 'scale'"),
        ({"noise": {"kind": "gaussian"}}, "noise kind 'none' goes with sigma 0"),
        ({"noise": {"kind": "pink", "sigma": 1}}, "noise.kind"),
        ({"preparation": {"cropp": 1}}, "unknown field 'preparation.cropp'"),
        ({"scale": 0.5}, "between 1 and 64"),
        ({"scale": [2, 2, 2]}, "3 factors for 2 dimensions"),
        ({"metrics": []}, "metrics"),
        ({"pre_upsample": "sitk_bspline"}, "belong to dimensions: 3"),
        ({"slice_scaling": "own_min_max"}, "belong to dimensions: 3"),
        ({"preparation": {"slice_spacing": [2, 1]}}, "slice_spacing"),
        ({"preparation": {"intensity": {"levels": 256, "clip": False}}}, "need clip: true"),
        ({"preparation": {"canvas": [16, 32], "crop": {"square": True}}}, "is no square"),
        ([1], "a protocol is a mapping of fields, got list"),
    ],
)
def test_bad_protocols_are_refused_in_words(document: object, message: str) -> None:
    if isinstance(document, dict):
        document = {"name": "mine", "scale": 4, "metrics": ["psnr"], **document}
    with pytest.raises(UserError, match=message):
        parse_protocol(document, "protocol file mine.yaml")


def test_bad_degradations_are_refused_in_words() -> None:
    registry = discover()
    base = {"name": "mine", "scale": 4, "metrics": ["psnr"]}
    with pytest.raises(UserError, match=r"no degradation named 'bicubic'.*Did you mean"):
        resolve(parse_protocol({**base, "degradation": {"name": "bicubic"}}, "x"), registry)
    with pytest.raises(UserError, match=r"degradation bicubic_aa has no option 'b'. Known options: a"):
        resolve(parse_protocol({**base, "degradation": {"name": "bicubic_aa", "options": {"b": 1}}}, "x"), registry)
    with pytest.raises(UserError, match="works in 2-D, not in 3-D"):
        resolve(parse_protocol({**base, "dimensions": 3, "degradation": {"name": "bicubic_pil8"}}, "x"), registry)


def test_files_and_names(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nscale: 4\nmetrics: [psnr]\n")
    assert find_protocol(str(path)).name == "mine"
    path.write_text("name: [")
    with pytest.raises(UserError, match="not valid YAML"):
        find_protocol(str(path))
    with pytest.raises(UserError, match="cannot be read"):
        find_protocol(str(tmp_path / "other.yaml"))
    with pytest.raises(UserError, match=r"no protocol named 'uniform-4'. Did you mean 'uniform-x4'"):
        find_protocol("uniform-4")
    assert uniform_name(4) == "uniform-x4"
    with pytest.raises(UserError, match=r"no uniform protocol for scale 3. Known: uniform-x2, uniform-x4, uniform-x8"):
        uniform_name(3)


def test_scales_per_axis() -> None:
    assert Protocol(name="a", scale=4, metrics=("psnr",)).scales == (4, 4)
    assert Protocol(name="a", scale=4, dimensions=3, metrics=("psnr",)).scales == (1, 4, 4)
    assert Protocol(name="a", scale=(2, 3, 3), dimensions=3, metrics=("psnr",)).scales == (2, 3, 3)


def test_task_hash_holds_the_items_in_any_order() -> None:
    items = [("sample/a/v/1", "11"), ("sample/a/v/2", "22")]
    base = task_hash("p", "sample", "1", items)
    assert base == task_hash("p", "sample", "1", items[::-1])
    assert base != task_hash("p", "sample", "1", [("sample/a/v/1", "12"), items[1]])
    assert base != task_hash("p", "sample", "2", items)
    assert canonical({"b": 1, "a": [1.0, "é"]}) == '{"a":[1.0,"\\u00e9"],"b":1}'
