"""Encoder and decoder of the tokenizer: mirrored causal 3D CNNs between pixels and latents."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from layers.norms import ChannelLayerNorm
from tokenizer.blocks import Cache, CausalConv3d, Downsample, HaarPatch, ResidualBlock, Upsample


class Layout(NamedTuple):
    """Shape of the CNN: everything that encoder and decoder have in common.

    `strides[i]` leads from `channels[i]` to `channels[i + 1]`, (temporal, spatial).
    """

    patch: tuple[int, int]
    channels: list[int]
    strides: list[tuple[int, int]]
    factorized: bool

    @property
    def patch_channels(self) -> int:
        """Channels behind the Haar stem of an RGB clip."""
        return 3 * self.patch[0] * self.patch[1] ** 2


class Encoder(nn.Module):
    """Clip in [-1, 1] to latents, T = 1 + s (t - 1) frames to t."""

    def __init__(self, layout: Layout, depths: list[int], latent_dim: int) -> None:
        super().__init__()
        channels, strides = layout.channels, layout.strides
        self.stem = HaarPatch(*layout.patch)
        self.conv_in = CausalConv3d(layout.patch_channels, channels[0], (1, 3))
        blocks: list[nn.Module] = []
        for level, depth in enumerate(depths):
            blocks += [
                ResidualBlock(channels[level], factorized=layout.factorized) for _ in range(depth)
            ]
            if level < len(strides):
                blocks.append(Downsample(channels[level], channels[level + 1], strides[level]))
        self.blocks = nn.ModuleList(blocks)
        self.norm_out = ChannelLayerNorm(channels[-1])
        self.project = CausalConv3d(channels[-1], latent_dim, (1, 1))

    def features(
        self, clip: Float[Tensor, "B 3 T H W"], cache: Cache | None = None
    ) -> Float[Tensor, "B C t h w"]:
        """Everything before the projection to the latent dimensions."""
        h = self.stem(clip.contiguous(memory_format=torch.channels_last_3d), cache)
        h = self.conv_in(h.contiguous(memory_format=torch.channels_last_3d), cache)
        for block in self.blocks:
            h = block(h, cache)
        return F.silu(self.norm_out(h))

    def forward(
        self, clip: Float[Tensor, "B 3 T H W"], cache: Cache | None = None
    ) -> Float[Tensor, "B D t h w"]:
        return self.project(self.features(clip, cache), cache)


class Decoder(nn.Module):
    """Quantized latents to a clip in about [-1, 1], t latent frames to T = 1 + s (t - 1)."""

    def __init__(self, layout: Layout, depths: list[int], latent_dim: int) -> None:
        super().__init__()
        channels, strides = layout.channels[::-1], layout.strides[::-1]
        self.conv_in = CausalConv3d(latent_dim, channels[0], (3, 3))
        blocks: list[nn.Module] = []
        for level, depth in enumerate(reversed(depths)):
            blocks += [
                ResidualBlock(channels[level], factorized=layout.factorized) for _ in range(depth)
            ]
            if level < len(strides):
                blocks.append(Upsample(channels[level], channels[level + 1], strides[level]))
        self.blocks = nn.ModuleList(blocks)
        self.norm_out = ChannelLayerNorm(channels[-1])
        self.conv_out = CausalConv3d(channels[-1], layout.patch_channels, (1, 3))
        self.stem = HaarPatch(*layout.patch)
        # Grey at the start: a loud random picture would push the latents off their calibration.
        nn.init.zeros_(self.conv_out.weight)

    def forward(
        self, latents: Float[Tensor, "B D t h w"], cache: Cache | None = None
    ) -> Float[Tensor, "B 3 T H W"]:
        h = self.conv_in(latents.contiguous(memory_format=torch.channels_last_3d), cache)
        for block in self.blocks:
            h = block(h, cache)
        h = self.conv_out(F.silu(self.norm_out(h)), cache)
        return self.stem.inverse(h, cache)
