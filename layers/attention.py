"""The one attention function that every network here calls.

It takes PyTorch's fused kernel by default, FlexAttention (Dong et al. 2024, arXiv 2412.05496) where
the mask is a block mask, and FlashAttention (Dao 2023, arXiv 2307.08691) on a GPU where the package
flash-attn is installed.
"""

import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.attention.flex_attention import (
    BlockMask,
    create_block_mask,
    create_mask,
    flex_attention,
)

# On a CPU, PyTorch's fused backward takes twice the time of the formula written out: 47 against
# 22 ms for 16 x 2 x 340 x 128 in bfloat16 on two cores. Longer sequences need its little memory.
_WRITTEN_OUT = 1024

# Causal queries are taken in parts of so many or more, which need fewer of the scores: forward and
# backward of 8 x 8 x 336 x 64 on a core take 61 instead of 70 ms in bfloat16 and 86 instead of 118
# in float32, of 2 x 8 x 1000 x 64 88 instead of 136 and 143 instead of 303.
_PART, _MOST_PARTS = 150, 3

# With so few queries its forward in bfloat16 takes five to nine times the formula's time.
_FEW_QUERIES = 16

# Of positions on a GPU, from which on a table of who sees whom is worth turning into a block mask;
# shorter sequences are a few blocks of 128, of which next to none is hidden whole.
_BLOCKS = 1024
_MIN_HEAD_DIM = 16  # of FlexAttention's kernels


def attention(
    q: Float[Tensor, "B heads N head_dim"],
    k: Float[Tensor, "B kv_heads M head_dim"],
    v: Float[Tensor, "B kv_heads M head_dim"],
    *,
    causal: bool = False,
    mask: Bool[Tensor, "N M"] | BlockMask | None = None,
) -> Float[Tensor, "B heads N head_dim"]:
    """Softmax attention, scaled by 1 / sqrt(head_dim).

    Args:
        q: Queries.
        k: Keys; each of their heads serves heads / kv_heads heads of the queries.
        v: Values.
        causal: Query i sees keys 0 to i; only for N = M.
        mask: True where a query may look, instead of `causal`; a block mask skips what is hidden
            and needs no memory for it.
    """
    if isinstance(mask, BlockMask):
        if q.device.type != "cpu":
            return _compiled_flex()(q, k, v, block_mask=mask, enable_gqa=True)
        # FlexAttention has no gradient on a CPU.
        mask = create_mask(mask.mask_mod, None, None, q.shape[2], k.shape[2], "cpu")[0, 0]
    if mask is None and q.device.type == "cuda" and q.element_size() == 2 and _flash_attn():
        return _flash(q, k, v, causal)
    groups = q.shape[1] // k.shape[1]
    if groups > 1 and q.shape[2] == 1 and mask is None:
        # The heads that share keys become queries of one head: nothing is repeated.
        shared = rearrange(q, "b (h groups) 1 d -> b h groups d", groups=groups)
        return rearrange(attention(shared, k, v), "b h groups d -> b (h groups) 1 d")
    if groups > 1:
        k, v = (repeat(x, "b h m d -> b (h groups) m d", groups=groups) for x in (k, v))
    if q.device.type == "cpu" and _is_faster_written_out(q, k):
        return _causal_in_parts(q, k, v) if causal else _written_out(q, k, v, mask)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)


def sparse(mask: Bool[Tensor, "N M"], head_dim: int) -> Bool[Tensor, "N M"] | BlockMask:
    """Return a table of who sees whom as a block mask, where a kernel then skips what is hidden.

    That is on a GPU, for long sequences; elsewhere it stays a table.
    """
    if not _takes_blocks(mask) or head_dim < _MIN_HEAD_DIM or torch.compiler.is_compiling():
        return mask
    return create_block_mask(
        lambda _batch, _head, i, j: mask[i, j], None, None, *mask.shape, device=mask.device
    )


def _takes_blocks(mask: Tensor) -> bool:
    return mask.device.type != "cpu" and min(mask.shape) >= _BLOCKS


def _causal_in_parts(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return causal attention, of each part of the queries to the keys up to its end alone."""
    length, parts = q.shape[2], []
    size = -(-length // min(_MOST_PARTS, max(1, length // _PART)))
    for start in range(0, length, size):
        end = min(start + size, length)
        mask = torch.ones(end - start, end, dtype=torch.bool).tril(start)
        parts.append(_written_out(q[:, :, start:end], k[:, :, :end], v[:, :, :end], mask))
    return torch.cat(parts, dim=2)


def _written_out(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    if mask is not None:
        hidden = torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, -torch.inf)
        scores = scores + hidden
    return scores.softmax(-1) @ v


def _is_faster_written_out(q: Tensor, k: Tensor) -> bool:
    trained = q.requires_grad and k.shape[2] <= _WRITTEN_OUT
    return trained or q.shape[2] <= _FEW_QUERIES


def _flash(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    q, k, v = (rearrange(x, "b h n d -> b n h d") for x in (q, k, v))
    y = importlib.import_module("flash_attn").flash_attn_func(q, k, v, causal=causal)
    return rearrange(y, "b n h d -> b h n d")


@functools.cache
def _flash_attn() -> bool:
    return importlib.util.find_spec("flash_attn") is not None


@functools.cache
def _compiled_flex() -> Callable[..., Any]:
    """Return FlexAttention as one kernel; without the compiler it would skip nothing."""
    return torch.compile(flex_attention)
