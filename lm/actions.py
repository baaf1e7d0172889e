"""Actions as tokens: a bin for each dimension, and which latent frame they lead to."""

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

NONE = -1
"""Stands where no action leads to a frame."""


def to_bins(
    actions: Float[Tensor, "B T A"] | Int[Tensor, "B T A"], ranges: list[list[float]], bins: int
) -> Int[Tensor, "B T A"]:
    """Cut each dimension's range into bins of equal width and number them from 0.

    Raises:
        ValueError: There are other dimensions than ranges, or a value lies outside its range.
    """
    if actions.shape[-1] != len(ranges):
        raise ValueError(
            f"actions have {actions.shape[-1]} dimensions, but this prior was trained with "
            f"{len(ranges)}; give one number for each"
        )
    actions = actions.float()  # in whole numbers the ends of a range would be cut off
    low, high = torch.tensor(ranges, dtype=actions.dtype, device=actions.device).T
    outside = ~((actions >= low) & (actions <= high))
    if bool(outside.any()):
        row, frame, dimension = outside.nonzero()[0].tolist()
        raise ValueError(
            f"the action at frame {frame} is {actions[row, frame, dimension]:g} in dimension "
            f"{dimension}, but must lie in {ranges[dimension]}"
        )
    share = (actions - low) / (high - low)
    return (share * bins).long().clamp(max=bins - 1)


def by_latent_frame(bins: Int[Tensor, "B T A"], stride: int) -> Int[Tensor, "B t s A"]:
    """Group actions by the latent frame that they lead to; T = 1 + s (t - 1).

    Row k leads to frame k. Nothing leads to the first frame, which is a latent frame of its own.
    """
    first = torch.full_like(bins[:, :1], NONE).expand(-1, stride, -1)
    later = rearrange(bins[:, 1:], "b (t s) a -> b t s a", s=stride)
    return torch.cat([first[:, None], later], dim=1)
