"""CycleGAN: ``restore(measurement, draws) -> [B, K, C, H, W]``."""

from __future__ import annotations

from ..networks.translation import TranslationMethod


class CycleGAN(TranslationMethod):
    """One pass of the generator over the interpolated LR image (arXiv:1703.10593); its dropout is off."""

    name = "cyclegan"
