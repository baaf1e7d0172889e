"""Answers that need no model: what any model has to beat.

Retrieval as a baseline, and distance to the training set as a check for copies: Emu Video, Girdhar
et al. 2023, arXiv 2311.10709.
"""

import hashlib
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from einops import rearrange, reduce, repeat
from jaxtyping import Float, Float64, Int, UInt8
from torch import Tensor

Context = UInt8[Tensor, "B c H W 3"]
Clip = UInt8[Tensor, "T H W 3"]
Clips = UInt8[Tensor, "B T H W 3"]
_COARSE = 16  # pixels on a side of the pictures in which neighbours are sought


def copy_last(context: Context, num_new: int) -> Clips:
    """Show the last frame on."""
    return repeat(context[:, -1], "B H W C -> B T H W C", T=num_new)


def linear(context: Context, num_new: int) -> Clips:
    """Go on with the change between the last two frames, pixel by pixel."""
    last = context[:, -1:].short()
    change = last - context[:, -2:-1].short() if context.shape[1] > 1 else 0 * last
    steps = torch.arange(1, num_new + 1, dtype=torch.int16)[:, None, None, None]
    return (last + steps * change).clamp(0, 255).to(torch.uint8)


def mean_frame(context: Context, num_new: int) -> Clips:
    """Show the mean of the frames given."""
    mean = reduce(context.float(), "B T H W C -> B H W C", "mean").round().to(torch.uint8)
    return repeat(mean, "B H W C -> B T H W C", T=num_new)


BASELINES = {"copy_last": copy_last, "linear": linear, "mean_frame": mean_frame}


@runtime_checkable
class ClipList(Protocol):
    """Clips that are read when they are asked for."""

    def __iter__(self) -> Iterator[Clip]: ...

    def __getitem__(self, index: int, /) -> Clip: ...


class Neighbours:
    """The training clips, to be searched.

    Clips are compared by the mean squared difference of their pixels on [0, 1] after averaging over
    a grid of 16 x 16 cells, so that a copy with other noise is still near. Only these averages are
    kept, 52 kB a clip of 17 frames; a clip that is retrieved is read again.

    Args:
        clips: Clips that the model was trained on, as long as those that are asked about.
    """

    def __init__(self, clips: ClipList) -> None:
        self.clips, digest, cells = clips, hashlib.sha256(), []
        for clip in clips:
            digest.update(clip.contiguous().numpy().tobytes())
            cells.append(coarse(clip[None])[0])
        self.coarse, self.sha256 = torch.stack(cells), digest.hexdigest()

    def nearest(
        self, frames: UInt8[Tensor, "B c H W 3"]
    ) -> tuple[Int[Tensor, " B"], Float64[Tensor, " B"]]:
        """Return the training clip whose first frames are nearest, and how far they are."""
        wanted = rearrange(coarse(frames), "B T D -> B (T D)")
        known = rearrange(self.coarse[:, : frames.shape[1]], "M T D -> M (T D)")
        exact = "donot_use_mm_for_euclid_dist"
        distances = torch.cdist(wanted, known, compute_mode=exact).square() / wanted.shape[1]
        distance, index = distances.min(1)
        return index, distance.double()

    def go_on(self, context: Context, num_new: int) -> Clips:
        """Continue as the nearest training clip does."""
        index, _ = self.nearest(context)
        start = context.shape[1]
        chosen = torch.stack([self.clips[number] for number in index.tolist()])
        return chosen[:, start : start + num_new]


def coarse(clips: Clips) -> Float[Tensor, "B T D"]:
    """Average pictures over a grid of cells, on [0, 1]."""
    flat = rearrange(clips, "B T H W C -> (B T) C H W").float() / 255
    cells = torch.nn.functional.adaptive_avg_pool2d(flat, _COARSE)
    return rearrange(cells, "(B T) C H W -> B T (C H W)", B=len(clips))
