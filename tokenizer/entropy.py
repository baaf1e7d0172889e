"""Entropies over a codebook whose codes are combinations of independent digits.

LFQ's digits are bits, FSQ's have a few levels. Given the latent, the chances of a code are the
product of those of its digits; averaged over positions they are not, which is what costs memory.
"""

import math
from itertools import accumulate

import torch
from jaxtyping import Float
from torch import Tensor

from layers.processes import mean_of_processes


def digit_chances(
    latents: Float[Tensor, "N D"], levels: list[Float[Tensor, "_"]], temperature: float
) -> list[Float[Tensor, "N _"]]:
    """Return the softmax of -|z - level|^2 / temperature for each digit."""
    return [
        (-(z[:, None] - values).square() / temperature).softmax(dim=1)
        for z, values in zip(latents.unbind(dim=1), levels, strict=True)
    ]


def sample_entropy(chances: list[Float[Tensor, "N _"]]) -> Float[Tensor, ""]:
    """Mean entropy of a position's code in nats: exactly the sum over its digits."""
    total = sum(_entropy(digit, dim=1) for digit in chances)
    assert isinstance(total, Tensor)
    return total.mean()


def batch_entropy(chances: list[Float[Tensor, "N _"]]) -> Float[Tensor, ""]:
    """Entropy of the mean distribution over all codes, positions and processes, in nats, exactly.

    The mean of outer products of two halves of the digits is one matrix product: with V codes,
    memory for N sqrt(V) numbers and not for N V.
    """
    sizes = accumulate((digit.shape[1] for digit in chances), lambda a, b: a * b)
    half = math.sqrt(math.prod(digit.shape[1] for digit in chances))
    middle = sum(size <= half * 1.001 for size in sizes)
    low, high = _products(chances[:middle], chances[0]), _products(chances[middle:], chances[0])
    return _entropy(mean_of_processes(low.T @ high / len(low)).flatten(), dim=0)


def _products(chances: list[Tensor], like: Tensor) -> Float[Tensor, "N codes"]:
    product = like.new_ones(len(like), 1)
    for digit in chances:
        product = (product[:, :, None] * digit[:, None]).flatten(1)
    return product


def _entropy(chances: Tensor, dim: int) -> Tensor:
    """0 log 0 is 0, and so is its gradient's weight."""
    return -torch.xlogy(chances, chances.clamp(min=1e-30)).sum(dim)
