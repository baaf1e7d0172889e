"""The factorised space-time U-Net (Ho et al. 2022, Video Diffusion Models, arXiv 2204.03458)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from diffusion.blocks import (
    Grow,
    SelfAttention,
    Shrink,
    SpaceBlock,
    TextAttention,
    TimeConv,
)
from diffusion.denoiser import AngleEmbedding, Denoiser, Text
from layers.norms import ChannelLayerNorm


class Level(nn.Module):
    """Blocks of one resolution: space, time, and where asked for attention over both and to text.

    Args:
        channels: Width.
        depth: Pairs of a space block and a convolution over time.
        angle_width: Of the embedding of the angles.
        attention: End with attention.
        text_width: Of the text that the attention reads; 0 without.
        temporal: Have layers that see other frames.
        causal: They look back only.
    """

    def __init__(
        self,
        channels: int,
        depth: int,
        angle_width: int,
        *,
        attention: bool,
        text_width: int,
        temporal: bool,
        causal: bool,
    ) -> None:
        super().__init__()
        self.space = nn.ModuleList(SpaceBlock(channels, angle_width) for _ in range(depth))
        self.time = nn.ModuleList(
            TimeConv(channels, causal=causal) if temporal else nn.Identity() for _ in range(depth)
        )
        self.over_space: nn.Module = nn.Identity()
        self.over_time: nn.Module = nn.Identity()
        self.to_text = TextAttention(channels, text_width) if attention and text_width else None
        if attention:
            self.over_space = SelfAttention(channels, "space")
        if attention and temporal:
            self.over_time = SelfAttention(channels, "time", causal=causal)

    def forward(
        self, x: Float[Tensor, "B C T H W"], embedding: Float[Tensor, "B T E"], text: Text | None
    ) -> Float[Tensor, "B C T H W"]:
        for space, time in zip(self.space, self.time, strict=True):
            x = time(space(x, embedding))
        x = self.over_space(x)
        if self.to_text is not None and text is not None:
            x = self.to_text(x, text)
        return self.over_time(x)


class UNet3D(Denoiser):
    """Levels down and up again, with every level's features carried across.

    Args:
        channels: Width of each level, the finest first; each halves height and width.
        depths: Pairs of blocks on each level, on the way down and again on the way up.
        attention: Which levels have attention, over space and over time.
        shrink_time: At which steps between levels every second frame goes too (Lumiere, arXiv
            2401.12945); the length must then be 1 + 2 k, halved for each.
        temporal: False gives a network for images, which `inflate` turns into one for video.
        causal: No frame sees later ones.
        text_width: Width of text states that the attention reads; 0 without text.
    """

    def __init__(
        self,
        channels: list[int],
        depths: list[int],
        attention: list[bool] | None = None,
        shrink_time: list[bool] | None = None,
        temporal: bool = True,
        causal: bool = False,
        text_width: int = 0,
    ) -> None:
        super().__init__()
        attention = attention or [level == len(channels) - 1 for level in range(len(channels))]
        shrink_time = shrink_time or [False] * (len(channels) - 1)
        if not len(channels) == len(depths) == len(attention) == len(shrink_time) + 1:
            raise ValueError(
                f"channels {channels} has {len(channels)} levels, which needs as many depths "
                f"{depths} and attention {attention}, and one shrink_time fewer, not {shrink_time}"
            )
        if text_width and not any(attention):
            raise ValueError("text_width is set, but no level has attention to read the text by")
        self.width, self.text_width = channels[0], text_width
        self.shrink_time = [temporal and shrinks for shrinks in shrink_time]
        self.embed = AngleEmbedding(channels[0])
        steps = range(len(channels) - 1)
        levels = [
            Level(
                width,
                depth,
                channels[0],
                attention=attends,
                text_width=text_width,
                temporal=temporal,
                causal=causal,
            )
            for width, depth, attends in zip(channels, depths, attention, strict=True)
            for _ in range(2)
        ]
        self.down_blocks, self.up_blocks = nn.ModuleList(levels[::2]), nn.ModuleList(levels[1::2])
        self.shrink_blocks = nn.ModuleList(
            Shrink(channels[i], channels[i + 1], time=self.shrink_time[i], causal=causal)
            for i in steps
        )
        self.grow_blocks = nn.ModuleList(
            Grow(channels[i + 1], channels[i], time=self.shrink_time[i]) for i in steps
        )
        self.join_blocks = nn.ModuleList(nn.Conv3d(2 * width, width, 1) for width in channels[:-1])
        self.norm_out = ChannelLayerNorm(channels[0])
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                last = module.weight.contiguous(memory_format=torch.channels_last_3d)
                module.weight = nn.Parameter(last)

    def forward(
        self,
        x: Float[Tensor, "B D T H W"],
        angle: Float[Tensor, "B T"],
        text: Text | None = None,
    ) -> Float[Tensor, "B D T H W"]:
        self._check_size(x)
        embedding = self.embed(angle)
        embeddings, carried = [embedding], []
        x = x.contiguous(memory_format=torch.channels_last_3d)
        for i, shrink in enumerate(self.shrink_blocks):
            x = self.down_blocks[i](x, embeddings[i], text)
            carried.append(x)
            x = shrink(x)
            stride = 2 if self.shrink_time[i] else 1
            embeddings.append(embeddings[i][:, ::stride])
        x = self.down_blocks[-1](x, embeddings[-1], text)
        x = self.up_blocks[-1](x, embeddings[-1], text)
        for i in reversed(range(len(carried))):
            x = self.join_blocks[i](torch.cat([self.grow_blocks[i](x), carried[i]], dim=1))
            x = self.up_blocks[i](x, embeddings[i], text)
        return F.silu(self.norm_out(x))

    def _check_size(self, x: Tensor) -> None:
        frames, (height, width) = x.shape[2], x.shape[3:]
        space, time = 2 ** len(self.shrink_blocks), 2 ** sum(self.shrink_time)
        if height % space or width % space or (frames - 1) % time:
            raise ValueError(
                f"features are {frames} x {height} x {width}, but this network needs 1 + {time} k "
                f"frames and multiples of {space} places; use fewer levels or another size"
            )
