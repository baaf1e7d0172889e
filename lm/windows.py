"""Long videos window by window: which frames each window makes, and from which it goes on."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor


class Span(NamedTuple):
    """A window over frames `start` to `stop` - 1, of which the first `kept` are known.

    `part` counts the parts of the video: prompts of a story, gaps between key frames. One that
    `slides` is known by its tokens: each of its latent frames stands for s frames, the first too.
    """

    start: int
    kept: int
    stop: int
    part: int
    slides: bool = False

    def latent_frames(self, stride: int) -> tuple[int, int]:
        """Return how many latent frames are known, and how many the window has."""
        kept, length = self.kept, self.stop - self.start
        if self.slides:
            return kept // stride, length // stride
        return (kept - 1) // stride + 1 if kept else 0, (length - 1) // stride + 1


def plan(
    ends: Sequence[int], known: int, window: int, stride: int, *, slides: bool = False
) -> Iterator[Span]:
    """Lay windows over a video.

    Each goes on from all earlier frames of its part that fit in half a window, or from half of the
    latent frames before. A new part goes on from the last frame alone: what moves, and how, is for
    the part to say.

    Args:
        ends: Frames up to the end of each part; 1 + s k.
        known: Frames given at the start; 0 or 1 + s k.
        window: Frames of the trained window.
        stride: s, frames a latent frame.
        slides: Windows go on from the tokens of the one before, where their part has one.

    Raises:
        ValueError: The video is longer than a window that has no room for a past.
    """
    half = max(0, min(1 + (window // 2) // stride * stride, window - stride))
    latents = (window - 1) // stride + 1
    for part, (begin, end) in enumerate(pairwise([0, *ends])):
        have = max(begin, known)
        while have < end:
            past = have - max(0, begin - 1)
            if past and half < 1:
                raise ValueError(
                    f"this prior makes {window} frames at once and goes on from none; ask for no "
                    "more, or train it on a grid of two latent frames"
                )
            on = slides and have > max(begin, known)
            kept = _kept(latents) * stride if on else min(past, half)
            start = have - kept
            stop = min(start + (latents * stride if on else window), end)
            yield Span(start, kept, stop, part, on)
            have = stop


def windows_of(
    tokens: Int[Tensor, "B t h w"], num_latent_frames: int, generator: torch.Generator
) -> tuple[Int[Tensor, "B t2 h w"], Int[Tensor, " B"]]:
    """Cut a window out of the tokens of each clip: half of them at its start, the others anywhere.

    Args:
        tokens: Of clips; those no longer than a window stay whole.
        num_latent_frames: Of a window.
        generator: Source of randomness.

    Returns:
        The windows, and how many latent frames of each are given when videos are made: half of
        those that do not stand at the start. What a text says of a start does not hold for these,
        so they are not to be learnt.
    """
    count, room = len(tokens), tokens.shape[1] - num_latent_frames
    behind = torch.rand(count, generator=generator) < 0.5
    starts = torch.randint(1, max(2, room + 1), (count,), generator=generator) * behind * (room > 0)
    rows = zip(tokens, starts.tolist(), strict=True)
    cut = torch.stack([row[start : start + num_latent_frames] for row, start in rows])
    return cut, _kept(num_latent_frames) * (starts > 0)


def _kept(num_latent_frames: int) -> int:
    """Return from how many latent frames the next window goes on."""
    return num_latent_frames // 2
