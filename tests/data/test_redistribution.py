"""What may be packed for others."""

from __future__ import annotations

import pytest

from mrbench.cards import DatasetCard
from mrbench.data.redistribution import allows, notice, require
from mrbench.errors import UserError
from mrbench.store.manifest import DatasetInfo


def card(level: str) -> DatasetCard:
    return DatasetCard(f"set_{level}", "x:Y", licence="terms of the owner", redistribution=level)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("level", "figures", "images"),
    [("none", False, False), ("figures", True, False), ("open", True, True), ("what", False, False)],
)
def test_levels(level: str, figures: bool, images: bool) -> None:
    data = card(level)
    assert (allows(data, "figures"), allows(data, "images")) == (figures, images)
    for use, allowed in (("figures", figures), ("images", images)):
        if allowed:
            require(data, use=use)  # type: ignore[arg-type]
        else:
            with pytest.raises(UserError, match=rf"an archive: .*set_{level} \(redistribution: {level}; terms of the owner\)"):
                require(data, "an archive", use)  # type: ignore[arg-type]


def test_one_closed_set_among_others_closes_the_pack() -> None:
    with pytest.raises(UserError, match="pictures for publication: ") as error:
        require([card("open"), card("none"), card("figures")])
    assert "set_none" in str(error.value)
    assert "set_open" not in str(error.value)
    require([])


def test_notices_for_ones_own_eyes() -> None:
    assert notice(card("open")) == ""
    assert notice([card("none"), card("open")]) == "pictures of set_none are for your own use (redistribution: none)"
    assert notice(card("figures")) == "figures of set_figures may be published, its image files may not"


def test_manifests_of_runs_will_do() -> None:
    info = DatasetInfo(
        name="d", alias="d", version="1", options={}, licence="", redistribution="none", warnings=[], dropped=[], skipped=[]
    )
    with pytest.raises(UserError, match="no licence stated"):
        require(info)
