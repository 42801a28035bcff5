"""The contract of a trainable method: what its author writes, and what the training loop hands over.

A recipe is a class derived from :class:`Recipe`, named lazily on the method's card (``recipe="package.module:Class"``). Its
presets are YAML files in the folder ``presets`` beside its module, one for each preset, validated by its options model.

The smallest one::

    class ToyOptions(RecipeOptions):
        width: int = 16


    class Toy(Recipe[ToyOptions]):
        options_model = ToyOptions

        def build(self):
            return {"net": Net(self.options.width)}

        def losses(self, networks, batch, generator, step, optimiser):
            start = batch.measurement.operator.upsample(batch.measurement.y)
            return {"mse": (networks["net"](start) - batch.hr).square().mean()}

        def checkpoint_config(self):
            return {"architecture": {"width": self.options.width}}
"""

from __future__ import annotations

import importlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from mrbench.cards import MethodCard
from mrbench.degradation.measurement import Measurement
from mrbench.engine.restorer import Restorer
from mrbench.errors import PluginError, UserError
from mrbench.hub.checkpoint import LocalCheckpoint
from mrbench.protocol import ResolvedProtocol
from mrbench.train.settings import RecipeOptions, Stage
from mrbench.train.weights import joined_state, load_joined

O = TypeVar("O", bound=RecipeOptions)  # noqa: E741
Networks = Mapping[str, nn.Module]
Batches = Callable[[int], "Iterator[TrainBatch]"]


@dataclass(frozen=True)
class Context:
    """What a recipe knows about the training it is made for.

    scale : the HR side over the LR side, an integer where it is one. channels : of the images (1 magnitude, 2 complex, 3 colour).
    open_checkpoint : the weights of ``METHOD`` or ``METHOD@CHECKPOINT`` (``UserError`` if there are none), for teachers and other
        networks that are fixed.
    """

    card: MethodCard
    protocol: ResolvedProtocol
    scale: int | float
    channels: int
    device: torch.device
    seed: int
    open_checkpoint: Callable[[str], LocalCheckpoint]


@dataclass(frozen=True)
class TrainBatch:
    """Patches and their measurements, on the training device.

    hr : ``[B, C, P, P]`` float32 in [0, 1] (complex: magnitude up to 1). measurement : made by the protocol's degradation on the
        patch, with ``y``, ``operator`` and the rest. items : the ids of the slices that the patches were cut from.
    """

    hr: Tensor
    measurement: Measurement
    items: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """Where training is. ``index`` counts from 0 within the stage, ``number`` from 0 over all stages."""

    stage: Stage
    index: int
    number: int
    training: bool = True  # False: a validation loss is wanted


class Recipe(ABC, Generic[O]):
    """How a method is trained. One object lives for one training; see the module's text for the smallest recipe.

    Randomness comes from the ``generator`` that :meth:`losses` gets and from torch's global generator (dropout), which the loop
    seeds before every step: nothing else may be random, and nothing may depend on earlier calls except through the networks
    and :meth:`extra_state`. Then a training that was interrupted gives the same weights as one that was not.
    """

    options_model: ClassVar[type[RecipeOptions]] = RecipeOptions
    preset_folder: ClassVar[str] = "presets"  # beside the recipe's module
    shipped: ClassVar[tuple[str, ...]] = ()  # networks that go into the checkpoint; empty: all (no discriminators, no teachers)
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # name -> changes of the options (dotted keys)

    def __init__(self, options: O, context: Context) -> None:
        self.options = options
        self.context = context

    def stages(self) -> Sequence[Stage]:
        """The stages in order (default: those of the options)."""
        return self.options.stages

    @abstractmethod
    def build(self) -> dict[str, nn.Module]:
        """All networks by name, on the CPU in float32; initial weights come from torch's global generator, which is seeded.

        Networks that no optimiser names are frozen and in eval mode. Fixed networks of a loss (LPIPS) do not belong here.
        """

    @abstractmethod
    def losses(
        self, networks: Networks, batch: TrainBatch, generator: torch.Generator, step: Step, optimiser: str
    ) -> dict[str, Tensor]:
        """The terms of one optimiser's loss, already weighted, by name; their sum is minimised.

        Called for each optimiser of the stage in turn, after the one before has stepped; only parameters of ``optimiser``
        require gradients. Each call sees the same batch (or with ``accumulate`` all micro-batches in turn). An empty dictionary
        leaves this optimiser out of this step. ``generator`` lives on the training device.
        """

    @abstractmethod
    def checkpoint_config(self) -> dict[str, Any]:
        """What goes into ``config.json``: ``architecture`` (constructor arguments of the networks), if needed ``method_options``
        (options that the method takes from its weights unless it is told otherwise) and ``kind`` ("network" or "prior"), and anything else that
        ``load(checkpoint, device)`` of the method needs. Format, method, name, tier, scale, degradation and channels are added.
        """

    def state_dict(self, networks: Networks) -> dict[str, Tensor]:
        """The tensors of ``model.safetensors``: those that the method's ``load`` wants.

        Default: of the networks in ``shipped``, the only one's state dictionary, or those of several with the network's name and
        a dot before each key. The networks hold averaged weights when this is called, if the stage keeps an average.
        """
        return joined_state({n: networks[n] for n in self.shipped or networks})

    def load_weights(self, networks: Networks, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of :meth:`state_dict`: for ``--init``, and for the weights that pass from stage to stage.

        Raises
        ------
        UserError : the tensors do not fit, naming the first differing keys and shapes.
        """
        load_joined({n: networks[n] for n in self.shipped or networks}, tensors)

    def start_stage(self, networks: Networks, stage: Stage, batches: Batches) -> None:
        """Called once when a stage begins, not when it is resumed: copy a branch, measure the data ...

        ``batches(n)`` yields n (micro-)batches of the stage's data. What is found must go into the networks or :meth:`extra_state`.
        """
        return None

    def after_step(self, networks: Networks, step: Step) -> None:
        """Called after all optimisers have stepped and before averages are updated (forced weight normalisation ...)."""
        return None

    def extra_state(self) -> dict[str, Any]:
        """What the recipe must remember besides the networks (an image pool, measured statistics): tensors, numbers, texts,
        and lists and dictionaries of them.
        """
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`extra_state` gave.

        Raises
        ------
        PluginError : a state is there, and the recipe does not say what to do with it.
        """
        if state:
            raise PluginError(f"{type(self).__name__} has extra_state but no load_extra_state.")

    def draws_on(self) -> Mapping[str, LocalCheckpoint]:
        """Other checkpoints that these weights come from, by their part (``{"teacher": ...}``); weights of ``--init`` are known.

        They are recorded, and whom they were trained on counts as whom this training saw.
        """
        return {}

    def factors(self, stages: Sequence[str]) -> dict[str, bool | str]:
        """The columns that tables of ablations show of these weights: heading -> whether it was there, or which one it was.

        ``stages``: names of those that were trained, with those of the weights that training began from. Default: no columns; tables
        then show what differs between the options and stages of their runs.
        """
        return {}

    def optimised_for(self) -> tuple[str, ...]:
        """Names of the metrics that the losses minimise, or nearly so: their scores are marked as such."""
        return ()

    def restorer(self, card: MethodCard, checkpoint: LocalCheckpoint, device: torch.device) -> Restorer | None:
        """The method with the weights of ``checkpoint``, for validation.

        Default: the method of the card with its default options, loaded as ``mrbench run`` loads it. ``None``: these weights alone restore nothing
        (a prior without its sampler); then the stages select by ``loss``.
        """
        return Restorer(card, card.parse({}), device, "fp32", checkpoint, warm_up=False)

    @classmethod
    def presets(cls) -> dict[str, Path]:
        """The preset files of this recipe, by name."""
        folder = Path(inspect.getfile(cls)).parent / cls.preset_folder
        return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def load_recipe(card: MethodCard) -> type[Recipe[Any]]:
    """The recipe of a method.

    Raises
    ------
    UserError : the method has none. PluginError : it cannot be imported, or is no recipe.
    """
    if not card.recipe:
        raise UserError(f"method {card.name} has no training recipe: there is nothing to train, or it is trained elsewhere.")
    module, _, attribute = card.recipe.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a plugin's import may raise anything
        raise PluginError(f"{card.name}: cannot load its recipe {card.recipe!r}: {type(error).__name__}: {error}") from error
    if not (inspect.isclass(found) and issubclass(found, Recipe)):
        raise PluginError(f"{card.name}: its recipe {card.recipe!r} is not a class derived from mrbench.train.recipe.Recipe.")
    return found
