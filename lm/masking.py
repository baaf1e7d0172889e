"""Which tokens a masked prior hides in training, and which stay hidden from step to step.

MaskGIT (Chang et al. 2022, arXiv 2202.04200).
"""

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# So often everything is masked, as when sampling begins. With even shares that is one clip of N: a
# prior of 80 tokens then made the same clip of every prompt: what is seen of a clip tells more
# than its text.
_WHOLE = 0.25

_FIRST = 8  # measured of even shares: 12 steps as 8, 1, 1, 1, 1 obey 0.57, as 4, 2, 2, 2, 2 0.40

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
    shape: torch.Size, context_share: float, generator: torch.Generator | None
) -> Bool[Tensor, "B N"]:
    """Draw which tokens training masks, of those that are not given.

    Args:
        shape: Of the tokens, B t h w.
        context_share: Share of the clips whose first latent frames, from one to all but one, are
            given whole.
        generator: Source of randomness.
    """
    batch_size, num_frames, num_tokens = shape[0], shape[1], math.prod(shape[1:])
    share = _shares(batch_size, generator)
    frames = torch.randint(1, max(2, num_frames), (batch_size,), generator=generator)
    has_context = torch.rand(batch_size, generator=generator) < context_share
    frames = frames * has_context * (num_frames > 1)
    given = frames * (num_tokens // num_frames)
    count = ((num_tokens - given) * share).ceil()
    order = torch.rand(batch_size, num_tokens, generator=generator)
    is_given = torch.arange(num_tokens) < given[:, None]
    return lowest(order.masked_fill(is_given, torch.inf), count.long().clamp(min=1))


def draw_frame_masks(
    shape: torch.Size, context_share: float, generator: torch.Generator | None
) -> Bool[Tensor, "B N"]:
    """Draw which tokens training masks where each latent frame has its own share.

    Args:
        shape: Of the tokens, B t h w.
        context_share: Share of the latent frames that are given whole, one of a clip never.
        generator: Source of randomness.
    """
    batch_size, num_frames, num_tokens = shape[0], shape[1], math.prod(shape[2:])
    is_given = torch.rand(batch_size, num_frames, generator=generator) < context_share
    never = torch.randint(num_frames, (batch_size, 1), generator=generator)
    is_given = is_given.scatter(1, never, False).flatten()
    count = (num_tokens * _shares(len(is_given), generator)).ceil().long()
    order = torch.rand(len(is_given), num_tokens, generator=generator)
    return lowest(order, count * ~is_given).view(batch_size, -1)


def _shares(count: int, generator: torch.Generator | None) -> Float[Tensor, "count"]:
    """Draw shares in (0, 1]: 1 for a quarter, the others evenly."""
    share = 1 - torch.rand(count, dtype=torch.double, generator=generator)
    even = (share + torch.randperm(count, generator=generator)) / count  # one in each part
    return (even / (1 - _WHOLE)).clamp(max=1)


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


def num_steps(steps: int | None, num_unknown: list[int]) -> list[int]:
    """Return in how many steps each part is drawn: 12 in all, but each draws one token at least.

    The first part has nothing before it that tells what is in it, and its tokens count for more.

    Args:
        steps: Of all parts.
        num_unknown: Unknown tokens of each part, 0 where none is to be drawn.
    """
    total, parts = sum(num_unknown), sum(count > 0 for count in num_unknown)
    if total < 1:
        raise ValueError("a clip has no unknown token, so nothing is to be drawn; mask some")
    if steps is not None and not parts <= steps <= total:
        raise ValueError(
            f"steps is {steps}, but a clip has {total} unknown tokens and each step draws one at "
            f"least, in {parts} parts; take {parts} to {total}"
        )
    found = [min(count, 1) for count in num_unknown]
    for _ in range(min(max(12, parts) if steps is None else steps, total) - parts):
        wanted = [
            count * (_FIRST if part == 0 else 1) / done if done < count else 0
            for part, (count, done) in enumerate(zip(num_unknown, found, strict=True))
        ]
        found[wanted.index(max(wanted))] += 1
    return found


def still_masked(
    schedule: Schedule,
    ratio: Float[Tensor, "B"],
    num_unknown: Int[Tensor, "B"],
    num_masked: Int[Tensor, "B"],
) -> Int[Tensor, "B"]:
    """Return how many tokens a step leaves masked: fewer than before, none after the last."""
    count = (num_unknown * masked_share(schedule, ratio, num_unknown)).long()
    count = count.clamp(min=1).minimum(num_masked - 1)
    return count.masked_fill(ratio == 1, 0)


def lowest(values: Float[Tensor, "B N"], count: Int[Tensor, "B"]) -> Bool[Tensor, "B N"]:
    """Return True at the `count` lowest values of each row."""
    return values.argsort(dim=1).argsort(dim=1) < count[:, None]


def gumbel(uniforms: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    """Turn uniform noise into Gumbel noise."""
    return -(-uniforms.clamp(min=1e-20).log()).clamp(min=1e-20).log()
