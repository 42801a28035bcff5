"""MSP-SR: ``restore(measurement, draws) -> [B, K, C, H, W]``."""

from __future__ import annotations

from typing import ClassVar

from ..networks.sr3_model import SR3Restoration


class MSPSR(SR3Restoration):
    """The U-Net of SR3 with a branch that was trained beside it (none before the second stage, and with ``control: false``)."""

    name: ClassVar[str] = "msp_sr"
    branched: ClassVar[bool] = True
