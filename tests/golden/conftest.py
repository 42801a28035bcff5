"""Recorded tensors are compared on one thread: sums then do not depend on the machine, nor on the tests that ran before."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_thread: None) -> None:
    """See ``one_thread``."""
