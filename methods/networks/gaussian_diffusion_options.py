"""What a variance-preserving diffusion with discrete steps was trained with, checked (no torch here)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from mrbench.cards import Options

Prediction = Literal["eps", "v", "x0"]


class GaussianConfig(Options):
    """``x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) n`` with steps t from 0."""

    steps: PositiveInt = Field(default=1000, description="steps T of training")
    schedule: Literal["linear", "cosine"] = Field(
        default="linear", description="linear: betas from 0.1 / T to 20 / T (Ho 2020); cosine: Nichol and Dhariwal 2021"
    )
    prediction: Prediction = Field(default="eps", description="the noise, v = sqrt(a) n - sqrt(1 - a) x_0, or the image")
    learn_sigma: bool = Field(default=False, description="the second half of the output is the variance (learned range)")
