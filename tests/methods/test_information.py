"""Every built-in method says what it knows besides the LR image."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from mrbench.plugins import discover

SHELF = discover(environ={}).methods
LEARNED = [c for c in map(SHELF.card, SHELF.names()) if c.recipe or c.nfe is not None or c.checkpoints]


@pytest.mark.parametrize("card", LEARNED, ids=lambda c: c.name)
def test_a_learned_method_says_what_it_knows(card) -> None:
    assert card.information
    module = import_module(str(card.implementation).split(":")[0].rpartition(".")[0])
    rows = Path(module.__file__ or "").with_name("README.md").read_text(encoding="utf-8").splitlines()
    for row in ("knows of the measurement", "knows from training"):
        assert sum(line.startswith(f"| {row} |") for line in rows) == 1
    assert ("operator" in card.information) == card.needs_operator


def test_the_list_of_learned_methods_is_not_empty() -> None:
    assert {"edsr", "diffpir", "spandrel", "msp_sr"} <= {c.name for c in LEARNED}
