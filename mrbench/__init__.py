"""mrbench: a benchmark for MRI super-resolution. Importing it loads neither torch nor pandas."""

from typing import Any

from mrbench.cards import (
    Checkpoint,
    DatasetCard,
    DegradationCard,
    MethodCard,
    MetricCard,
    NoOptions,
    Options,
)
from mrbench.hookspecs import hookimpl

__version__ = "0.1.0"

_LAZY = {
    "Measurement": "mrbench.degradation.measurement",
    "upsample": "mrbench.degradation.measurement",
    "Volume": "mrbench.data.records",
    "VolumeRef": "mrbench.data.records",
    "BadSource": "mrbench.data.records",
}

__all__ = [
    "BadSource", "Checkpoint", "DatasetCard", "DegradationCard", "Measurement", "MethodCard", "MetricCard", "NoOptions",
    "Options", "Volume", "VolumeRef", "__version__", "hookimpl", "upsample",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'mrbench' has no attribute {name!r}")
