"""Losses of the tokenizer, one function an equation. Inputs are clips in [-1, 1]."""

from jaxtyping import Float
from torch import Tensor


def reconstruction_loss(
    clip: Float[Tensor, "B 3 T H W"], truth: Float[Tensor, "B 3 T H W"], square_weight: float
) -> Float[Tensor, ""]:
    """Mean absolute error plus `square_weight` times the mean squared error, in float32.

    The absolute error keeps edges; the squared one pulls harder where a whole object is missing.
    """
    difference = clip.float() - truth
    return difference.abs().mean() + square_weight * difference.square().mean()
