"""Trainable toy methods: a residual network on bicubic interpolation, an adversarial one, and one of two stages."""

from __future__ import annotations

import os
import time
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

import mrbench
from mrbench.errors import UserError
from mrbench.train.losses import LpipsKind, lpips_loss
from mrbench.train.recipe import Recipe
from mrbench.train.settings import RecipeOptions


class Net(nn.Module):
    """Three convolutions on the interpolated image; starts as the identity."""

    def __init__(self, width: int, dropout: float = 0.05) -> None:
        super().__init__()
        self.dropout = dropout
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, 1, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.register_buffer("tiny", torch.tensor([1e-9, 0.1]))

    def forward(self, x):
        return x + self.last(F.relu(self.second(F.dropout(F.relu(self.first(x)), self.dropout, self.training))))


class Toy:
    def __init__(self, options) -> None:
        self.options = options

    def load(self, checkpoint, device) -> None:
        if checkpoint is None:
            raise UserError("toy needs weights")
        self.net = Net(**checkpoint.config["architecture"])
        self.net.load_state_dict(checkpoint.tensors())
        self.net.to(device).eval()

    def restore(self, measurement, draws):
        return self.net(mrbench.upsample(measurement))[:, None].expand(-1, draws, -1, -1, -1)


class ToyOptions(RecipeOptions):
    width: int = 8
    noise: float = 0.01
    dropout: float = 0.05
    nan_after: int = -1
    lpips: LpipsKind = "off"


class ToyRecipe(Recipe[ToyOptions]):
    options_model = ToyOptions
    ablations: ClassVar = {"narrow": {"width": 4}, "silent": {"noise": 0.0}}

    def __init__(self, options, context) -> None:
        super().__init__(options, context)
        self.seen = 0
        self.lpips = lpips_loss(options.lpips, context.device, "toy.lpips")

    def build(self):
        return {"net": Net(self.options.width, self.options.dropout)}

    def losses(self, networks, batch, generator, step, optimiser):
        self.seen += 1
        time.sleep(float(os.environ.get("TOY_PAUSE", "0")))  # so that a training lasts long enough to be killed
        start = mrbench.upsample(batch.measurement)
        start = start + self.options.noise * torch.randn(start.shape, generator=generator, device=generator.device)
        estimate = networks["net"](start)
        terms = {"mse": (estimate - batch.hr).square().mean()}
        if self.lpips is not None:
            terms["lpips"] = 0.01 * self.lpips(estimate, batch.hr)
        if step.training and 0 <= self.options.nan_after <= step.number:
            terms["mse"] = terms["mse"] * float("nan")
        return terms

    def checkpoint_config(self):
        return {"architecture": {"width": self.options.width}}

    def optimised_for(self):
        return ("psnr",) if self.lpips is None else ("psnr", self.lpips.metric)

    def extra_state(self):
        return {"seen": self.seen}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]


class Judge(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 8, 4, 2, 1), nn.BatchNorm2d(8), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 4, 2, 1))

    def forward(self, x):
        return self.layers(x)


class GanRecipe(Recipe[ToyOptions]):
    """A generator and a discriminator, each with its optimiser, and a pool of old fakes."""

    options_model = ToyOptions
    preset_folder = "presets_gan"
    shipped = ("generator",)

    def __init__(self, options, context) -> None:
        super().__init__(options, context)
        self.pool: list[torch.Tensor] = []

    def build(self):
        return {"generator": Net(self.options.width), "judge": Judge()}

    def losses(self, networks, batch, generator, step, optimiser):
        fake = networks["generator"](mrbench.upsample(batch.measurement))
        if optimiser == "generator":
            verdict = networks["judge"](fake)
            return {
                "pixel": (fake - batch.hr).abs().mean(),
                "adversarial": 0.001 * F.binary_cross_entropy_with_logits(verdict, torch.ones_like(verdict)),
            }
        self.pool = [*self.pool, fake.detach()[:1]][-4:]
        old = torch.cat([fake.detach(), self.pool[0]])
        real, false = networks["judge"](batch.hr), networks["judge"](old)
        return {
            "real": 0.5 * F.binary_cross_entropy_with_logits(real, torch.ones_like(real)),
            "fake": 0.5 * F.binary_cross_entropy_with_logits(false, torch.zeros_like(false)),
        }

    def checkpoint_config(self):
        return {"architecture": {"width": self.options.width}}

    def extra_state(self):
        return {"pool": self.pool}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        self.pool = list(state["pool"])


class Branched(nn.Module):
    """A trunk, and a branch added to it that starts as a copy of the trunk with a zero gain."""

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.trunk, self.branch, self.gain = Net(width, dropout), Net(width, dropout), nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return self.trunk(x) + self.gain * (self.branch(x) - x)


class StagedMethod:
    def __init__(self, options) -> None:
        self.options = options

    def load(self, checkpoint, device) -> None:
        self.net = Branched(**checkpoint.config["architecture"])
        self.net.load_state_dict(checkpoint.tensors())
        self.net.to(device).eval()

    def restore(self, measurement, draws):
        return self.net(mrbench.upsample(measurement))[:, None].expand(-1, draws, -1, -1, -1)


class StagedRecipe(Recipe[ToyOptions]):
    """First the trunk, then the branch with the trunk frozen."""

    options_model = ToyOptions
    preset_folder = "presets_stages"

    def build(self):
        self.whole = Branched(self.options.width, self.options.dropout)
        return {"whole": self.whole}

    def start_stage(self, networks, stage, batches) -> None:
        if stage.name == "branch":
            self.whole.branch.load_state_dict(self.whole.trunk.state_dict())
            assert len({b.items for b in batches(2)}) == 2

    def losses(self, networks, batch, generator, step, optimiser):
        return {"mse": (networks["whole"](mrbench.upsample(batch.measurement)) - batch.hr).square().mean()}

    def checkpoint_config(self):
        return {"architecture": {"width": self.options.width}}


HERE = "mrbench_plugin_file_toy"


@mrbench.hookimpl
def mrbench_methods():
    return [
        mrbench.MethodCard("toy", Toy, "a toy", channels=(1,), recipe=f"{HERE}:ToyRecipe"),
        mrbench.MethodCard("toy_gan", Toy, "an adversarial toy", channels=(1,), recipe=f"{HERE}:GanRecipe"),
        mrbench.MethodCard(
            "toy_stages", StagedMethod, "a toy of two stages", channels=(1,), scales=(2,), recipe=f"{HERE}:StagedRecipe"
        ),
        mrbench.MethodCard("toy_broken", Toy, "a toy whose recipe is not there", recipe="nowhere.at_all:Recipe"),
    ]
