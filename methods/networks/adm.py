"""The U-Net of guided-diffusion, ADM (Dhariwal and Nichol 2021, arXiv:2105.05233).

Written from the published description and layouts; keys, shapes and order of the state dict are those of published weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .adm_options import ADMConfig
from .swin import group_norm
from .swin_unet import timestep_embedding


class GroupNorm(nn.GroupNorm):
    """Group normalisation computed in float32 whatever the input; eps 1e-5."""

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, ...]``, same type as given."""
        return group_norm(x, self)


def halved(x: Tensor) -> Tensor:
    """``[B, C, H, W] -> [B, C, H/2, W/2]``, means of 2x2 pixels."""
    return F.avg_pool2d(x, 2)


def doubled(x: Tensor) -> Tensor:
    """``[B, C, H, W] -> [B, C, 2H, 2W]``, every pixel repeated."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class ResBlock(nn.Module):
    """Two convolutions with the embedded time between them; ``step`` changes the resolution before the first (-1, 0, 1)."""

    def __init__(self, channels: int, out_channels: int, emb: int, config: ADMConfig, step: int = 0) -> None:
        """``channels -> out_channels`` at half (-1), equal (0) or twice (1) the size; the last convolution starts at zero."""
        super().__init__()
        c = config
        self.scale_shift, self.step = c.use_scale_shift_norm, step
        self.in_layers = nn.Sequential(
            GroupNorm(c.groups, channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb, out_channels * (2 if self.scale_shift else 1)))
        last = _zero(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.out_layers = nn.Sequential(GroupNorm(c.groups, out_channels), nn.SiLU(), nn.Dropout(c.dropout), last)
        self.skip_connection = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """``[B, C, H, W]`` and the embedded time ``[B, E]``."""
        norm, activation, convolution = self.in_layers
        h = activation(norm(x))
        if self.step:
            resize = doubled if self.step > 0 else halved
            h, x = resize(h), resize(x)
        h = convolution(h)
        e = self.emb_layers(emb).to(h.dtype)[:, :, None, None]
        norm, *rest = self.out_layers
        if self.scale_shift:
            scale, shift = e.chunk(2, dim=1)
            h = torch.addcmul(shift, norm(h), 1 + scale)
        else:
            h = norm(h + e)
        for layer in rest:
            h = layer(h)
        out: Tensor = self.skip_connection(x) + h
        return out


class Attention(nn.Module):
    """Self-attention over all pixels, added to its input.

    In the legacy order the channels of ``qkv`` are (head, q/k/v, channel), in the new one (q/k/v, head, channel).
    """

    def __init__(self, channels: int, heads: int, new_order: bool, groups: int) -> None:
        """``channels`` in and out; the projection starts at zero."""
        super().__init__()
        self.heads, self.new_order = heads, new_order
        self.norm = GroupNorm(groups, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = _zero(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]``: ``x + W softmax(q^T k / sqrt(d)) v``."""
        batch, channels, height, width = x.shape
        tokens = self.norm(x).permute(0, 2, 3, 1).reshape(batch, height * width, channels)
        qkv = F.linear(tokens, self.qkv.weight[:, :, 0], self.qkv.bias)
        if self.new_order:
            q, k, v = qkv.reshape(batch, -1, 3, self.heads, channels // self.heads).unbind(2)
        else:
            q, k, v = qkv.reshape(batch, -1, self.heads, 3, channels // self.heads).unbind(3)
        mixed = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        mixed = mixed.transpose(1, 2).reshape(batch, height * width, channels)
        mixed = F.linear(mixed, self.proj_out.weight[:, :, 0], self.proj_out.bias)
        return x + mixed.reshape(batch, height, width, channels).permute(0, 3, 1, 2)


class Downsample(nn.Module):
    """Half the size: a convolution with stride 2, or means of 2x2 pixels."""

    def __init__(self, channels: int, use_conv: bool) -> None:
        """``channels`` in and out."""
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1) if use_conv else nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, C, H/2, W/2]``."""
        out: Tensor = self.op(x)
        return out


class Upsample(nn.Module):
    """Every pixel doubled, then a convolution if there is one."""

    def __init__(self, channels: int, use_conv: bool) -> None:
        """``channels`` in and out."""
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1) if use_conv else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, C, 2H, 2W]``."""
        out: Tensor = self.conv(doubled(x))
        return out


class ADMUNet(nn.Module):
    """Predicts from the noisy image and the time (what it predicts is the diffusion's business)."""

    def __init__(self, config: ADMConfig) -> None:
        """Build with random weights."""
        super().__init__()
        self.config = c = config
        emb, widths = 4 * c.model_channels, c.widths
        self.time_embed = nn.Sequential(nn.Linear(c.model_channels, emb), nn.SiLU(), nn.Linear(emb, emb))
        if c.num_classes is not None:
            self.label_emb = nn.Embedding(c.num_classes, emb)

        def res(channels: int, out_channels: int, step: int = 0) -> ResBlock:
            return ResBlock(channels, out_channels, emb, c, step)

        def attention(width: int, decoder: bool = False) -> Attention:
            return Attention(width, c.heads(width, decoder), c.use_new_attention_order, c.groups)

        channels, block = widths[0], c.unshuffle**2
        skips = [channels]
        first = nn.Conv2d((c.in_channels + c.low_res_channels) * block, channels, 3, padding=1)
        blocks = [nn.ModuleList([first])]
        for level, width in enumerate(widths):
            for _ in range(c.num_res_blocks):
                layers: list[nn.Module] = [res(channels, width)]
                channels = width
                if 2**level in c.attention_rates:
                    layers.append(attention(width))
                blocks.append(nn.ModuleList(layers))
                skips.append(channels)
            if level < c.levels - 1:
                smaller = res(channels, channels, -1) if c.resblock_updown else Downsample(channels, c.conv_resample)
                blocks.append(nn.ModuleList([smaller]))
                skips.append(channels)
        self.input_blocks = nn.ModuleList(blocks)
        self.middle_block = nn.ModuleList([res(channels, channels), attention(channels), res(channels, channels)])
        blocks = []
        for level in reversed(range(c.levels)):
            for i in range(c.num_res_blocks + 1):
                layers = [res(channels + skips.pop(), widths[level])]
                channels = widths[level]
                if 2**level in c.attention_rates:
                    layers.append(attention(channels, decoder=True))
                if level and i == c.num_res_blocks:
                    layers.append(res(channels, channels, 1) if c.resblock_updown else Upsample(channels, c.conv_resample))
                blocks.append(nn.ModuleList(layers))
        self.output_blocks = nn.ModuleList(blocks)
        last = _zero(nn.Conv2d(channels, c.out_channels * block, 3, padding=1))
        self.out = nn.Sequential(GroupNorm(c.groups, channels), nn.SiLU(), last)

    @property
    def multiple(self) -> int:
        """Sides of ``x`` must be multiples of this."""
        return self.config.multiple

    def forward(self, x: Tensor, timesteps: Tensor, labels: Tensor | None = None, low_res: Tensor | None = None) -> Tensor:
        """Predict ``[B, out_channels, H, W]``, in ``x``'s dtype.

        Parameters
        ----------
        x : ``[B, in_channels, H, W]``, the noisy image; sides are multiples of :attr:`multiple`.
        timesteps : ``[B]``, integers or fractions between them.
        labels : ``[B]`` class indices, for class-conditional networks.
        low_res : ``[B, low_res_channels, h, w]`` of any size, for networks with such channels.

        Raises
        ------
        ValueError : sizes or conditions that do not fit the configuration.
        """
        self._check(x, labels, low_res)
        c = self.config
        emb = self.time_embed(timestep_embedding(timesteps, c.model_channels))
        if labels is not None:
            emb = emb + self.label_emb(labels)
        h = x
        if low_res is not None:
            enlarged = F.interpolate(low_res, size=x.shape[-2:], mode="bilinear", align_corners=False)
            h = torch.cat([x, enlarged.to(x.dtype)], dim=1)
        if c.unshuffle > 1:
            h = F.pixel_unshuffle(h, c.unshuffle)
        skips: list[Tensor] = []
        for block in self.input_blocks:
            h = run(block, h, emb)
            skips.append(h)
        h = run(self.middle_block, h, emb)
        for block in self.output_blocks:
            h = run(block, torch.cat([h, skips.pop()], dim=1), emb)
        out: Tensor = self.out(h).to(x.dtype)
        return out if c.unshuffle == 1 else F.pixel_shuffle(out, c.unshuffle)

    def _check(self, x: Tensor, labels: Tensor | None, low_res: Tensor | None) -> None:
        c = self.config
        height, width = x.shape[-2:]
        if height % c.multiple or width % c.multiple:
            raise ValueError(f"this network takes sides that are multiples of {c.multiple}, got {height}x{width}: pad them")
        if (labels is None) != (c.num_classes is None):
            known = f"{c.num_classes} classes" if c.num_classes else "no classes"
            raise ValueError(f"this network knows {known}, but {'no' if labels is None else 'a'} label was given")
        given = 0 if low_res is None else low_res.shape[1]
        if given != c.low_res_channels:
            raise ValueError(f"this network takes {c.low_res_channels} channels of a low-resolution image, got {given}")


def run(layers: nn.Module, h: Tensor, emb: Tensor) -> Tensor:
    """One entry of the encoder, the middle or the decoder."""
    for layer in layers.children():
        h = layer(h, emb) if isinstance(layer, ResBlock) else layer(h)
    return h


def _zero(layer: nn.Conv2d | nn.Conv1d) -> nn.Conv2d | nn.Conv1d:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
