"""LPIPS as a term of a training loss."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from mrbench.errors import MetricUnavailable, UserError
from mrbench.metrics.base import to_image
from mrbench.metrics.lpips import Lpips, LpipsAlex, LpipsSqueeze, LpipsVgg
from mrbench.metrics.lpips_network import LpipsNetwork
from mrbench.metrics.lpips_weights import load_network

LpipsKind = Literal["off", "squeeze", "alex", "vgg"]  # the type of a recipe's option

_METRICS: dict[str, type[Lpips]] = {m.net: m for m in (LpipsAlex, LpipsVgg, LpipsSqueeze)}


class LpipsLoss(nn.Module):
    """Mean LPIPS v0.1 (Zhang 2018) of a batch, differentiable in both images; the network itself is fixed.

    The metrics ``lpips_*`` compute the same numbers. It runs in float32, outside of autocast.
    """

    def __init__(self, network: LpipsNetwork) -> None:
        super().__init__()
        self.network = network

    @property
    def metric(self) -> str:
        """The metric that this loss makes an unfair score of."""
        return f"lpips_{self.network.net}"

    def forward(self, estimate: Tensor, truth: Tensor) -> Tensor:
        """A scalar from images ``[B, C, H, W]`` in [0, 1] (complex ones by their magnitude; grey is repeated to three channels).

        Nothing is clamped: whoever wants gradients from overshooting pixels only as far as [0, 1] clamps before.

        Raises
        ------
        UserError : images too small for the network.
        """
        least = _METRICS[self.network.net].smallest
        if min(estimate.shape[-2:]) < least:
            raise UserError(
                f"LPIPS ({self.network.net}) needs patches of at least {least} pixels, got {list(estimate.shape[-2:])}. "
                "Enlarge the patch, or switch this loss off."
            )
        with torch.autocast(estimate.device.type, enabled=False):
            pairs = zip(
                self.network.features(to_image(estimate.float())),
                self.network.features(to_image(truth.float())),
                self.network.heads,
                strict=True,
            )
            distances = [((a - b).square() @ head).mean() for a, b, head in pairs]
            return torch.stack(distances).sum()


def lpips_loss(kind: LpipsKind, device: torch.device, option: str) -> LpipsLoss | None:
    """The loss of an option, ``None`` for "off".

    Parameters
    ----------
    option : how the user switches it off, e.g. ``res_srdiff.lpips``; named in the error.

    Raises
    ------
    UserError : the network's weights cannot be had here, with the reason.
    """
    if kind == "off":
        return None
    try:
        network = load_network(kind)
    except MetricUnavailable as error:
        raise UserError(
            f"the recipe's loss needs LPIPS ({kind}), which is not to be had here: {error} "
            f"To train without it: --set {option}=off (the checkpoint records that)."
        ) from error
    return LpipsLoss(network.to(device))
