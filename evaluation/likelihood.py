"""What a prior finds surprising: bits of tokens, by latent frame.

Bits a token depend on the tokenizer, and bits a pixel are a rate, not a likelihood of pixels: the
decoder has no distribution. A masked prior has only a pseudo-likelihood (Besag 1975): its figures
say so in their names. Surprise as a reward: VIPER, Escontrela et al. 2023, arXiv 2305.14343.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from einops import reduce
from jaxtyping import Float, Float64, Int, UInt8
from torch import Tensor

from evaluation.lengths import last_length

PSEUDO_GROUPS = 13
"""Calls of a masked prior a clip. Prime, so that no row or column of a grid is masked whole."""


class Surprise(NamedTuple):
    """Bits of the tokens of one latent frame, and the frames of the video it stands for."""

    first_frame: int
    last_frame: int
    bits: float


def kind(prior: Any) -> str | None:
    """Return what the prior can tell: "bits", "pseudo_bits" or nothing."""
    if hasattr(prior, "score"):
        return "bits"
    return "pseudo_bits" if hasattr(prior, "pseudo_log_likelihood") else None


def scored_frames(model: Any, num_frames: int) -> int:
    """Return how many frames of a clip are scored: 1 + s k of them, and at most a window."""
    stride = model.tokenizer.temporal_stride
    return min(last_length(num_frames, stride), 1 + stride * (model.prior.grid[0] - 1))


@torch.no_grad()
def bits_of(
    model: Any, clips: UInt8[Tensor, "B T H W 3"], captions: list[str] | None = None
) -> Float64[Tensor, "B t"]:
    """Return the bits of each latent frame, given those before it; T = 1 + s (t - 1)."""
    tokens: Int[Tensor, "B t h w"] = model.encode(clips)
    condition = model.condition(captions if model.text is not None else None, len(clips))
    if kind(model.prior) == "bits":
        nats: Float[Tensor, "B N"] = model.prior.score(tokens, condition)
    else:
        groups = min(PSEUDO_GROUPS, tokens[0].numel())
        nats = model.prior.pseudo_log_likelihood(tokens, condition, groups)
    frames = reduce(nats.cpu().double(), "B (t n) -> B t", "sum", t=tokens.shape[1])
    return -frames / math.log(2)


def surprise(model: Any, frames: Iterable[UInt8[np.ndarray, "H W 3"]]) -> Iterator[Surprise]:
    """Score a video of any length, window by window; memory does not grow with it.

    After the first window, each starts in the middle of the one before, so that every latent frame
    is judged by at least half a window of past. Frames behind the last 1 + s k are not judged.

    Args:
        model: A pipeline with a prior.
        frames: Pictures of the model's size.

    Raises:
        ValueError: The prior has no likelihood.
    """
    if kind(model.prior) is None:
        raise ValueError(
            f"{type(model.prior).__name__} has no likelihood; use an autoregressive prior"
        )
    stride, window = model.tokenizer.temporal_stride, model.prior.grid[0]
    overlap = max(1, window // 2)
    held: deque[np.ndarray] = deque(maxlen=1 + stride * (window - 1))
    judged, seen = 0, 0  # latent frames told, frames read
    for picture in frames:
        held.append(picture)
        seen += 1
        latents = 1 + (seen - 1) // stride
        full = latents - judged >= (window if not judged else window - overlap)
        if (seen - 1) % stride == 0 and full:
            yield from _judge(model, held, judged, latents, stride)
            judged = latents
    rest = (seen - 1) % stride if seen else 0
    for _ in range(rest):
        held.pop()
    latents = 1 + (seen - 1) // stride if seen else 0
    if latents > judged:
        yield from _judge(model, held, judged, latents, stride)


def _judge(
    model: Any, held: deque[np.ndarray], judged: int, latents: int, stride: int
) -> Iterator[Surprise]:
    frames = 1 + (len(held) - 1) // stride * stride
    clip = torch.from_numpy(np.stack(list(held)[-frames:]))[None]
    bits = bits_of(model, clip)[0].tolist()
    for latent in range(judged, latents):
        first = 0 if latent == 0 else 1 + (latent - 1) * stride
        yield Surprise(first, latent * stride, bits[latent - latents])
