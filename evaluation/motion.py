"""Motion by block matching: optical flow without weights, dynamic degree, warping error.

Dynamic degree: VBench, Huang et al. 2023, arXiv 2311.17982, whose decision rule is kept and whose
flow (RAFT) is replaced; warping error: EvalCrafter, Liu et al. 2023, arXiv 2310.11440. The flow
stands in the names, for numbers of another flow are other numbers.
"""

import math
from functools import cache
from typing import NamedTuple

import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Float64, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

FLOW = "block"
_WINDOW = 9  # pixels on a side whose difference is compared
_STILL = 0.02  # levels that a pixel of motion must win, so that plain walls stand still
_THRESHOLD = 6 / 256  # of the short side, in pixels a frame at 8 frames a second


class Warping(NamedTuple):
    """How well frames follow from their neighbours: squared error where flows agree."""

    error: Float64[Tensor, " S"]
    share: Float64[Tensor, " S"]


def block_flow(
    first: UInt8[Tensor, "T H W 3"], second: UInt8[Tensor, "T H W 3"], reach: int | None = None
) -> Int[Tensor, "T H W 2"]:
    """Return where each pixel of the first frames went, (down, right) in whole pixels.

    The displacement whose 9 x 9 neighbourhood differs least in brightness wins; each pixel of way
    costs a little.

    Args:
        first: Frames.
        second: The frames after them.
        reach: Farthest displacement each way; a sixteenth of the short side by default.
    """
    reach = reach or max(2, min(first.shape[1:3]) // 16)
    before, after = (reduce(x.float(), "T H W C -> T 1 H W", "mean") for x in (first, second))
    height, width = before.shape[2:]
    padded = F.pad(after, [reach] * 4, mode="replicate")
    steps = torch.arange(-reach, reach + 1)
    ways = torch.cartesian_prod(steps, steps)
    best = torch.full((len(before), height, width), torch.inf)
    choice = torch.zeros(best.shape, dtype=torch.int64)
    for number, (down, right) in enumerate(ways.tolist()):
        top, left = reach + down, reach + right
        moved = padded[:, :, top : top + height, left : left + width]
        cost = _neighbourhood((moved - before).abs_()[:, 0]) + _STILL * math.hypot(down, right)
        better = cost < best
        best, choice = torch.minimum(best, cost), choice.masked_fill_(better, number)
    return ways[choice]


def flow_of(clip: UInt8[Tensor, "T H W 3"]) -> Int[Tensor, "S H W 2"]:
    """Return the flow from each frame to the next."""
    if len(clip) < 2:
        raise ValueError(f"clip has {len(clip)} frame, but motion needs at least 2")
    return block_flow(clip[:-1], clip[1:])


def is_dynamic(flow: Int[Tensor, "S H W 2"], fps: float = 8.0) -> bool:
    """Decide by VBench's rule whether a clip moves.

    A pair of frames moves if the mean of its 5 % longest displacements passes 6 pixels in 256 at
    8 frames a second; a clip does if round(4 n / 16) of its n pairs do.
    """
    length = rearrange(flow.double().square().sum(-1).sqrt(), "S H W -> S (H W)")
    longest = length.topk(max(1, length.shape[1] // 20), dim=1).values.mean(1)
    moving = int((longest > _THRESHOLD * min(flow.shape[1:3]) * 8 / fps).sum())
    return moving >= max(1, round(4 * len(flow) / 16))


def warping(clip: UInt8[Tensor, "T H W 3"], flow: Int[Tensor, "S H W 2"]) -> Warping:
    """Move each next frame back along the flow and compare, on [0, 1].

    Pixels count where the flow back from their new place leads to within a pixel of the old one.
    """
    back = block_flow(clip[1:], clip[:-1])
    moved, returned = _look_up(clip[1:], flow), _look_up(back, flow)
    visible: Bool[Tensor, "S H W"] = ((flow + returned).abs() <= 1).all(-1)
    error = (moved.double() - clip[:-1].double()).div(255).square().mean(-1)
    count = reduce(visible.double(), "S H W -> S", "sum")
    total = reduce(error * visible, "S H W -> S", "sum")
    return Warping(total / count.clamp(min=1), count / flow[0, ..., 0].numel())


def _neighbourhood(difference: Float[Tensor, "T H W"]) -> Float[Tensor, "T H W"]:
    """Average over each pixel's window, as far as it lies in the picture; a mean each way."""
    rows, columns = (_means(length).to(difference) for length in difference.shape[1:])
    return rows @ difference @ columns.mT


@cache
def _means(length: int) -> Float[Tensor, "L L"]:
    """Weights of the mean over a window around each place."""
    places = torch.arange(length)
    near = (places[:, None] - places).abs() <= _WINDOW // 2
    return near / near.sum(1, keepdim=True)


def _look_up(pictures: Tensor, flow: Int[Tensor, "S H W 2"]) -> Tensor:
    """Read each pixel at the place its flow points to; beyond the edge, at the edge."""
    time, height, width = flow.shape[:3]
    rows = torch.arange(height)[:, None] + flow[..., 0]
    columns = torch.arange(width) + flow[..., 1]
    frames = torch.arange(time)[:, None, None]
    return pictures[frames, rows.clamp(0, height - 1), columns.clamp(0, width - 1)]
