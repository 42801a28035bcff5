"""Methods that turn the interpolated LR image into the HR image in one pass of a generator."""

from __future__ import annotations

from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from mrbench.degradation.measurement import Measurement, upsample
from mrbench.errors import UserError
from mrbench.hub.checkpoint import LocalCheckpoint

from .canvas import Noise, restore_on_canvas
from .gan_options import PREUPSAMPLE, ResnetGeneratorConfig, TranslationOptions, UNetGeneratorConfig
from .gan_reading import mended, read_resnet_generator, read_unet_generator
from .loading import CONTAINERS, load_strict, selected
from .norms import use_image_statistics
from .parts import parts_of
from .residual_model import no_weights
from .resnet_generator import ResnetGenerator
from .settings import filled, saved_options
from .steps import OnStep
from .unet_generator import UNetGenerator

GENERATOR = "generator"


class _Form(Protocol):
    @property
    def channels(self) -> int: ...


class Translator:
    """A generator on a device, and the road from a measurement to restored images."""

    def __init__(
        self, method: str, options: TranslationOptions, checkpoint: LocalCheckpoint | None, device: torch.device | str
    ) -> None:
        """Build the generator of ``method`` that the checkpoint describes, or that a published file holds.

        Raises
        ------
        UserError : no weights, or weights that do not fit.
        """
        if checkpoint is None:
            raise no_weights(method)
        what, unet = str(checkpoint.file), method == "pix2pix"
        parts = parts_of(checkpoint, method, {GENERATOR: UNetGeneratorConfig if unet else ResnetGeneratorConfig}, GENERATOR)
        self.options = filled(options, saved_options(checkpoint.config, TranslationOptions, what))
        tensors = selected(checkpoint.tensors("cpu", CONTAINERS), ("netG.",))
        self.network: nn.Module
        if unet:
            config = parts[GENERATOR] if parts else read_unet_generator(tensors, what)
            self.network = UNetGenerator(config)
        else:
            config = parts[GENERATOR] if parts else read_resnet_generator(tensors, what)
            self.network = ResnetGenerator(config)
        form: _Form = config
        self._channels = form.channels
        self._multiple = int(self.network.multiple)
        load_strict(self.network, mended(tensors, config.norm), what=what)
        use_image_statistics(self.network, self.options.statistics != "running")
        self.network.eval().requires_grad_(False).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def restore(self, measurement: Measurement, draws: int) -> Tensor:
        """One image ``draws`` times, ``[B, K, C, H, W]`` in [0, 1].

        Raises
        ------
        UserError : images with other channels than the network's.
        """

        def sampler(image: Tensor, noise: Noise, on_step: OnStep | None) -> Tensor:
            out: Tensor = self.network(image)
            return out.float()

        def upsampler(canvas: Measurement) -> Tensor:
            return upsample(canvas, self.options.preupsample or PREUPSAMPLE)

        restored = restore_on_canvas(
            measurement, 1, sampler, upsampler, self.options, channels=self._channels, multiple=self._multiple
        )
        return restored.expand(-1, draws, -1, -1, -1)


class TranslationMethod:
    """What a method on a :class:`Translator` is to the harness; subclasses say their ``name``."""

    name: ClassVar[str]
    nfe = 1

    def __init__(self, options: TranslationOptions) -> None:
        """Keep the options; :meth:`load` brings the network."""
        self._options = options

    def load(self, checkpoint: LocalCheckpoint | None, device: torch.device | str) -> None:
        """Build the generator that the checkpoint describes, or that a published file holds.

        Raises
        ------
        UserError : no weights, or weights that do not fit.
        """
        self._translator = Translator(self.name, self._options, checkpoint, device)

    def restore(self, measurement: Measurement, draws: int) -> Tensor:
        """One image ``draws`` times, ``[B, K, C, H, W]`` in [0, 1].

        Raises
        ------
        UserError : images with other channels than the network's.
        """
        return self._translator.restore(measurement, draws)


def check_channels(wanted: int, given: int, method: str) -> None:
    """Refuse a generator for other images than those of a training (``UserError``)."""
    if wanted != given:
        raise UserError(
            f"the generator of this preset takes images of {wanted} channel(s), the training images have {given}. Convert them with "
            f"--set {method}.channels={wanted}, or set {method}.{GENERATOR}.channels={given}."
        )
