"""Skeletons of plugins: what `mrbench new` writes."""

from mrbench.scaffold.making import Made, make
from mrbench.scaffold.names import KINDS, Kind, Names, choose_names

__all__ = ["KINDS", "Kind", "Made", "Names", "choose_names", "make"]
