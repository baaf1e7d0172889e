"""Which tokens a masked prior hides in training, and which stay hidden from step to step.

MaskGIT (Chang et al. 2022, arXiv 2202.04200).
"""

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Schedule = Literal["cosine", "linear", "exponential"]


def masked_share(
    schedule: Schedule, ratio: Float[Tensor, "*B"], num_unknown: Int[Tensor, "*B"]
) -> Float[Tensor, "*B"]:
    """Return the share of the unknown tokens that is masked, from 1 at ratio 0 to 0 at ratio 1.

    Args:
        schedule: Its form; "exponential" keeps nearly all masked until late.
        ratio: How far decoding has come.
        num_unknown: Tokens that are not given, which alone count.
    """
    if schedule == "cosine":
        return (ratio * math.pi / 2).cos()
    if schedule == "linear":
        return 1 - ratio
    return 1 - num_unknown.clamp(min=1).to(ratio.dtype) ** (ratio - 1)


def draw_masks(
    shape: torch.Size,
    context_share: float,
    generator: torch.Generator | None,
) -> Bool[Tensor, "B N"]:
    """Draw which tokens training masks, of those that are not given.

    The shares of a batch lie evenly in (0, 1], one in each part of a length of 1 / B.

    Args:
        shape: Of the tokens, B t h w.
        context_share: Share of the clips whose first latent frames, from one to all but one, are
            given whole.
        generator: Source of randomness.
    """
    batch_size, num_frames, num_tokens = shape[0], shape[1], math.prod(shape[1:])
    chance, share = torch.rand(2, batch_size, dtype=torch.double, generator=generator)
    share = (share + torch.randperm(batch_size, generator=generator)) / batch_size
    frames = torch.randint(1, max(2, num_frames), (batch_size,), generator=generator)
    frames = frames * (chance < context_share) * (num_frames > 1)
    given = frames * (num_tokens // num_frames)
    count = ((num_tokens - given) * share).ceil()
    order = torch.rand(batch_size, num_tokens, generator=generator)
    is_given = torch.arange(num_tokens) < given[:, None]
    return lowest(order.masked_fill(is_given, torch.inf), count.long().clamp(min=1))


def corrupt(
    tokens: Int[Tensor, "B N"],
    codebook_size: int,
    most: float,
    generator: torch.Generator | None,
) -> Int[Tensor, "B N"]:
    """Replace a share of each clip's tokens, drawn from 0 to `most`, by random ones."""
    if most == 0:
        return tokens
    share = most * torch.rand(len(tokens), 1, generator=generator)
    hit = torch.rand(tokens.shape, generator=generator) < share
    other = torch.randint(codebook_size, tokens.shape, generator=generator)
    return torch.where(hit.to(tokens.device), other.to(tokens.device), tokens)


def num_steps(steps: int | None, num_unknown: int) -> int:
    """Return how many steps draw so many unknown tokens: 12, but each draws one at least."""
    if num_unknown < 1:
        raise ValueError("a clip has no unknown token, so nothing is to be drawn; mask some")
    if steps is None:
        return min(12, num_unknown)
    if steps > num_unknown:
        raise ValueError(
            f"steps is {steps}, but a clip has {num_unknown} unknown tokens and each step draws "
            f"one at least; take 1 to {num_unknown}"
        )
    return steps


def still_masked(
    schedule: Schedule,
    ratio: float,
    num_unknown: Int[Tensor, "B"],
    num_masked: Int[Tensor, "B"],
) -> Int[Tensor, "B"]:
    """Return how many tokens a step leaves masked: fewer than before, none after the last."""
    if ratio == 1:
        return torch.zeros_like(num_masked)
    ratios = torch.full(num_unknown.shape, ratio, dtype=torch.double, device=num_masked.device)
    count = (num_unknown * masked_share(schedule, ratios, num_unknown)).long()
    return count.clamp(min=1).minimum(num_masked - 1)


def lowest(values: Float[Tensor, "B N"], count: Int[Tensor, "B"]) -> Bool[Tensor, "B N"]:
    """Return True at the `count` lowest values of each row."""
    return values.argsort(dim=1).argsort(dim=1) < count[:, None]


def gumbel(uniforms: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    """Turn uniform noise into Gumbel noise."""
    return -(-uniforms.clamp(min=1e-20).log()).clamp(min=1e-20).log()
