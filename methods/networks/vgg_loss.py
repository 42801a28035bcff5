"""Distance of VGG19 features, the perceptual loss of SRGAN, ESRGAN and SPSR."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .loading import load_strict, read_tensors

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
LAYERS = 35  # up to the fifth convolution after the fourth pooling, before its rectifier ("VGG19-54")


class VGGLoss(nn.Module):
    """Mean absolute difference of the features of two batches of images in [0, 1]; grey is repeated to three channels."""

    mean: Tensor
    std: Tensor

    def __init__(self, file: str) -> None:
        """Read torchvision's ``vgg19-dcbb9e9d.pth`` (or its features alone).

        Raises
        ------
        UserError : there is no such file, or it holds another network.
        """
        super().__init__()
        from torchvision.models import vgg19

        self.features = vgg19(weights=None).features[:LAYERS]
        wanted = {f"features.{key}" for key in self.features.state_dict()}
        tensors = {key: value for key, value in read_tensors(file).items() if key in wanted}
        load_strict(self.features, tensors, prefixes=("features.",), what=file)
        self.features.requires_grad_(False).eval()
        self.register_buffer("mean", torch.tensor(MEAN).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).reshape(1, 3, 1, 1))

    def forward(self, estimate: Tensor, truth: Tensor) -> Tensor:
        """A scalar, differentiable in ``estimate``."""
        with torch.no_grad():
            wanted = self._of(truth)
        return (self._of(estimate) - wanted).abs().mean()

    def _of(self, x: Tensor) -> Tensor:
        out: Tensor = self.features((x.expand(-1, 3, -1, -1) - self.mean) / self.std)
        return out
