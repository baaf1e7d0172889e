"""Entropies of codes whose bits are independent given the latent, one function an equation."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def bit_entropy(logits: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """Entropy of a bit with chance sigmoid(x), in nats: softplus(x) - x sigmoid(x)."""
    return F.softplus(logits) - logits * logits.sigmoid()


def entropy(chances: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """Entropy of a distribution in nats; 0 log 0 = 0."""
    return -torch.xlogy(chances, chances.clamp(min=1e-30)).sum()


def code_distribution(logits: Float[Tensor, "N d"]) -> Float[Tensor, "low high"]:
    """Mean over positions of the distribution of all 2^d codes, exactly.

    A position's distribution is the product of its bits', hence an outer product of two halves, and
    the sum of outer products is one matrix product: memory for N 2^(d/2) numbers, not N 2^d.
    """
    low, high = logits.tensor_split([logits.shape[1] // 2], dim=1)
    return _half(low).T @ _half(high) / len(logits)


def _half(logits: Float[Tensor, "N d"]) -> Float[Tensor, "N codes"]:
    chances = logits.new_ones(len(logits), 1)
    for bit in logits.sigmoid().unbind(dim=1):
        chances = torch.cat([chances * (1 - bit)[:, None], chances * bit[:, None]], dim=1)
    return chances
