"""Weights of SPSR: published files, and the PSNR-oriented trunk that trainings begin from."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from mrbench.errors import UserError

from .spsr_options import SPSRConfig

TRUNK_END = {"model.5.weight": 2, "model.8.weight": 4, "model.11.weight": 8}  # last convolution of the trunk -> scale


def read_spsr(tensors: Mapping[str, Tensor], what: str) -> SPSRConfig:
    """The network that has these tensors.

    Raises
    ------
    UserError : these are not the weights of SPSR.
    """
    first, dense = tensors.get("model.0.weight"), tensors.get("model.1.sub.0.RDB1.conv1.0.weight")
    scale = next((s for key, s in reversed(TRUNK_END.items()) if key in tensors), None)
    if first is None or dense is None or scale is None or "f_concat.0.weight" not in tensors:
        trunk = " It holds the trunk alone (ESRGAN or RRDB): begin a training from it with --init." if dense is not None else ""
        raise UserError(f"{what} comes without a config.json and holds no weights of SPSR.{trunk} Name another file.")
    blocks = {int(m[1]) for key in tensors if (m := re.match(r"^model\.1\.sub\.(\d+)\.RDB1\.", key))}
    return SPSRConfig(width=first.shape[0], blocks=len(blocks), growth=dense.shape[0], channels=first.shape[1], scale=scale)


def from_trunk(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights to begin a training from: those of SPSR as they are; those of an RRDB network fill the trunk, the rest stays ``wanted``.

    Published trainings began from ``RRDB_PSNR_x4.pth``, whose last convolution (to the image) SPSR does not have.
    """
    if "f_concat.0.weight" in tensors or "model.1.sub.0.RDB1.conv1.0.weight" not in tensors:
        return dict(tensors)
    trunk = {key for key in wanted if key.startswith("model.")}
    end = max(int(key.split(".")[1]) for key in trunk)
    given = {key: value for key, value in tensors.items() if not key.startswith(f"model.{end + 2}.")}
    shared = {
        f"HR_conv0_new.0.{part}": tensors[key] for part in ("weight", "bias") if (key := f"model.{end}.{part}") in tensors
    }
    return {key: value for key, value in wanted.items() if key not in trunk} | given | shared
