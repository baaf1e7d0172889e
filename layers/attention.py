"""The one attention function that every network here calls."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

# On a CPU, PyTorch's fused backward takes twice the time of the formula written out: 47 against
# 22 ms for 16 x 2 x 340 x 128 in bfloat16 on two cores. Longer sequences need its little memory.
_WRITTEN_OUT = 1024


def attention(
    q: Float[Tensor, "B heads N head_dim"],
    k: Float[Tensor, "B heads M head_dim"],
    v: Float[Tensor, "B heads M head_dim"],
    *,
    causal: bool = False,
    mask: Bool[Tensor, "N M"] | None = None,
) -> Float[Tensor, "B heads N head_dim"]:
    """Softmax attention, scaled by 1 / sqrt(head_dim).

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        causal: Query i sees keys 0 to i; only for N = M.
        mask: True where a query may look, instead of `causal`.
    """
    if q.device.type == "cpu" and q.requires_grad and k.shape[2] <= _WRITTEN_OUT:
        if causal:
            mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
        return _written_out(q, k, v, mask)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)


def _written_out(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    if mask is not None:
        hidden = torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, -torch.inf)
        scores = scores + hidden
    return scores.softmax(-1) @ v
