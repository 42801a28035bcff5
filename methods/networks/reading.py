"""The configuration of a Swin U-Net or a VQ autoencoder, read off the shapes of its weights.

For published files that come without one. What shapes cannot tell: the diffusion, and the scale.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mrbench.errors import UserError

from .swin_unet_options import SwinUNetConfig
from .vq_options import VQConfig

Shapes = Mapping[str, tuple[int, ...]]


def read_swin_unet(tensors: Mapping[str, Tensor], what: str = "these weights") -> SwinUNetConfig:
    """The configuration that has these keys and shapes (without prefixes).

    Raises
    ------
    UserError : these are not the weights of a Swin U-Net, or they leave something open.
    """
    try:
        return _swin_unet({key: tuple(value.shape) for key, value in tensors.items()})
    except (KeyError, IndexError, ValueError) as error:
        raise _unreadable(what, "a U-Net with Swin layers", error) from error


def read_vq(tensors: Mapping[str, Tensor], what: str = "these weights") -> VQConfig:
    """The configuration of a VQ autoencoder that has these keys and shapes (without prefixes).

    Raises
    ------
    UserError : these are not the weights of a VQ autoencoder.
    """
    try:
        return _vq({key: tuple(value.shape) for key, value in tensors.items()})
    except (KeyError, IndexError, ValueError) as error:
        raise _unreadable(what, "a VQ autoencoder", error) from error


def _unreadable(what: str, network: str, error: Exception) -> UserError:
    reason = f"there is no {error.args[0]}" if isinstance(error, KeyError) else str(error)
    return UserError(
        f"{what} do not tell the configuration of {network}: {reason}. "
        'Name another file, or put a config.json with an "architecture" beside it.'
    )


@dataclass(frozen=True)
class _SwinLayer:
    width: int
    heads: int
    window: int
    depth: int
    ratio: float
    side: int | None  # nominal; None: no block is shifted


def _swin_unet(shape: Shapes) -> SwinUNetConfig:
    base, outputs = shape["time_embed.0.weight"][1], shape["out.2.weight"][0]
    first = shape["input_blocks.0.0.weight"][1]
    stages = sum(bool(re.fullmatch(r"feature_extractor\.\d+\.op\.weight", key)) for key in shape)
    given = shape["feature_extractor.0.weight"][1] if stages else first - outputs
    if not stages and outputs not in (1, 3):
        raise ValueError(f"it returns {outputs} channels, and grey (1) and colour (3) are known")
    if given not in (1, 3, 4):
        raise ValueError(f"the condition has {given} channels, and grey (1), colour (3) or colour with a mask (4) are known")
    widths, blocks, layers = _levels(shape)
    last = len(widths) - 1
    attention = sorted(layers)
    middle = _swin_layer(shape, "middle_block.1.")
    if middle is not None:
        layers[last] = middle
    image_size = _image_size(layers, last)
    swin: dict[str, Any] = {}
    if middle is not None:
        windows = [layer.window for layer in layers.values()]
        swin = {"swin_embed_dim": middle.width, "num_heads": middle.heads, "window_size": max(windows)}
        swin |= {"swin_depth": middle.depth, "mlp_ratio": middle.ratio}
    scale_shift = shape["input_blocks.1.0.emb_layers.1.weight"][0] == 2 * shape["input_blocks.1.0.out_layers.3.weight"][0]
    return SwinUNetConfig(
        image_size=image_size,
        in_channels=first - 16 * 2**stages if stages else outputs,
        out_channels=outputs,
        model_channels=base,
        channel_mult=tuple(w // base for w in widths),
        num_res_blocks=tuple(blocks),
        attention_resolutions=tuple(image_size // 2**level for level in attention),
        lq_size=image_size * 2**stages,
        lq_channels=3 if given == 4 else given,
        cond_mask=given == 4,
        use_scale_shift_norm=scale_shift,
        swin=middle is not None,
        **swin,
    )


def _levels(shape: Shapes) -> tuple[list[int], list[int], dict[int, _SwinLayer]]:
    """Width and residual blocks of every level of the encoder, and the Swin layers by level."""
    widths, blocks, layers = [], [0], {}
    n = 1
    while True:
        prefix = f"input_blocks.{n}."
        if f"{prefix}0.op.weight" in shape:
            blocks.append(0)
        elif f"{prefix}0.in_layers.2.weight" in shape:
            if blocks[-1] == 0:
                widths.append(shape[f"{prefix}0.in_layers.2.weight"][0])
                layer = _swin_layer(shape, f"{prefix}1.")
                if layer is not None:
                    layers[len(widths) - 1] = layer
            blocks[-1] += 1
        else:
            return widths, blocks, layers
        n += 1


def _swin_layer(shape: Shapes, prefix: str) -> _SwinLayer | None:
    if f"{prefix}patch_embed.proj.weight" not in shape:
        return None
    table = shape[f"{prefix}blocks.0.attn.relative_position_bias_table"]
    width = shape[f"{prefix}patch_embed.proj.weight"][0]
    window = (math.isqrt(table[0]) + 1) // 2
    depth = len({key.removeprefix(prefix).split(".")[1] for key in shape if key.startswith(f"{prefix}blocks.")})
    mask = shape.get(f"{prefix}blocks.1.attn_mask")
    side = None if mask is None else window * math.isqrt(mask[0])
    return _SwinLayer(width, table[1], window, depth, shape[f"{prefix}blocks.0.mlp.fc1.weight"][0] / width, side)


def _image_size(layers: Mapping[int, _SwinLayer], last: int) -> int:
    """From the masks of shifted blocks; where no block is shifted, the side is that of the window."""
    sizes = {(layer.side or layer.window) * 2**level for level, layer in layers.items()}
    if len(sizes) > 1:
        raise ValueError(f"its Swin layers speak of nominal sizes {', '.join(map(str, sorted(sizes)))}")
    return sizes.pop() if sizes else int(2**last)


def _vq(shape: Shapes) -> VQConfig:
    base, channels = shape["encoder.conv_in.weight"][:2]
    mult: list[int] = []
    blocks: list[int] = []
    while f"encoder.down.{len(mult)}.block.0.conv1.weight" in shape:
        level = len(mult)
        mult.append(shape[f"encoder.down.{level}.block.0.conv1.weight"][0] // base)
        blocks.append(sum(bool(re.fullmatch(rf"encoder\.down\.{level}\.block\.\d+\.conv1\.weight", key)) for key in shape))
    codes, embed = shape["quantize.embedding.weight"]
    return VQConfig(
        embed_dim=embed,
        n_embed=codes,
        z_channels=shape["encoder.conv_out.weight"][0],
        in_channels=channels,
        out_channels=shape["decoder.conv_out.weight"][0],
        ch=base,
        ch_mult=tuple(mult),
        num_res_blocks=tuple(blocks),
    )
