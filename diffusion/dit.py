"""The diffusion transformer (Peebles and Xie 2023, arXiv 2212.09748) with windows over space-time.

Blocks come in pairs, as in W.A.L.T (Gupta et al. 2023, arXiv 2312.06662): the first attends within
each frame, the second over all frames within a window of places.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from diffusion.blocks import HEAD_DIM, TextAttention, modulation
from diffusion.denoiser import AngleEmbedding, Denoiser, Text
from layers.attention import attention
from layers.linear import Linear
from layers.norms import RMSNorm
from layers.rope import rotary_table, rotate
from layers.swiglu import swiglu

THETA = 1000.0  # longest period of the positions over 2 pi


class DiTBlock(nn.Module):
    """Attention and SwiGLU whose norms are scaled, shifted and gated by the angle, from zero on.

    Args:
        width: Channels.
        num_heads: Of the attention.
        angle_width: Of the embedding of the angles.
        window: Side of the windows over all frames; 0 attends within each frame.
        causal: No frame sees later ones.
    """

    def __init__(
        self, width: int, num_heads: int, angle_width: int, *, window: int, causal: bool
    ) -> None:
        super().__init__()
        self.head_dim, self.window, self.causal = width // num_heads, window, causal
        self.sees_time = window > 0
        hidden = -(-8 * width // 96) * 32  # 8 / 3 of the width, in multiples of 32
        self.modulate = nn.Linear(angle_width, 6 * width)
        self.qkv, self.out = Linear(width, 3 * width), Linear(width, width)
        self.q_norm, self.k_norm = RMSNorm(self.head_dim), RMSNorm(self.head_dim)
        self.gate_up, self.down = Linear(width, 2 * hidden), Linear(hidden, width)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(
        self, x: Float[Tensor, "B D T H W"], embedding: Float[Tensor, "B T E"]
    ) -> Float[Tensor, "B D T H W"]:
        fields = modulation(self.modulate, embedding, 6)
        scale1, shift1, gate1, scale2, shift2, gate2 = fields
        x = x + gate1 * self._attend(_normed(x) * (1 + scale1) + shift1)
        h = rearrange(_normed(x) * (1 + scale2) + shift2, "b d t h w -> b t h w d")
        h = self.down(swiglu(self.gate_up(h)))
        return x + gate2 * rearrange(h, "b t h w d -> b d t h w")

    def _attend(self, x: Float[Tensor, "B D T H W"]) -> Float[Tensor, "B D T H W"]:
        T, H, W = x.shape[2:]
        cell = (T, self.window, self.window) if self.window else (1, H, W)
        sizes = dict(zip("tpq", cell, strict=True))
        grid = "b d (i t) (j p) (k q)", "(b i j k) (t p q) d"
        sequence = rearrange(x, f"{grid[0]} -> {grid[1]}", **sizes)
        heads = rearrange(
            self.qkv(sequence), "n l (three h d) -> three n h l d", three=3, d=self.head_dim
        )
        places = _places(cell).to(x.device)
        table = rotary_table(places, self.head_dim, THETA)
        q, k = rotate(self.q_norm(heads[0]), table), rotate(self.k_norm(heads[1]), table)
        y = attention(q, k, heads[2], mask=self._mask(places))
        y = self.out(rearrange(y, "n h l d -> n l (h d)"))
        counts = {"i": T // cell[0], "j": H // cell[1], "k": W // cell[2]}
        return rearrange(y, f"{grid[1]} -> {grid[0]}", **sizes, **counts)

    def _mask(self, places: Int[Tensor, "N 3"]) -> Bool[Tensor, "N N"] | None:
        if not (self.causal and self.window):
            return None
        return places[:, None, 0] >= places[None, :, 0]


class DiT(Denoiser):
    """Pairs of blocks over a grid of patches.

    Args:
        width: Channels.
        depth: Pairs of blocks.
        num_heads: Attention heads; `width / num_heads` must be even.
        window: Side of the windows over all frames; it divides height and width of the grid.
        temporal: False gives a network for images, which `inflate` turns into one for video.
        causal: No frame sees later ones.
        text_width: Width of text states, read after every pair; 0 without text.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        num_heads: int,
        window: int,
        temporal: bool = True,
        causal: bool = False,
        text_width: int = 0,
    ) -> None:
        super().__init__()
        if width % (2 * num_heads):
            raise ValueError(f"width {width} over {num_heads} heads is not even; change one")
        if text_width and width % HEAD_DIM:
            raise ValueError(
                f"width is {width}, but a network that reads text needs a multiple of {HEAD_DIM}"
            )
        if window < 1:
            raise ValueError(f"window is {window}, but must be at least 1")
        self.width, self.text_width, self.window = width, text_width, window
        self.embed = AngleEmbedding(width)
        self.frame_blocks = nn.ModuleList(
            DiTBlock(width, num_heads, width, window=0, causal=causal) for _ in range(depth)
        )
        self.text_blocks = nn.ModuleList(
            TextAttention(width, text_width) for _ in range(depth if text_width else 0)
        )
        self.window_blocks = nn.ModuleList(
            DiTBlock(width, num_heads, width, window=window, causal=causal)
            for _ in range(depth if temporal else 0)
        )

    def forward(
        self,
        x: Float[Tensor, "B D T H W"],
        angle: Float[Tensor, "B T"],
        text: Text | None = None,
    ) -> Float[Tensor, "B D T H W"]:
        if x.shape[3] % self.window or x.shape[4] % self.window:
            raise ValueError(
                f"the grid is {x.shape[3]} x {x.shape[4]}, but windows have a side of "
                f"{self.window}, which must divide it; choose another window"
            )
        embedding = self.embed(angle)
        for i, frame_block in enumerate(self.frame_blocks):
            x = frame_block(x, embedding)
            if self.text_width and text is not None:
                x = self.text_blocks[i](x, text)
            if self.window_blocks:
                x = self.window_blocks[i](x, embedding)
        return _normed(x)


def _normed(x: Float[Tensor, "B D T H W"]) -> Float[Tensor, "B D T H W"]:
    last = x.permute(0, 2, 3, 4, 1)
    return F.layer_norm(last, last.shape[-1:]).permute(0, 4, 1, 2, 3)


def _places(cell: tuple[int, int, int]) -> Int[Tensor, "N 3"]:
    return torch.cartesian_prod(*(torch.arange(size) for size in cell))
