"""A decoder-only transformer: embeddings, positions and a mask to states.

The Llama block: RMSNorm before, SwiGLU (Shazeer 2020, arXiv 2002.05202), rotary positions, and
RMSNorm on queries and keys (Dehghani et al. 2023, arXiv 2302.05442).
"""

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from layers.attention import attention
from layers.configurable import Configurable
from layers.norms import RMSNorm
from layers.rope import rotary_table, rotate


class KVCache:
    """Keys and values of the positions seen so far, in buffers of fixed size.

    Args:
        depth: Layers.
        shape: (batch, heads, longest sequence, head_dim).
        like: A tensor of the right device and type.
    """

    def __init__(self, depth: int, shape: tuple[int, int, int, int], like: Tensor) -> None:
        self.keys = [like.new_empty(shape) for _ in range(depth)]
        self.values = [like.new_empty(shape) for _ in range(depth)]
        self.length = 0

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write new keys and values behind the old ones; return all of them."""
        end = self.length + k.shape[2]
        self.keys[layer][:, :, self.length : end] = k
        self.values[layer][:, :, self.length : end] = v
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]


class Attention(nn.Module):
    """Causal self-attention with rotary positions and normalised queries and keys."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_norm = RMSNorm(width // num_heads)
        self.k_norm = RMSNorm(width // num_heads)
        self.out = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        table: Float[Tensor, "two N head_dim"],
        cache: KVCache | None,
        layer: int,
    ) -> Float[Tensor, "B N D"]:
        heads = rearrange(self.qkv(x), "b n (k h d) -> k b h n d", k=3, h=self.num_heads)
        q, k, v = heads.unbind()
        q, k = rotate(self.q_norm(q), table), rotate(self.k_norm(k), table)
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        # One new position sees everything so far; several start from nothing.
        y = attention(q, k, v.to(q.dtype), causal=x.shape[1] > 1)
        return self.out(rearrange(y, "b h n d -> b n (h d)"))


class Block(nn.Module):
    """Pre-norm attention and SwiGLU."""

    def __init__(self, width: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(width)
        self.attention = Attention(width, num_heads)
        self.mlp_norm = RMSNorm(width)
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        nn.init.zeros_(self.down.weight)

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        table: Float[Tensor, "two N head_dim"],
        cache: KVCache | None,
        layer: int,
    ) -> Float[Tensor, "B N D"]:
        x = x + self.attention(self.attention_norm(x), table, cache, layer)
        gate, up = self.gate_up(self.mlp_norm(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class Transformer(Configurable, nn.Module):
    """Stack of blocks between embeddings and states.

    Args:
        width: Channels of the residual stream.
        depth: Blocks.
        num_heads: Attention heads; `width / num_heads` must be even.
        mlp_ratio: Hidden width of SwiGLU over `width`, rounded up to a multiple of 32.
        rope_theta: Longest period of the rotary positions, over 2 pi.
    """

    def __init__(
        self,
        width: int = 256,
        depth: int = 6,
        num_heads: int = 4,
        mlp_ratio: float = 8 / 3,
        rope_theta: float = 10_000.0,
    ) -> None:
        super().__init__()
        if width % (2 * num_heads):
            raise ValueError(
                f"width is {width}, but {num_heads} heads with paired channels need a multiple of "
                f"{2 * num_heads}"
            )
        hidden = -(-int(width * mlp_ratio) // 32) * 32
        self.width, self.depth, self.num_heads = width, depth, num_heads
        self.head_dim, self.rope_theta = width // num_heads, rope_theta
        self.blocks = nn.ModuleList([Block(width, num_heads, hidden) for _ in range(depth)])
        self.norm = RMSNorm(width)

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        positions: Int[Tensor, "N 3"],
        cache: KVCache | None = None,
    ) -> Float[Tensor, "B N D"]:
        """Return states.

        Args:
            x: Embeddings of the new positions.
            positions: Their (t, h, w).
            cache: Earlier positions; extended by the new ones.
        """
        table = rotary_table(positions, self.head_dim, self.rope_theta)
        for layer, block in enumerate(self.blocks):
            x = block(x, table, cache, layer)
        if cache is not None:
            cache.length += x.shape[1]
        return self.norm(x)

    def new_cache(self, batch_size: int, length: int, like: Tensor) -> KVCache:
        """Return an empty cache for sequences of up to `length` positions."""
        return KVCache(self.depth, (batch_size, self.num_heads, length, self.head_dim), like)
