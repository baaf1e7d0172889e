"""Attention of the CNN's lowest level: per frame over space, per place over the recent past.

Positions are rotary and so relative: nothing depends on where a stream began. The projection back
starts at zero, so that a fresh layer passes its input through.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from layers.attention import attention
from layers.norms import ChannelLayerNorm
from layers.rope import rotary_table, rotate
from tokenizer.blocks import Cache

HEAD_DIM = 64
THETA = 1000.0  # longest period of the positions over 2 pi


class ResidualAttention(nn.Module):
    """Norm and projections of an attention layer that starts as identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelLayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.out = _zero_linear(channels)


class SpatialAttention(ResidualAttention):
    """Residual self-attention among the positions of one frame."""

    def forward(
        self, x: Float[Tensor, "B C T H W"], cache: Cache | None = None
    ) -> Float[Tensor, "B C T H W"]:
        B, _, _, H, W = x.shape
        q, k, v = _heads(self.qkv, self.norm(x), "b c t h w -> (b t) (h w) c")
        rows, columns = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
        places = torch.stack([rows, columns, rows], dim=-1).flatten(0, 1)
        table = rotary_table(places.to(x.device), HEAD_DIM, THETA)
        y = attention(rotate(q, table), rotate(k, table), v)
        y = self.out(rearrange(y, "n heads l d -> n l (heads d)"))
        return x + rearrange(y, "(b t) (h w) c -> b c t h w", b=B, h=H)


class TemporalAttention(ResidualAttention):
    """Residual self-attention of each place over its last `window` frames, itself included.

    Long clips go through in pieces of a window, so the work a frame does not grow with the length.
    """

    def __init__(self, channels: int, window: int) -> None:
        super().__init__(channels)
        if window < 1:
            raise ValueError(f"window is {window}, but temporal attention needs at least 1 frame")
        self.window = window

    def forward(
        self, x: Float[Tensor, "B C T H W"], cache: Cache | None = None
    ) -> Float[Tensor, "B C T H W"]:
        B, _, _, H, _ = x.shape
        normed: Tensor = self.norm(x)
        past = normed[:, :, :0]
        if cache is not None:
            past = cache.get(self, past)
        seen = torch.cat([past, normed], dim=2)
        if cache is not None:
            cache[self] = seen[:, :, max(0, seen.shape[2] - self.window + 1) :].clone()
        q, k, v = _heads(self.qkv, seen, "b c t h w -> (b h w) t c")
        first = past.shape[2]
        pieces = [
            self._attend(q, k, v, begin, min(begin + self.window, q.shape[2]))
            for begin in range(first, q.shape[2], self.window)
        ]
        y = self.out(rearrange(torch.cat(pieces, dim=2), "n heads t d -> n t (heads d)"))
        return x + rearrange(y, "(b h w) t c -> b c t h w", b=B, h=H)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, begin: int, end: int) -> Tensor:
        """Return what the frames from `begin` to `end` see in the window that ends with each."""
        start = max(0, begin - self.window + 1)
        frames = torch.arange(start, end, device=q.device)
        table = rotary_table(frames[:, None].expand(-1, 3) - start, HEAD_DIM, THETA)
        distance = frames[begin - start :, None] - frames
        return attention(
            rotate(q[:, :, begin:end], table[:, begin - start :]),
            rotate(k[:, :, start:end], table),
            v[:, :, start:end],
            mask=(distance >= 0) & (distance < self.window),
        )


def _heads(qkv: nn.Linear, x: Float[Tensor, "B C T H W"], pattern: str) -> tuple[Tensor, ...]:
    heads = qkv(rearrange(x, pattern))
    return rearrange(
        heads, "n l (three heads d) -> three n heads l d", three=3, d=HEAD_DIM
    ).unbind()


def _zero_linear(channels: int) -> nn.Linear:
    if channels % HEAD_DIM:
        raise ValueError(
            f"attention over {channels} channels needs a multiple of {HEAD_DIM}; change the last "
            "entry of channels or leave attention out"
        )
    layer = nn.Linear(channels, channels, bias=False)
    nn.init.zeros_(layer.weight)
    return layer
