"""A long video in two requests: sparse key frames, then what lies between them.

TATS (Ge et al. 2022, arXiv 2204.03638); NUWA-XL (Yin et al. 2023, arXiv 2303.12346).
"""

from dataclasses import replace

import torch

from lm.autoregressive import AutoregressivePrior
from lm.latent_prior import LatentPrior
from lm.prior import Prior
from lm.request import Request
from lm.sampling import Sampling


def key_frames(request: Request, gap: int, size: int) -> tuple[Request, Request]:
    """Return the request of the key frames and that of the filling, which has blank ones.

    What prompts, classes and a story say of the whole video, such as a direction, does not hold for
    each gap; only the key frames are told it, and the filling sees them.

    Args:
        request: The whole video.
        gap: Frames from one key frame to the next.
        size: Height and width of the key frames.

    Raises:
        ValueError: The video or a part of its story does not end with a key frame, or it is told
            frame by frame.
    """
    for name in ("actions", "features", "guide"):
        if getattr(request, name) is not None:
            raise ValueError(
                f"key frames stand {gap} apart, but {name} counts frame by frame; leave {name} or "
                "the key frames out"
            )
    story = None if request.story is None else _in_key_frames(request.story, request.length, gap)
    gaps, rest = divmod(request.length - 1, gap)
    if rest or not gaps:
        raise ValueError(
            f"the video has {request.length} frames, but key frames stand {gap} apart; use "
            f"{1 + max(1, gaps) * gap} or {1 + (gaps + 1) * gap}"
        )
    first = request.context
    if first is not None and first.shape[1] > 1:
        raise ValueError(
            f"key frames go on from one picture, but the context has {first.shape[1]} frames; give "
            "its last one (--context-frames 1)"
        )
    keys = replace(request, num_frames=gaps + 1, context=first, story=story, control=None)
    filling = replace(
        request,
        task="interpolate",
        prompts=None,
        classes=None,
        story=None,
        num_frames=request.length,
        guide=torch.zeros(request.count, gaps + 1, size, size, 3, dtype=torch.uint8),
        context=None,
        seed=[_another(seed) for seed in request.seeds],
    )
    return keys, filling


def shared_sampling(
    sampling: Sampling, key_prior: Prior | LatentPrior, prior: Prior | LatentPrior
) -> tuple[Sampling, Sampling]:
    """Return how key frames are drawn, and the filling.

    Steps and the noise between them go to each prior that takes some. Where neither does they stay
    with the filling, whose decoder may take steps. Guidance is for what is told, so the filling has
    none.
    """
    without = replace(sampling, steps=None, choice_temperature=Sampling.choice_temperature)
    one_by_one = isinstance(key_prior, AutoregressivePrior)
    elsewhere = not one_by_one and isinstance(prior, AutoregressivePrior)
    filling = replace(without if elsewhere else sampling, guidance_scale=1.0)
    return without if one_by_one else sampling, filling


def _in_key_frames(story: list[tuple[str, int]], length: int, gap: int) -> list[tuple[str, int]]:
    """Return a story with the key frames of each part instead of its frames."""
    told, total = [], sum(duration for _, duration in story)
    if total != length:
        raise ValueError(
            f"the story has {total} frames, but the video {length}; leave the number of frames out"
        )
    for number, (prompt, duration) in enumerate(story):
        first = int(number == 0)
        gaps, rest = divmod(duration - first, gap)
        if rest or gaps + first < 1:
            form = f"1 + {gap} k" if first else f"a multiple of {gap}"
            raise ValueError(
                f"the story gives {prompt!r} {duration} frames, but key frames stand {gap} apart, "
                f"so part {number + 1} needs {form}"
            )
        told.append((prompt, gaps + first))
    return told


def _another(seed: int) -> int:
    """Return a seed that goes with another, so that no draw serves twice; torch keeps 32 bits."""
    return int(torch.randint(2**31, (), generator=torch.Generator().manual_seed(seed)))
