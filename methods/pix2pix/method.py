"""Pix2Pix: ``restore(measurement, draws) -> [B, K, C, H, W]``."""

from __future__ import annotations

from ..networks.translation import TranslationMethod


class Pix2Pix(TranslationMethod):
    """One pass of the generator over the interpolated LR image (arXiv:1611.07004); its dropout is off."""

    name = "pix2pix"
