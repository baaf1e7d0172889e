"""Long videos window by window: which frames each window makes, and from which it goes on."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple


class Span(NamedTuple):
    """A window over frames `start` to `stop` - 1, of which the first `kept` are known.

    `part` counts the parts of the video: prompts of a story, gaps between key frames.
    """

    start: int
    kept: int
    stop: int
    part: int


def plan(ends: Sequence[int], known: int, window: int, stride: int) -> Iterator[Span]:
    """Lay windows over a video.

    Each goes on from all earlier frames of its part that fit in half a window. A new part goes on
    from the last frame alone: what moves, and how, is for the part to say.

    Args:
        ends: Frames up to the end of each part; 1 + s k.
        known: Frames given at the start; 0 or 1 + s k.
        window: Frames of the trained window.
        stride: s, frames a latent frame.

    Raises:
        ValueError: The video is longer than a window that has no room for a past.
    """
    half = max(0, min(1 + (window // 2) // stride * stride, window - stride))
    for part, (begin, end) in enumerate(pairwise([0, *ends])):
        have = max(begin, known)
        while have < end:
            past = have - max(0, begin - 1)
            if past and half < 1:
                raise ValueError(
                    f"this prior makes {window} frames at once and goes on from none; ask for no "
                    "more, or train it on a grid of two latent frames"
                )
            start = have - min(past, half)
            stop = min(start + window, end)
            yield Span(start, have - start, stop, part)
            have = stop
