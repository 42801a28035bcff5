"""``UNet2DModel`` networks of the diffusers library as priors.

The library builds the network (extra ``mrbench[diffusers]``); weights, schedule and sampling are mrbench's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mrbench.errors import UserError
from mrbench.hub.checkpoint import LocalCheckpoint

from .gaussian_diffusion import Float64, GaussianDiffusion, cosine_betas
from .gaussian_diffusion_options import Prediction
from .loading import load_strict
from .prior_discrete import DiscretePrior, check_label

CLASS_NAME = "UNet2DModel"
SCHEDULER = "scheduler_config.json"
PREDICTIONS: Mapping[str, Prediction] = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
CHANNELS = (1, 2, 3)


class DiffusersPrior(DiscretePrior):
    """A ``UNet2DModel`` with the schedule of its pipeline."""

    def __init__(
        self, network: nn.Module, config: Mapping[str, Any], scheduler: Mapping[str, Any], label: int | None, what: str
    ) -> None:
        """``config``, ``scheduler``: the pipeline's JSON files (``UserError`` where they are none that a prior can have)."""
        channels, outputs = int(config.get("in_channels", 3)), int(config.get("out_channels", 3))
        prediction = str(scheduler.get("prediction_type", "epsilon"))
        if channels not in CHANNELS or outputs not in (channels, 2 * channels):
            raise UserError(
                f"{what}: {channels} channels in and {outputs} out; a prior has 1 to 3 in, and as many or twice as many out."
            )
        if prediction not in PREDICTIONS:
            raise UserError(f"{what}: prediction_type {prediction!r} is none of {', '.join(PREDICTIONS)}.")
        classes = config.get("num_class_embeds")
        check_label(label, classes, what)
        levels = len(config.get("block_out_channels", ()))
        super().__init__(
            GaussianDiffusion.from_betas(scheduler_betas(scheduler, what)), PREDICTIONS[prediction], outputs == 2 * channels,
            channels, multiple=2 ** max(levels - 1, 0),
        )  # fmt: skip
        self.network, self.label = network, label

    def _output(self, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        if condition is not None:
            raise ValueError("this prior takes no condition")
        labels = {} if self.label is None else {"class_labels": torch.full((len(x),), self.label, device=x.device)}
        output: Tensor = self.network(x, t, return_dict=False, **labels)[0]
        return output


def scheduler_betas(scheduler: Mapping[str, Any], what: str) -> Float64:
    """The betas float64 ``[T]`` of a ``scheduler_config.json``.

    Raises
    ------
    UserError : a schedule that is not known here.
    """
    trained = scheduler.get("trained_betas")
    if trained is not None:
        return np.asarray(trained, dtype=np.float64)
    steps = int(scheduler.get("num_train_timesteps", 1000))
    start, end = float(scheduler.get("beta_start", 1e-4)), float(scheduler.get("beta_end", 0.02))
    kind = scheduler.get("beta_schedule", "linear")
    if kind == "linear":
        return np.linspace(start, end, steps)
    if kind == "scaled_linear":
        return np.linspace(math.sqrt(start), math.sqrt(end), steps) ** 2
    if kind == "squaredcos_cap_v2":
        return cosine_betas(steps)
    raise UserError(f"{what}: beta_schedule {kind!r} is none of linear, scaled_linear, squaredcos_cap_v2.")


def diffusers_prior(checkpoint: LocalCheckpoint, what: str, label: int | None = None) -> DiffusersPrior:
    """The prior of a ``UNet2DModel``'s weights, beside which lies its ``config.json`` (the folder ``unet`` of a pipeline).

    The schedule is read from ``scheduler_config.json`` beside the weights, or in the pipeline's folder ``scheduler``.

    Raises
    ------
    UserError : diffusers is not installed, a file is missing, or weights that do not fit.
    """
    scheduler = _scheduler(checkpoint.file, what)
    try:
        from diffusers import UNet2DModel
    except ImportError as error:
        raise UserError(
            f"{what} is a network of the diffusers library, which is not installed here ({error}): pip install 'mrbench[diffusers]'."
        ) from None
    network = UNet2DModel.from_config(dict(checkpoint.config))
    load_strict(network, checkpoint.tensors("cpu"), what=what)
    return DiffusersPrior(network, checkpoint.config, scheduler, label, what)


def _scheduler(weights: Path, what: str) -> Mapping[str, Any]:
    places = (weights.parent / SCHEDULER, weights.parent.parent / "scheduler" / SCHEDULER)
    for place in places:
        if place.is_file():
            try:
                document = json.loads(place.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise UserError(f"{place}: cannot be read as JSON ({error}).") from None
            if isinstance(document, dict):
                return document
            raise UserError(f"{place}: expected a JSON object.")
    raise UserError(
        f"{what} is a network of the diffusers library, and its noise schedule is missing: expected {places[0]} or {places[1]}."
    )
