"""What users type: entries, data sets, settings."""

from __future__ import annotations

import pytest

from mrbench.engine.entries import parse_dataset, parse_entries, parse_settings
from mrbench.errors import UserError
from mrbench.plugins import discover

REGISTRY = discover()


def test_entries_and_labels() -> None:
    entries = parse_entries(["bicubic", "b2=bicubic", "x.y=lanczos"], parse_settings([]), REGISTRY)
    assert [(e.label, e.card.name) for e in entries] == [("bicubic", "bicubic"), ("b2", "bicubic"), ("x.y", "lanczos")]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "no method given"),
        (["bicubic", "bicubic"], "label 'bicubic' is used twice"),
        (["a/b=bicubic"], "bad label 'a/b'"),
        (["=bicubic"], "bad label ''"),
        (["metric=bicubic"], "'metric' is taken"),
        (["bicubik"], "Did you mean 'bicubic'"),
        (["bicubic@demo"], "no checkpoint 'demo'. This method has no weights"),
    ],
)
def test_bad_entries(texts: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_entries(texts, parse_settings([]), REGISTRY)


def test_settings_are_typed_and_refused_when_nobody_has_them() -> None:
    given = parse_settings(
        ["folder.path=/a b", "metric.ssim.window=uniform7", "m.steps=4", "m.lr=1e-3", "m.list=[1, 2]", "m.text=a: b: c"]
    )
    assert given.take("folder") == {"path": "/a b"}
    assert given.take("metric.ssim") == {"window": "uniform7"}
    with pytest.raises(UserError, match=r"--set m.steps: there is no 'm' here"):
        given.refuse_unused()
    assert given.take("m")["steps"] == 4
    assert given.take("m")["list"] == [1, 2]
    given.refuse_unused()
    for bad in ("steps=4", "m.steps", ".x=1", "m.=1"):
        with pytest.raises(UserError, match=r"expected TARGET.KEY=VALUE"):
            parse_settings([bad])
    with pytest.raises(UserError, match="given twice"):
        parse_settings(["a.b=1", "a.b=2"])


def test_data_sets() -> None:
    choice = parse_dataset("mine=folder", parse_settings(["mine.path=2024"]), REGISTRY)
    assert choice.alias == "mine"
    assert choice.options.path == "2024"
    with pytest.raises(UserError, match="bad alias"):
        parse_dataset("a/b=folder", parse_settings([]), REGISTRY)
    with pytest.raises(UserError, match=r"no data set named 'sampel'. Did you mean 'sample'"):
        parse_dataset("sampel", parse_settings([]), REGISTRY)
    with pytest.raises(UserError, match="sample has no option 'path'"):
        parse_dataset("sample", parse_settings(["sample.path=x"]), REGISTRY)
