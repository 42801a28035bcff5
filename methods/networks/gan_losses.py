"""Adversarial losses, and the pool of earlier images that a discriminator is shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mrbench.errors import UserError
from mrbench.train.settings import Stage

GanKind = Literal["vanilla", "lsgan"]


def gan_loss(kind: GanKind, verdict: Tensor, real: bool) -> Tensor:
    """How far logits are from "real" or "fake": cross-entropy (``vanilla``), or squared distance to 1 or 0 (``lsgan``, Mao 2017)."""
    verdict = verdict.float()
    target = torch.full_like(verdict, float(real))
    return F.mse_loss(verdict, target) if kind == "lsgan" else F.binary_cross_entropy_with_logits(verdict, target)


def relativistic_loss(verdict_real: Tensor, verdict_fake: Tensor, generator: bool) -> Tensor:
    """Relativistic average GAN (Jolicoeur-Martineau 2018, arXiv:1807.00734) with cross-entropy, of discriminator or generator.

    Discriminator: real images should look more real than fake ones do on average, and the other way round; generator: the opposite.
    """
    real, fake = verdict_real.float(), verdict_fake.float()
    to_real = torch.full_like(real, float(not generator))
    to_fake = torch.full_like(fake, float(generator))
    return 0.5 * (
        F.binary_cross_entropy_with_logits(real - fake.mean(), to_real)
        + F.binary_cross_entropy_with_logits(fake - real.mean(), to_fake)
    )


class ImagePool:
    """Up to ``size`` earlier images; half of what is asked for comes from it (Shrivastava 2017, arXiv:1612.07828, section 2.3)."""

    def __init__(self, size: int) -> None:
        """``size`` 0: nothing is kept."""
        self.size = size
        self.images: list[Tensor] = []

    def query(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """``[B, C, H, W]``: every image, or with probability 1/2 one from the full pool, whose place it takes."""
        if not self.size:
            return images
        chosen = []
        for image in images.detach():
            if len(self.images) < self.size:
                self.images.append(image.clone())
                chosen.append(image)
                continue
            numbers = torch.rand(2, generator=generator, device=generator.device).tolist()
            if numbers[0] > 0.5:
                place = min(int(numbers[1] * self.size), self.size - 1)
                chosen.append(self.images[place])
                self.images[place] = image.clone()
            else:
                chosen.append(image)
        return torch.stack(chosen)

    def restore(self, images: Iterable[Tensor]) -> None:
        """Take back what ``images`` was."""
        self.images = list(images)


def check_optimisers(stages: Sequence[Stage], known: Sequence[str]) -> None:
    """Refuse stages whose optimisers are not exactly ``known``.

    Raises
    ------
    UserError : another name, or one is missing, or one does not say which networks it steps.
    """
    for stage in stages:
        if set(stage.optimisers) != set(known):
            raise UserError(
                f"stage {stage.name}: its optimisers are {', '.join(stage.optimisers)}; this recipe has {', '.join(known)}."
            )
        for name, spec in stage.optimisers.items():
            if not spec.networks:
                raise UserError(
                    f"stage {stage.name}: optimiser {name} would step all networks. Let it name them: networks: [...]."
                )
