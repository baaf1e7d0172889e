"""How much of a codebook a tokenizer uses over a whole split."""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor
from torchmetrics import Metric


class Usage(NamedTuple):
    """`share` of the codebook that occurs, and how evenly: perplexity is 2 to the entropy.

    `share` cannot exceed `num_tokens` over the size of the codebook: count enough tokens. A tenth
    of the codes occur at most `p10` times as often as the mean code, nine tenths at most `p90`.
    """

    share: float
    perplexity: float
    entropy_bits: float
    num_tokens: int
    p10: float
    p90: float


def usage(histogram: Shaped[Tensor, " V"]) -> Usage:
    """Describe how often each code occurs."""
    counts = histogram.double()
    if not counts.sum():
        raise ValueError("no token was counted; call update before compute")
    probabilities = counts / counts.sum()
    entropy = torch.special.entr(probabilities).sum().item() / math.log(2)
    share = (counts > 0).double().mean().item()
    p10, p90 = np.quantile((counts / counts.mean()).cpu().numpy(), [0.1, 0.9]).tolist()
    return Usage(share, 2**entropy, max(entropy, 0.0), int(counts.sum()), p10, p90)


class CodebookUsage(Metric):
    """Count tokens over the whole split, never batch by batch.

    Args:
        codebook_size: How many codes there are.
    """

    full_state_update = False
    histogram: Tensor

    def __init__(self, codebook_size: int) -> None:
        super().__init__()
        if codebook_size < 1:
            raise ValueError(f"codebook_size is {codebook_size}, but must be at least 1")
        self.codebook_size = codebook_size
        zeros = torch.zeros(codebook_size, dtype=torch.int64)
        self.add_state("histogram", zeros, dist_reduce_fx="sum")

    def update(self, tokens: Int[Tensor, "..."]) -> None:
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.codebook_size:
            raise ValueError(
                f"tokens reach from {int(tokens.min())} to {int(tokens.max())}, but codebook_size "
                f"is {self.codebook_size}; give the codebook_size of the tokenizer that made them"
            )
        self.histogram += torch.bincount(tokens.flatten(), minlength=self.codebook_size)

    def compute(self) -> Usage:
        return usage(self.histogram)
