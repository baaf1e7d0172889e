"""Blocks of the space-time U-Net: what sees space sees one frame, what sees time one place.

Everything that sees time starts as identity, so that a network inflated from one for images does
what that did, frame by frame (Ho et al. 2022, arXiv 2204.03458; Singer et al. 2022, arXiv
2209.14792; Blattmann et al. 2023, arXiv 2304.08818). Frames before the first and behind the last
are copies of them; a causal block looks back only.
"""

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from diffusion.denoiser import Text
from layers.attention import attention
from layers.norms import ChannelLayerNorm
from layers.rope import rotary_table, rotate

HEAD_DIM = 32
THETA = 1000.0  # longest period of the positions over 2 pi


class SpaceBlock(nn.Module):
    """Residual block of two 1 x 3 x 3 convolutions; the angle scales and shifts between them."""

    def __init__(self, channels: int, angle_width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelLayerNorm(channels), ChannelLayerNorm(channels)
        self.conv1 = nn.Conv3d(channels, channels, (1, 3, 3), padding=(0, 1, 1))
        self.conv2 = nn.Conv3d(channels, channels, (1, 3, 3), padding=(0, 1, 1))
        self.modulate = nn.Linear(angle_width, 2 * channels)
        for layer in (self.conv2, self.modulate):
            nn.init.zeros_(layer.weight)

    def forward(
        self, x: Float[Tensor, "B C T H W"], embedding: Float[Tensor, "B T E"]
    ) -> Float[Tensor, "B C T H W"]:
        scale, shift = modulation(self.modulate, embedding, 2)
        h = self.norm2(self.conv1(F.silu(self.norm1(x))))
        return x + self.conv2(F.silu(h * (1 + scale) + shift))


class TimeConv(nn.Module):
    """Residual convolution over three frames at each place."""

    def __init__(self, channels: int, *, causal: bool) -> None:
        super().__init__()
        self.before = 2 if causal else 1
        self.sees_time = True
        self.norm = ChannelLayerNorm(channels)
        self.conv = nn.Conv3d(channels, channels, (3, 1, 1))
        nn.init.zeros_(self.conv.weight)
        assert self.conv.bias is not None
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C T H W"]:
        h = F.silu(self.norm(x))
        return x + self.conv(with_copies(h, self.before, 2 - self.before))


class SelfAttention(nn.Module):
    """Residual attention, within each frame ("space") or over the frames at each place ("time").

    Rotary positions: only distances count.
    """

    def __init__(self, channels: int, axis: str, *, causal: bool = False) -> None:
        super().__init__()
        if channels % HEAD_DIM:
            raise ValueError(
                f"attention over {channels} channels needs a multiple of {HEAD_DIM}; change "
                "channels or leave attention out"
            )
        self.axis, self.causal, self.sees_time = axis, causal, axis == "time"
        self.norm = ChannelLayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.out = nn.Linear(channels, channels, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C T H W"]:
        B, _, T, H, W = x.shape
        rows = "(b t) (h w)" if self.axis == "space" else "(b h w) t"
        sequence = rearrange(self.norm(x), f"b c t h w -> {rows} c")
        if self.axis == "space":
            places = torch.cartesian_prod(torch.arange(1), torch.arange(H), torch.arange(W))
        else:
            places = torch.arange(T)[:, None].expand(-1, 3)
        table = rotary_table(places.to(x.device), HEAD_DIM, THETA)
        q, k, v = rearrange(
            self.qkv(sequence), "n l (three heads d) -> three n heads l d", three=3, d=HEAD_DIM
        )
        y = attention(rotate(q, table), rotate(k, table), v, causal=self.causal)
        y = self.out(rearrange(y, "n heads l d -> n l (heads d)"))
        return x + rearrange(y, f"{rows} c -> b c t h w", b=B, t=T, h=H, w=W)


class TextAttention(nn.Module):
    """Residual cross-attention of every place to the text."""

    def __init__(self, channels: int, text_width: int) -> None:
        super().__init__()
        self.norm = ChannelLayerNorm(channels)
        self.q = nn.Linear(channels, channels, bias=False)
        self.kv = nn.Linear(text_width, 2 * channels, bias=False)
        self.out = nn.Linear(channels, channels, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Float[Tensor, "B C T H W"], text: Text) -> Float[Tensor, "B C T H W"]:
        _, _, T, H, W = x.shape
        sequence = rearrange(self.norm(x), "b c t h w -> b (t h w) c")
        q = rearrange(self.q(sequence), "b n (heads d) -> b heads n d", d=HEAD_DIM)
        k, v = rearrange(
            self.kv(text.states), "b l (two heads d) -> two b heads l d", two=2, d=HEAD_DIM
        )
        parts = []
        # One clip at a time: each has its own number of pieces.
        for i, present in enumerate(text.present):
            row = slice(i, i + 1)
            parts.append(attention(q[row], k[row][:, :, present], v[row][:, :, present]))
        y = self.out(rearrange(torch.cat(parts), "b heads n d -> b n (heads d)"))
        return x + rearrange(y, "b (t h w) c -> b c t h w", t=T, h=H, w=W)


class Shrink(nn.Module):
    """Fold 2 x 2 places into channels, and where asked leave out every second frame."""

    def __init__(self, narrow: int, wide: int, *, time: bool, causal: bool) -> None:
        super().__init__()
        self.merge = nn.Conv3d(narrow, wide, (1, 2, 2), stride=(1, 2, 2))
        self.skip = FrameSkip(wide, causal=causal) if time else nn.Identity()

    def forward(self, x: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C2 T2 H2 W2"]:
        return self.skip(self.merge(x))


class FrameSkip(nn.Module):
    """Strided convolution over time that starts as the choice of frames 0, 2, 4, ..."""

    def __init__(self, channels: int, *, causal: bool) -> None:
        super().__init__()
        self.before = 2 if causal else 1
        self.sees_time = True
        self.conv = nn.Conv3d(channels, channels, (3, 1, 1), stride=(2, 1, 1), bias=False)
        nn.init.zeros_(self.conv.weight)
        nn.init.eye_(self.conv.weight.data[:, :, self.before, 0, 0])

    def forward(self, x: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C T2 H W"]:
        return self.conv(with_copies(x, self.before, 2 - self.before))


class Grow(nn.Module):
    """Unfold channels into 2 x 2 places; repeat each frame, the last one apart."""

    def __init__(self, wide: int, narrow: int, *, time: bool) -> None:
        super().__init__()
        self.time = time
        self.split = nn.Conv3d(wide, 4 * narrow, 1)

    def forward(self, x: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C2 T2 H2 W2"]:
        x = rearrange(self.split(x), "b (c p q) t h w -> b c t (h p) (w q)", p=2, q=2)
        if not self.time:
            return x
        # Frame 2 k of the fine grid is frame k of the coarse one, which knows none behind it.
        return repeat(x, "b c t h w -> b c (t two) h w", two=2)[:, :, :-1]


def modulation(
    layer: nn.Module, embedding: Float[Tensor, "B T E"], parts: int
) -> tuple[Float[Tensor, "B C T 1 1"], ...]:
    """Return what a layer makes of the angle's embedding, as so many fields of channels."""
    return rearrange(layer(embedding), "b t (n c) -> n b c t 1 1", n=parts).unbind()


def with_copies(
    x: Float[Tensor, "B C T H W"], before: int, after: int
) -> Float[Tensor, "B C T2 H W"]:
    """Put copies of the first frame in front and of the last one behind."""
    first, last = x[:, :, :1], x[:, :, -1:]
    return torch.cat([first] * before + [x] + [last] * after, dim=2)
