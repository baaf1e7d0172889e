"""A long video in two requests: sparse key frames, then what lies between them.

TATS (Ge et al. 2022, arXiv 2204.03638); NUWA-XL (Yin et al. 2023, arXiv 2303.12346).
"""

from dataclasses import replace

import torch

from lm.request import Request


def key_frames(request: Request, gap: int, size: int) -> tuple[Request, Request]:
    """Return the request of the key frames and that of the filling, which has blank ones.

    Args:
        request: The whole video.
        gap: Frames from one key frame to the next.
        size: Height and width of the key frames.

    Raises:
        ValueError: The video does not end with a key frame.
    """
    gaps, rest = divmod(request.length - 1, gap)
    if rest or not gaps:
        raise ValueError(
            f"--frames is {request.length}, but key frames stand {gap} apart; use "
            f"{1 + max(1, gaps) * gap} or {1 + (gaps + 1) * gap}"
        )
    first = None if request.context is None else request.context[:, -1:]
    keys = replace(request, num_frames=gaps + 1, context=first)
    filling = replace(
        request,
        task="interpolate",
        guide=torch.zeros(request.count, gaps + 1, size, size, 3, dtype=torch.uint8),
        context=None,
        seed=[_another(seed) for seed in request.seeds],
    )
    return keys, filling


def _another(seed: int) -> int:
    """Return a seed that goes with another, so that no draw serves twice; torch keeps 32 bits."""
    return int(torch.randint(2**31, (), generator=torch.Generator().manual_seed(seed)))
