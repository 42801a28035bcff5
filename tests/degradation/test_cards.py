from __future__ import annotations

from typing import Any

import pytest

from mrbench.degradation.base import Degradation
from mrbench.degradation.cards import mrbench_degradations
from mrbench.errors import UserError
from mrbench.plugins import discover

CARDS = {card.name: card for card in mrbench_degradations()}


def test_all_eight_are_found_as_plugins() -> None:
    shelf = discover(environ={"MRBENCH_PLUGINS": ""}).degradations
    assert set(CARDS) <= set(shelf.names())
    assert set(CARDS) == {
        "bicubic_aa", "bicubic_pil8", "bicubic_noaa", "area", "gaussian", "kspace_crop", "slab", "sitk_resample",
    }  # fmt: skip


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS.keys())
def test_cards_are_complete_and_truthful(card: Any) -> None:
    implementation = card.load()
    assert issubclass(implementation, Degradation)
    assert implementation.name == card.name
    assert tuple(implementation.ndim) == tuple(card.ndim)
    assert card.summary
    assert card.source
    assert "onstants" in card.notes  # says whether constants are preserved
    options = card.parse({"in_plane": "area"} if card.name == "slab" else {})
    assert implementation(options).bind((16, 24), (2, 2)).linear == card.linear
    assert all(f.description for f in card.options.model_fields.values())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("bicubic_aa", {"b": 1}, "Known options: a, border"),
        ("bicubic_aa", {"border": "zero"}, "border"),
        ("gaussian", {"sigma": 1.0, "fwhm": 2.0}, "sigma or fwhm, not both"),
        ("gaussian", {"sigma": 0}, "sigma"),
        ("slab", {"thickness": 0.5, "gap": 0.1}, r"thickness \+ gap must be 1"),
        ("kspace_crop", {"window": "kaiser"}, "window"),
        ("area", {"a": 1}, "it has no options"),
    ],
)
def test_bad_options_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        CARDS[name].parse(options)


def test_thickness_and_gap_complete_each_other() -> None:
    slab = CARDS["slab"]
    assert slab.parse({}).width == 1  # type: ignore[attr-defined]
    assert slab.parse({"gap": 0.25}).width == 0.75  # type: ignore[attr-defined]
    assert slab.parse({"thickness": 1.5}).width == 1.5  # type: ignore[attr-defined]
    assert slab.parse({"thickness": 0.6, "gap": 0.4}).width == 0.6  # type: ignore[attr-defined]
