"""SR3: ``restore(measurement, draws) -> [B, K, C, H, W]``."""

from __future__ import annotations

from typing import ClassVar

from ..networks.sr3_model import SR3Restoration


class SR3(SR3Restoration):
    """The U-Net alone (arXiv:2104.07636)."""

    name: ClassVar[str] = "sr3"
