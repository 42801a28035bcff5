"""The magnitude-preserving U-Net of EDM2 and its preconditioning (Karras et al. 2024, arXiv:2312.02696, configuration G).

Written from the published equations; keys, shapes and order of the state dict are those of published weights. Additions
(:class:`EDM2Config`): an image as a condition, and pixel-unshuffling.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .edm2_layers import MPConv, MPFourier, mp_cat, mp_silu, mp_sum, normalize, resample_down, resample_up
from .edm2_options import EDM2Config


class Block(nn.Module):
    """A residual block of the encoder (``enc``) or decoder (``dec``), with optional resampling and attention (figure 21)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        config: EDM2Config,
        flavor: Literal["enc", "dec"],
        resample: Literal["keep", "down", "up"] = "keep",
        attention: bool = False,
    ) -> None:
        """``in_channels -> out_channels``; ``down`` halves and ``up`` doubles the image."""
        super().__init__()
        self._config, self._flavor, self._resample = config, flavor, resample
        self._heads = out_channels // config.channels_per_head if attention else 0
        self.emb_gain = nn.Parameter(torch.zeros([]))
        self.conv_res0 = MPConv(out_channels if flavor == "enc" else in_channels, out_channels, (3, 3))
        self.emb_linear = MPConv(config.emb_width, out_channels)
        self.conv_res1 = MPConv(out_channels, out_channels, (3, 3))
        self.conv_skip = MPConv(in_channels, out_channels, (1, 1)) if in_channels != out_channels else None
        self.attn_qkv = MPConv(out_channels, 3 * out_channels, (1, 1)) if self._heads else None
        self.attn_proj = MPConv(out_channels, out_channels, (1, 1)) if self._heads else None

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """``[B, C, H, W]`` and the embedding ``[B, E]``."""
        c = self._config
        if self._resample != "keep":
            x = resample_down(x) if self._resample == "down" else resample_up(x)
        if self._flavor == "enc":
            if self.conv_skip is not None:
                x = self.conv_skip(x)
            x = normalize(x, [1])  # of every pixel
        y = self.conv_res0(mp_silu(x))
        scale = self.emb_linear(emb, gain=self.emb_gain)[:, :, None, None] + 1
        y = mp_silu(y * scale.to(y.dtype))
        if self.training and c.dropout:
            y = F.dropout(y, c.dropout)
        y = self.conv_res1(y)
        if self._flavor == "dec" and self.conv_skip is not None:
            x = self.conv_skip(x)
        x = mp_sum(x, y, c.res_balance)
        if self._heads:
            x = mp_sum(x, self._attend(x), c.attn_balance)
        return x if c.clip_act is None else x.clamp(-c.clip_act, c.clip_act)

    def _attend(self, x: Tensor) -> Tensor:
        """Cosine attention over all pixels: queries, keys and values have unit magnitude."""
        assert self.attn_qkv is not None
        assert self.attn_proj is not None
        batch, channels, height, width = x.shape
        qkv = self.attn_qkv(x).reshape(batch, self._heads, -1, 3, height * width)  # q, k, v is the fastest channel index
        q, k, v = normalize(qkv, [2]).transpose(-1, 2).unbind(3)  # [B, heads, H W, channels of a head]
        y = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.attn_proj(y.transpose(2, 3).reshape(batch, channels, height, width))
        return out


class UNet(nn.Module):
    """Features of the noise level steer residual blocks on several resolutions; a channel of ones stands for the biases."""

    def __init__(self, config: EDM2Config) -> None:
        """Build with random weights."""
        super().__init__()
        self.config = c = config
        block = c.unshuffle**2
        self.out_gain = nn.Parameter(torch.zeros([]))
        self.emb_fourier = MPFourier(c.noise_width)
        self.emb_noise = MPConv(c.noise_width, c.emb_width)
        self.emb_label = MPConv(c.label_dim, c.emb_width) if c.label_dim else None
        self.enc = nn.ModuleDict()
        self.dec = nn.ModuleDict()
        channels = (c.img_channels + c.cond_channels) * block + 1
        skips: list[int] = []
        for level, width in enumerate(c.widths):
            side = c.resolution(level)
            name = f"{side}x{side}"
            if level == 0:
                self.enc[f"{name}_conv"] = MPConv(channels, width, (3, 3))
                channels = width
            else:
                self.enc[f"{name}_down"] = Block(channels, channels, c, "enc", "down")
            skips.append(channels)
            for number in range(c.num_blocks):
                attends = side in c.attn_resolutions
                self.enc[f"{name}_block{number}"] = Block(channels, width, c, "enc", attention=attends)
                channels = width
                skips.append(channels)
        for level, width in reversed(list(enumerate(c.widths))):
            side = c.resolution(level)
            name = f"{side}x{side}"
            if level == c.levels - 1:
                self.dec[f"{name}_in0"] = Block(channels, channels, c, "dec", attention=c.middle_attention)
                self.dec[f"{name}_in1"] = Block(channels, channels, c, "dec")
            else:
                self.dec[f"{name}_up"] = Block(channels, channels, c, "dec", "up")
            for number in range(c.num_blocks + 1):
                attends = side in c.attn_resolutions
                self.dec[f"{name}_block{number}"] = Block(channels + skips.pop(), width, c, "dec", attention=attends)
                channels = width
        self.out_conv = MPConv(channels, c.img_channels * block, (3, 3))

    def forward(self, x: Tensor, noise_labels: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """``[B, C + condition, H, W]``, ``[B]`` and ``[B, label_dim]`` to ``[B, C, H, W]``."""
        c = self.config
        emb = self.emb_noise(self.emb_fourier(noise_labels))
        if self.emb_label is not None:
            if class_labels is None:
                class_labels = emb.new_zeros(len(x), c.label_dim)
            emb = mp_sum(emb, self.emb_label(class_labels.to(emb.dtype) * math.sqrt(c.label_dim)), c.label_balance)
        emb = mp_silu(emb)
        x = F.pixel_unshuffle(x, c.unshuffle) if c.unshuffle > 1 else x
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        skips = []
        for name, layer in self.enc.items():
            x = layer(x) if name.endswith("conv") else layer(x, emb)
            skips.append(x)
        for name, layer in self.dec.items():
            if "block" in name:
                x = mp_cat(x, skips.pop(), c.concat_balance)
            x = layer(x, emb)
        x = self.out_conv(x, gain=self.out_gain)
        return F.pixel_shuffle(x, c.unshuffle) if c.unshuffle > 1 else x


class EDM2Precond(nn.Module):
    """``D(x, sigma) = c_skip x + c_out F(c_in x, c_noise)``: an estimate of the clean image (EDM, eq. 7)."""

    def __init__(self, config: EDM2Config) -> None:
        """Build with random weights; the output starts as ``c_skip x``."""
        super().__init__()
        self.config = config
        self.unet = UNet(config)
        self.logvar_fourier = MPFourier(config.logvar_channels)
        self.logvar_linear = MPConv(config.logvar_channels, 1)

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None, class_labels: Tensor | None = None) -> Tensor:
        """The clean image, float32.

        Parameters
        ----------
        x : ``[B, C, H, W]``, clean image of standard deviation ``sigma_data`` plus ``sigma`` times unit noise; sides are
            multiples of ``config.multiple``.
        sigma : ``[B]`` or one number, > 0.
        condition : ``[B, cond_channels, H, W]`` of networks with one.
        class_labels : ``[B, label_dim]``, one-hot; ``None``: zeros.

        Raises
        ------
        ValueError : a condition that is missing, not wanted, or of another shape.
        """
        c = self.config
        x = x.float()
        sigma = self._levels(sigma, x)[:, None, None, None]
        total = (sigma**2 + c.sigma_data**2).sqrt()
        inputs = x / total
        if c.cond_channels or condition is not None:
            wanted = (len(x), c.cond_channels, *x.shape[2:])
            if condition is None or tuple(condition.shape) != wanted:
                given = "none" if condition is None else str(list(condition.shape))
                raise ValueError(f"expected a condition of shape {list(wanted)}, got {given}")
            inputs = torch.cat([inputs, condition.float() / c.cond_std], dim=1)
        out = self.unet(inputs, self._noise_features(sigma.flatten()), class_labels).float()
        estimate: Tensor = c.sigma_data**2 / total**2 * x + sigma * c.sigma_data / total * out
        return estimate

    def logvar(self, sigma: Tensor) -> Tensor:
        """``[B] -> [B, 1, 1, 1]``: the learned logarithm of the loss at this noise level (eq. 21)."""
        out: Tensor = self.logvar_linear(self.logvar_fourier(self._noise_features(sigma)))
        return out.float()[:, :, None, None]

    @staticmethod
    def _noise_features(sigma: Tensor) -> Tensor:
        return sigma.float().log() / 4

    @staticmethod
    def _levels(sigma: Tensor, x: Tensor) -> Tensor:
        return torch.as_tensor(sigma, dtype=torch.float32, device=x.device).reshape(-1).expand(len(x))
