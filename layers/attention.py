"""The one attention function that every network here calls."""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


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
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
