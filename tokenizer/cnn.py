"""Encoder and decoder of the tokenizer: mirrored causal 3D CNNs between pixels and latents."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from layers.compiling import Compilable
from layers.norms import ChannelLayerNorm
from tokenizer.attention import SpatialAttention, TemporalAttention
from tokenizer.blocks import Cache, CausalConv3d, Downsample, PatchStem, ResidualBlock, Upsample


class Layout(NamedTuple):
    """Shape of the CNN: everything that encoder and decoder have in common.

    `strides[i]` leads from `channels[i]` to `channels[i + 1]`, (temporal, spatial).
    """

    patch: tuple[int, int]
    wavelet: bool
    channels: list[int]
    strides: list[tuple[int, int]]
    factorized: bool
    spatial_attention: bool
    temporal_window: int

    def stem(self) -> PatchStem:
        """Between pixels and channels, the same at both ends."""
        return PatchStem(*self.patch, wavelet=self.wavelet)

    @property
    def patch_channels(self) -> int:
        """Channels behind the stem of an RGB clip."""
        return 3 * self.patch[0] * self.patch[1] ** 2

    def residual_blocks(self, level: int, depth: int) -> list[nn.Module]:
        """Blocks of one level."""
        channels = self.channels[level]
        return [ResidualBlock(channels, factorized=self.factorized) for _ in range(depth)]

    def attention(self) -> list[nn.Module]:
        """What both ends do beside convolutions on the latent grid."""
        channels, window = self.channels[-1], self.temporal_window
        spatial: list[nn.Module] = [SpatialAttention(channels)] if self.spatial_attention else []
        return [*spatial, TemporalAttention(channels, window)] if window else spatial


class CausalStack(Compilable, nn.Module):
    """Blocks one after another; in training their activations may be computed twice, not kept.

    Not so in a stream: a second pass would find the cache that the first one left.
    """

    # Not the last layer, which an adversary's weight asks for a gradient of its own.
    compiled_method = "run_blocks"
    blocks: nn.ModuleList
    checkpointed: bool = False

    def run_blocks(
        self, h: Float[Tensor, "B C T H W"], cache: Cache | None
    ) -> Float[Tensor, "B C2 T2 H2 W2"]:
        for block in self.blocks:
            if self.checkpointed and cache is None and torch.is_grad_enabled():
                h = checkpoint(block, h, use_reentrant=False)
            else:
                h = block(h, cache)
        return h


class Encoder(CausalStack):
    """Clip in [-1, 1] to latents, T = 1 + s (t - 1) frames to t."""

    def __init__(self, layout: Layout, depths: list[int], latent_dim: int) -> None:
        super().__init__()
        channels = layout.channels
        self.stem = layout.stem()
        self.conv_in = CausalConv3d(layout.patch_channels, channels[0], (1, 3))
        blocks = layout.residual_blocks(0, depths[0])
        for level, stride in enumerate(layout.strides):
            blocks.append(Downsample(channels[level], channels[level + 1], stride))
            blocks += layout.residual_blocks(level + 1, depths[level + 1])
        self.blocks = nn.ModuleList(blocks + layout.attention())
        self.norm_out = ChannelLayerNorm(channels[-1])
        self.project = CausalConv3d(channels[-1], latent_dim, (1, 1))

    def forward(
        self, clip: Float[Tensor, "B 3 T H W"], cache: Cache | None = None
    ) -> Float[Tensor, "B D t h w"]:
        h = self.stem(clip.contiguous(memory_format=torch.channels_last_3d), cache)
        h = self.conv_in(h.contiguous(memory_format=torch.channels_last_3d), cache)
        h = self.run_blocks(h, cache)
        return self.project(F.silu(self.norm_out(h)), cache)


class Decoder(CausalStack):
    """Quantized latents to a clip in about [-1, 1], t latent frames to T = 1 + s (t - 1)."""

    def __init__(self, layout: Layout, depths: list[int], latent_dim: int) -> None:
        super().__init__()
        channels = layout.channels
        self.conv_in = CausalConv3d(latent_dim, channels[-1], (3, 3))
        blocks = layout.attention()
        for level, stride in reversed(list(enumerate(layout.strides))):
            blocks += layout.residual_blocks(level + 1, depths[level + 1])
            blocks.append(Upsample(channels[level + 1], channels[level], stride))
        self.blocks = nn.ModuleList(blocks + layout.residual_blocks(0, depths[0]))
        self.norm_out = ChannelLayerNorm(channels[0])
        self.conv_out = CausalConv3d(channels[0], layout.patch_channels, (1, 3))
        self.stem = layout.stem()
        # Grey at the start: a loud random picture would push the latents off their calibration.
        nn.init.zeros_(self.conv_out.weight)

    def forward(
        self, latents: Float[Tensor, "B D t h w"], cache: Cache | None = None
    ) -> Float[Tensor, "B 3 T H W"]:
        h = self.conv_in(latents.contiguous(memory_format=torch.channels_last_3d), cache)
        h = self.run_blocks(h, cache)
        h = self.conv_out(F.silu(self.norm_out(h)), cache)
        return self.stem.inverse(h, cache)
