"""Regression baselines: one pass of a network at LR resolution, added to the interpolated image."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mrbench.cards import Options
from mrbench.degradation.measurement import Measurement, upsample
from mrbench.errors import UserError
from mrbench.hub import LocalCheckpoint

from .enlarge import enlarge
from .loading import load_strict
from .parts import parts_of
from .regression_options import RegressionOptions
from .residual_model import no_weights
from .self_ensemble import SIZE, self_ensemble


class Regression:
    """``x = bicubic(y) + shuffle_s(f(y))``. A method says which network f is.

    Attributes
    ----------
    name : the method's. config : the form of the network, with ``channels`` and ``scale``. network : builds it.
    """

    name: ClassVar[str]
    config: ClassVar[type[Options]]
    network: ClassVar[Callable[[Any], nn.Module]]

    def __init__(self, options: RegressionOptions) -> None:
        """Keep the options; :meth:`load` brings the network."""
        self._ensemble = options.self_ensemble
        self.nfe = SIZE if options.self_ensemble else 1

    def load(self, checkpoint: LocalCheckpoint | None, device: torch.device | str) -> None:
        """Build the network that the checkpoint describes.

        Raises
        ------
        UserError : no weights, or weights that do not fit.
        """
        if checkpoint is None:
            raise no_weights(self.name)
        self._what = str(checkpoint.file)
        parts = parts_of(checkpoint, self.name, {"network": self.config}, "network")
        if parts is None:
            raise UserError(
                f"{self._what} comes without a config.json that describes its network. Published {self.name} files have other networks "
                f"(they work on RGB images and do not add to the interpolated one): `--method LABEL=spandrel@FILE` runs many of them. "
                "Or name a checkpoint folder of mrbench."
            )
        self._config: Any = parts["network"]
        self._network = type(self).network(self._config)
        load_strict(self._network, checkpoint.tensors("cpu"), what=self._what)
        self._network.eval().requires_grad_(False).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def restore(self, measurement: Measurement, draws: int) -> Tensor:
        """The same image ``draws`` times, ``[B, K, C, H, W]`` on the scale of [0, 1], unclipped.

        Raises
        ------
        UserError : images with other channels or of another scale than the network's.
        """
        network = partial(self_ensemble, self._network) if self._ensemble else self._network
        added = enlarge(network, measurement, self._config.channels, self._config.scale, self._what)
        image = upsample(measurement) + added
        return image[:, None].expand(-1, draws, -1, -1, -1)
