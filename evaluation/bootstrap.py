"""Intervals by the bootstrap over clips: Efron and Tibshirani 1993, An Introduction.

One mechanism for every figure, from PSNR to FVD: a figure is a function of how often each clip
counts, and an interval is the spread of that function over clips drawn with replacement.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

Figure = Callable[[Float64[Tensor, " N"]], Float64[Tensor, "*S"]]
"""From the weight of each clip, 1 where all count once, to a number or several."""


class Estimate(NamedTuple):
    """A figure of all clips and its interval, NaN where there are too few clips for one."""

    value: Float64[Tensor, "*S"]
    low: Float64[Tensor, "*S"]
    high: Float64[Tensor, "*S"]


def weighted_mean(
    rows: Float64[Tensor, "N *S"], weights: Float64[Tensor, " N"]
) -> Float64[Tensor, "*S"]:
    """Return the mean over clips."""
    return torch.tensordot(weights, rows, dims=1) / weights.sum()


def estimate(
    figure: Figure,
    num_clips: int,
    *,
    num_replicates: int = 200,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """Return a figure with its interval.

    The replicates are moved so that their mean is the figure: a Frechet distance of drawn clips
    lies higher, for drawing repeats some of them, and an unmoved interval could miss the figure.

    Args:
        figure: What is estimated.
        num_clips: How many clips are weighted; clips of one video should count as one.
        num_replicates: How often to draw; 0 gives no interval.
        seed: Of the draws.
        level: The chance that an interval covers.
    """
    value = figure(torch.ones(num_clips, dtype=torch.float64))
    if num_replicates < 2 or num_clips < 2:
        unknown = torch.full_like(value, torch.nan)
        return Estimate(value, unknown, unknown)
    rng = np.random.default_rng(seed)
    chances = np.full(num_clips, 1 / num_clips)
    draws = rng.multinomial(num_clips, chances, size=num_replicates)
    replicates = torch.stack([figure(torch.from_numpy(w).double()) for w in draws])
    moved = replicates - replicates.mean(0) + value
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = torch.quantile(moved, ends, dim=0)
    return Estimate(value, low, high)
