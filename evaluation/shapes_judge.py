"""An analytic judge of captioned shapes: reads color, shape and direction back from the pixels.

Nothing is learned, so a verdict on a generated clip does not depend on any training. The judge
knows only that objects are bright, backgrounds dark and still, and what the shapes look like.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from data.shapes import COLORS, DIRECTIONS, SHAPES, Combination, coverage

UNKNOWN = "unknown"

# The brightest channel of a background stays below, that of an object is far above.
_BRIGHT = 110
# How far a pixel of the object differs from the background in some channel.
_CONTRAST = 64
_SMALLEST_AREA = 12
# Pixels around the bright ones that the object covers in part.
_RIM = 2
# Just under half the distance between the two nearest colors.
_COLOR_TOLERANCE = 64
# Coverage that is noise rather than an edge.
_NOISE_FLOOR = 0.1

_FRAMES_FOR_CAPTION = 6
# Widths of an object's edge, in pixels: drawn, and softened by a tokenizer.
_EDGES = (1.0, 2.0, 3.0)
# Squared misfit to the best template, as a share of the object's area.
_SHAPE_TOLERANCE = 0.07
_SLOWEST = 0.8  # pixels a frame
_DOMINANCE = 2.0


class Verdict(NamedTuple):
    """What a clip shows; each word may be "unknown", and centers are nan without an object."""

    color: str
    shape: str
    direction: str
    centers: Float32[Tensor, "T 2"]


class Accuracy(NamedTuple):
    """Shares of clips in which a word, or all three together, are right."""

    color: float
    shape: float
    direction: float
    all: float


def judge(clip: UInt8[Tensor, "T H W 3"]) -> Verdict:
    """Find the largest bright object and name its color, shape and starting direction.

    Shape and direction are read from the first frames, of which the caption speaks; a clip too
    short for them has no direction. Centers are (x, y) in pixels.
    """
    frames = np.ascontiguousarray(rearrange(clip.cpu().numpy(), "T H W C -> C T H W"))
    difference = frames.astype(np.float32) - _background(frames)
    mask = np.abs(difference).max(axis=0) > _CONTRAST
    window = _window(mask)
    frames, difference = frames[..., *window], difference[..., *window]
    component = _largest_component(mask[..., *window])
    if not component.any():
        centers = torch.full((len(clip), 2), math.nan)
        return Verdict(UNKNOWN, UNKNOWN, UNKNOWN, centers)

    core = ~_dilate(~component)
    core = core if core.any() else component
    alpha = _coverage(difference, np.median(difference[:, core], axis=1), component)
    area, centers = _moments(alpha)
    shape = _nearest_shape(alpha[:_FRAMES_FOR_CAPTION], area, centers)
    centers = centers + np.array([window[1].start, window[0].start], dtype=np.float32)
    return Verdict(
        _nearest_color(np.median(frames[:, core], axis=1)),
        shape,
        _direction(centers[:_FRAMES_FOR_CAPTION]),
        torch.from_numpy(centers),
    )


def accuracy(verdicts: Sequence[Verdict], combinations: Sequence[Combination]) -> Accuracy:
    """Compare verdicts with what was asked for."""
    if not verdicts or len(verdicts) != len(combinations):
        raise ValueError(
            f"verdicts has {len(verdicts)} entries and combinations {len(combinations)}, but each "
            "clip needs one of both; pass equally many, at least one"
        )
    right = np.array([np.equal(v[:3], c) for v, c in zip(verdicts, combinations, strict=True)])
    color, shape, direction = right.mean(axis=0).tolist()
    return Accuracy(color, shape, direction, float(right.all(axis=1).mean()))


def position_error(clip: UInt8[Tensor, "T H W 3"], centers: Float[Tensor, "T 2"]) -> float:
    """Pixels between the object and its true place in the last frame; infinite without one."""
    error = torch.linalg.vector_norm(judge(clip).centers[-1] - centers[-1].cpu()).item()
    return math.inf if math.isnan(error) else error


def start_spread(verdicts: Sequence[Verdict]) -> float:
    """How much starting places vary, in pixels: the standard deviation, averaged over x and y.

    Clips without an object in frame 0 are left out; fewer than two with one have no spread.
    """
    starts = np.array([v.centers[0].tolist() for v in verdicts]).reshape(-1, 2)
    starts = starts[~np.isnan(starts).any(axis=1)]
    return float(starts.std(axis=0).mean()) if len(starts) > 1 else 0.0


def _background(frames: np.ndarray) -> np.ndarray:
    """The temporal median over the frames in which nothing bright is near, C x 1 x H x W.

    An object that is slow, or turns at a wall, hides a pixel most of the time, which a median over
    all frames does not survive. A pixel that is never free takes the median of those that are.
    """
    hidden = frames.max(axis=0) > _BRIGHT
    for _ in range(_RIM):
        hidden = _dilate(hidden)
    free = ~hidden
    num_free = free.sum(axis=0)
    ordered = np.sort(np.where(free, frames, 255), axis=1)
    middle = np.maximum(num_free - 1, 0) // 2
    background = np.take_along_axis(ordered, middle[None, None], axis=1)
    seen = num_free > 0
    others = background[:, 0, seen] if seen.any() else frames.reshape(3, -1)
    background[:, 0, ~seen] = np.median(others, axis=1, keepdims=True)
    return background


def _dilate(mask: np.ndarray) -> np.ndarray:
    """Maximum over 3 x 3 neighbors in each frame."""
    tall = mask.copy()
    np.maximum(tall[:, 1:], mask[:, :-1], out=tall[:, 1:])
    np.maximum(tall[:, :-1], mask[:, 1:], out=tall[:, :-1])
    wide = tall.copy()
    np.maximum(wide[:, :, 1:], tall[:, :, :-1], out=wide[:, :, 1:])
    np.maximum(wide[:, :, :-1], tall[:, :, 1:], out=wide[:, :, :-1])
    return wide


def _window(mask: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns that hold all of a mask and a rim: the rest of the picture is not needed."""
    if not mask.any():
        return slice(None), slice(None)
    rows, columns = np.flatnonzero(mask.any(axis=(0, 2))), np.flatnonzero(mask.any(axis=(0, 1)))
    return (
        slice(max(0, rows[0] - _RIM), rows[-1] + _RIM + 1),
        slice(max(0, columns[0] - _RIM), columns[-1] + _RIM + 1),
    )


def _largest_component(mask: np.ndarray) -> np.ndarray:
    """Keep the largest 8-connected region of each frame, if it is larger than a speck."""
    labels = np.arange(1, mask.size + 1, dtype=np.int32).reshape(mask.shape) * mask
    while True:
        # Spread the largest label, then jump to the label of the pixel it names.
        spread = _dilate(labels) * mask
        spread[mask] = spread.ravel()[spread[mask] - 1]
        if np.array_equal(spread, labels):
            break
        labels = spread
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    sizes[sizes < _SMALLEST_AREA] = 0
    flat = labels.reshape(len(labels), -1)
    largest = flat[np.arange(len(flat)), sizes[flat].argmax(axis=1)]
    return (labels == largest[:, None, None]) & (sizes[labels] > 0)


def _coverage(difference: np.ndarray, color: np.ndarray, component: np.ndarray) -> np.ndarray:
    """Share of the object in each pixel: the difference along the object's color, T x H x W.

    Counts the component and a rim of soft pixels around it.
    """
    near = component
    for _ in range(_RIM):
        near = _dilate(near)
    alpha = np.tensordot(color / (color @ color), difference, axes=1)
    alpha = (alpha - _NOISE_FLOOR) / (1 - 2 * _NOISE_FLOOR)
    return np.clip(alpha, 0, 1) * near


def _moments(alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Area T and centroid T x 2 as (x, y); nan where there is no object."""
    area = alpha.sum(axis=(1, 2))
    area[area == 0] = np.nan
    x = alpha.sum(axis=1) @ np.arange(alpha.shape[2], dtype=np.float32) / area
    y = alpha.sum(axis=2) @ np.arange(alpha.shape[1], dtype=np.float32) / area
    return area, np.stack([x, y], axis=1)


def _nearest_color(color: np.ndarray) -> str:
    distance = np.linalg.norm(np.array(list(COLORS.values())) - color, axis=1)
    best = int(distance.argmin())
    return list(COLORS)[best] if distance[best] < _COLOR_TOLERANCE else UNKNOWN


def _nearest_shape(alpha: np.ndarray, area: np.ndarray, centers: np.ndarray) -> str:
    """The shape whose picture, at the measured place and area, is most like the object."""
    misfits = _misfits(alpha, area[: len(alpha)], centers[: len(alpha)])
    best = min(misfits, key=lambda shape: misfits[shape])
    return best if misfits[best] < _SHAPE_TOLERANCE else UNKNOWN


def _misfits(alpha: np.ndarray, area: np.ndarray, centers: np.ndarray) -> dict[str, float]:
    found = ~np.isnan(area)
    if not found.any():
        return dict.fromkeys(SHAPES, math.inf)
    alpha, area, centers = alpha[found], area[found], centers[found]
    height, width = alpha.shape[1:]
    dx = (np.arange(width, dtype=np.float32) - centers[:, :1])[:, None, :]
    dy = (np.arange(height, dtype=np.float32) - centers[:, 1:])[:, :, None]
    diameter = 2 * np.sqrt(area / math.pi)[:, None, None]

    edges = np.array(_EDGES, dtype=np.float32)[:, None, None, None]

    def misfit(shape: str) -> float:
        squared = (alpha - coverage(shape, diameter, dx, dy, edge=edges)) ** 2
        return float((squared.sum(axis=(2, 3)) / area).mean(axis=1).min())

    return {shape: misfit(shape) for shape in SHAPES}


def _direction(centers: np.ndarray) -> str:
    if len(centers) < _FRAMES_FOR_CAPTION:
        return UNKNOWN
    moved = centers[-1] - centers[0]
    along = np.abs(moved)
    # Comparisons with nan are false: an object that comes or goes has no direction.
    if (
        not along.max() >= _SLOWEST * (len(centers) - 1)
        or not along.max() > _DOMINANCE * along.min()
    ):
        return UNKNOWN
    return max(DIRECTIONS, key=lambda name: float(moved @ np.array(DIRECTIONS[name])))
