"""The optimisers of a stage: which parameters each one steps, and at which rate."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mrbench.errors import UserError
from mrbench.plugins import did_you_mean
from mrbench.train.schedules import learning_rate
from mrbench.train.settings import OptimiserSpec, Stage

KINDS: Mapping[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "radam": torch.optim.RAdam,
}


@dataclass
class StageOptimiser:
    """One optimiser of a stage, with its parameters."""

    name: str
    spec: OptimiserSpec
    parameters: list[nn.Parameter]
    torch: torch.optim.Optimizer

    def set_rate(self, step: int, steps: int) -> float:
        """Set the learning rate of ``step`` and return it."""
        rate = learning_rate(self.spec.schedule, self.spec.lr, step, steps)
        for group in self.torch.param_groups:
            group["lr"] = rate
        return rate

    def gradients(self) -> list[Tensor]:
        """The gradients that the last backward pass gave."""
        return [p.grad for p in self.parameters if p.grad is not None]


def build_optimisers(stage: Stage, networks: Mapping[str, nn.Module]) -> list[StageOptimiser]:
    """The optimisers of a stage, in order. A parameter belongs to one optimiser only.

    Raises
    ------
    UserError : an unknown network, a pattern that matches nothing, or a parameter that two optimisers claim.
    """
    owner: dict[int, str] = {}
    built = []
    for name, spec in stage.optimisers.items():
        for network in spec.networks:
            if network not in networks:
                raise UserError(
                    f"stage {stage.name}, optimiser {name}: no network named {network!r}."
                    f"{did_you_mean(network, networks)} The recipe builds: {', '.join(networks)}."
                )
        chosen = {n: networks[n] for n in spec.networks or networks}
        found = {f"{n}.{k}": p for n, network in chosen.items() for k, p in network.named_parameters()}
        matching = {k: p for k, p in found.items() if not spec.parameters or re.search(spec.parameters, k)}
        if not matching:
            raise UserError(
                f"stage {stage.name}, optimiser {name}: parameters={spec.parameters!r} matches none of {len(found)} parameters."
            )
        for key, parameter in matching.items():
            if id(parameter) in owner:
                raise UserError(f"stage {stage.name}: the optimisers {owner[id(parameter)]} and {name} both step {key}.")
            owner[id(parameter)] = name
        parameters = list({id(p): p for p in matching.values()}.values())
        built.append(StageOptimiser(name, spec, parameters, _make(spec, parameters)))
    return built


def _make(spec: OptimiserSpec, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    return KINDS[spec.kind](
        list(parameters),
        lr=spec.lr,
        betas=spec.betas,
        eps=spec.eps,
        weight_decay=spec.weight_decay,  # type: ignore[call-arg]
    )


def trained_networks(stage: Stage, networks: Mapping[str, nn.Module]) -> list[str]:
    """Names of the networks that some optimiser of the stage steps, in the order of ``networks``."""
    named = {n for spec in stage.optimisers.values() for n in spec.networks or networks}
    return [n for n in networks if n in named]


def set_modes(stage: Stage, networks: Mapping[str, nn.Module]) -> None:
    """Trained networks in train mode; the others frozen, in eval mode and without gradients."""
    trained = trained_networks(stage, networks)
    for name, network in networks.items():
        if name not in trained:
            network.eval()
            network.requires_grad_(False)
    for name in trained:  # after the frozen ones: they may share modules
        networks[name].train()


def only(optimiser: StageOptimiser, optimisers: Sequence[StageOptimiser], networks: Mapping[str, nn.Module]) -> None:
    """Let only the parameters of ``optimiser`` require gradients."""
    mine = {id(p) for p in optimiser.parameters}
    for network in networks.values():
        for parameter in network.parameters():
            parameter.requires_grad_(id(parameter) in mine)
    for other in (optimiser, *optimisers):
        other.torch.zero_grad(set_to_none=True)
