"""A decoder-only transformer: embeddings, positions and a mask to states.

The Llama block: RMSNorm before, SwiGLU (Shazeer 2020, arXiv 2002.05202), rotary positions, grouped
queries (Ainslie et al. 2023, arXiv 2305.13245), and RMSNorm on queries and keys (Dehghani et al.
2023, arXiv 2302.05442).
"""

from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask
from torch.utils.checkpoint import checkpoint

from layers.attention import attention, sparse
from layers.compiling import Compilable
from layers.configurable import Configurable
from layers.linear import Linear
from layers.norms import RMSNorm
from layers.rope import rotary_table, rotate
from layers.swiglu import swiglu
from lm.patterns import Pattern, cells

Table = Bool[Tensor, "N M"] | Literal["causal"] | None
"""Who sees whom: by a table, each position itself and those before it, or everyone everyone."""

Mask = Table | BlockMask

Masks = Mask | list[Bool[Tensor, "N M"]]
"""One mask for all layers, or several that they take in turn."""


class KVCache:
    """Keys and values of the positions seen so far, in buffers of fixed size.

    On a CPU they are float32 even in bfloat16: each step has one more key, and for every new shape
    of a product in bfloat16 oneDNN writes a new kernel, which takes longer than reading twice the
    bytes does.

    Args:
        depth: Layers.
        shape: (batch, kv_heads, longest sequence, head_dim).
        like: A tensor of the right device and type.
    """

    def __init__(self, depth: int, shape: tuple[int, int, int, int], like: Tensor) -> None:
        like = like.float() if like.dtype == torch.bfloat16 and like.device.type == "cpu" else like
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
    """Self-attention with rotary positions."""

    def __init__(
        self, width: int, num_heads: int, num_kv_heads: int, qk_norm: bool, dropout: float
    ) -> None:
        super().__init__()
        head_dim = width // num_heads
        self.head_dim, self.heads = head_dim, [num_heads, num_kv_heads, num_kv_heads]
        self.qkv = Linear(width, sum(self.heads) * head_dim)
        self.q_norm = RMSNorm(head_dim) if qk_norm else nn.Identity()
        self.k_norm = RMSNorm(head_dim) if qk_norm else nn.Identity()
        self.out = Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.out.weight)

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        table: Float[Tensor, "two N head_dim"],
        mask: Mask,
        cache: KVCache | None,
        layer: int,
    ) -> Float[Tensor, "B N D"]:
        heads = rearrange(self.qkv(x), "b n (h d) -> b h n d", d=self.head_dim)
        q, k, v = heads.split(self.heads, dim=1)
        q, k = rotate(self.q_norm(q), table), rotate(self.k_norm(k), table)
        if cache is not None:
            k, v = cache.extend(layer, k, v)
            q = q.to(k.dtype)
        # One new position sees everything so far; several start from nothing.
        causal, mask = (x.shape[1] > 1, None) if mask == "causal" else (False, mask)
        y = attention(q, k, v.to(q.dtype), causal=causal, mask=mask).to(heads.dtype)
        return self.dropout(self.out(rearrange(y, "b h n d -> b n (h d)")))


class Block(nn.Module):
    """Pre-norm attention and SwiGLU."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        num_kv_heads: int,
        hidden: int,
        qk_norm: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(width)
        self.attention = Attention(width, num_heads, num_kv_heads, qk_norm, dropout)
        self.mlp_norm = RMSNorm(width)
        self.gate_up = Linear(width, 2 * hidden)
        self.down = Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.down.weight)

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        table: Float[Tensor, "two N head_dim"],
        mask: Mask,
        cache: KVCache | None,
        layer: int,
    ) -> Float[Tensor, "B N D"]:
        x = x + self.attention(self.attention_norm(x), table, mask, cache, layer)
        return x + self.dropout(self.down(swiglu(self.gate_up(self.mlp_norm(x)))))


class Transformer(Configurable, Compilable, nn.Module):
    """Stack of blocks between embeddings and states.

    Args:
        width: Channels of the residual stream.
        depth: Blocks.
        num_heads: Attention heads; `width / num_heads` must be even.
        mlp_ratio: Hidden width of SwiGLU over `width`, rounded up to a multiple of 32.
        rope_theta: Longest period of the rotary positions, over 2 pi.
        num_kv_heads: Heads of keys and values, each shared by equally many queries; all by default.
        qk_norm: Normalise queries and keys.
        dropout: Share of what a branch adds that is left out in training.
        checkpointing: Compute each block again for its gradient: less memory, a third more time.
        patterns: Where the layers look, in turn; everywhere by default.
        window: Size (t, h, w) of the windows of the pattern "window", in tokens.
    """

    def __init__(
        self,
        width: int = 256,
        depth: int = 6,
        num_heads: int = 4,
        mlp_ratio: float = 8 / 3,
        rope_theta: float = 10_000.0,
        num_kv_heads: int | None = None,
        qk_norm: bool = True,
        dropout: float = 0.0,
        checkpointing: bool = False,
        patterns: list[Pattern] | None = None,
        window: list[int] | None = None,
    ) -> None:
        super().__init__()
        kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        if width % (2 * num_heads):
            raise ValueError(
                f"width is {width}, but {num_heads} heads with paired channels need a multiple of "
                f"{2 * num_heads}"
            )
        if kv_heads < 1 or num_heads % kv_heads:
            raise ValueError(
                f"num_kv_heads is {kv_heads}, but must divide num_heads, which is {num_heads}"
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}, but must lie in [0, 1); 0 is off")
        self.hidden = -(-int(width * mlp_ratio) // 32) * 32
        self.width, self.depth, self.num_heads, self.num_kv_heads = (
            width,
            depth,
            num_heads,
            kv_heads,
        )
        self.head_dim, self.rope_theta = width // num_heads, rope_theta
        self.qk_norm, self.checkpointing = qk_norm, checkpointing
        self.cells = [cells(pattern, window) for pattern in patterns or []]
        sizes = (width, num_heads, kv_heads, self.hidden, qk_norm, dropout)
        self.blocks = nn.ModuleList([Block(*sizes) for _ in range(depth)])
        self.norm = RMSNorm(width)

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        table: Float[Tensor, "two N head_dim"],
        mask: Masks = "causal",
        cache: KVCache | None = None,
    ) -> Float[Tensor, "B N D"]:
        """Return states.

        Args:
            x: Embeddings of the new positions.
            table: Their rows of `rotary_table`.
            mask: True where a position may look; a list is taken by the layers in turn.
            cache: Earlier positions; extended by the new ones.
        """
        masks: list[Mask] = [*mask] if isinstance(mask, list) else [mask]
        if cache is None:
            masks = [sparse(m, self.head_dim) if isinstance(m, Tensor) else m for m in masks]
        checkpointed = self.checkpointing and self.training and torch.is_grad_enabled()
        for layer, block in enumerate(self.blocks):
            inputs = x, table, masks[layer % len(masks)], cache, layer
            x = checkpoint(block, *inputs, use_reentrant=False) if checkpointed else block(*inputs)
        if cache is not None:
            cache.length += x.shape[1]
        return self.norm(x)

    def rotary_table(self, positions: Int[Tensor, "N 3"]) -> Float[Tensor, "two N head_dim"]:
        """Return the cosines and sines that `forward` takes, for positions (t, h, w)."""
        return rotary_table(positions, self.head_dim, self.rope_theta)

    def new_cache(self, batch_size: int, length: int, like: Tensor) -> KVCache:
        """Return an empty cache for sequences of up to `length` positions."""
        return KVCache(self.depth, (batch_size, self.num_kv_heads, length, self.head_dim), like)
