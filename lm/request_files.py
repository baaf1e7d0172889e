"""What a request names on disk: the end of a video, a guide, a mask."""

from collections import deque
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from data.video import iterate_frames, probe
from lm.tasks import UPSCALE


def last_frames(path: Path, frames: int, size: int, fps: float) -> UInt8[Tensor, "T H W 3"]:
    """Return the last frames of a video at the size that a model knows, and at most at its rate."""
    if frames < 1:
        raise ValueError(f"{frames} frames of a context are asked for; take 1 or more")
    _say_fit(path, size)
    last = deque(iterate_frames(path, size, fps=fps), maxlen=frames)
    if len(last) < frames:
        raise ValueError(
            f"{path} has {len(last)} frames at {fps:g} a second, but {frames} are asked for; "
            "ask for fewer"
        )
    return torch.from_numpy(np.stack(last))


def guide_frames(
    path: Path, task: str, size: int, fps: float, stride: int
) -> UInt8[Tensor, "T H W 3"]:
    """Return the frames of a guide at the size that a model knows.

    Args:
        path: A video.
        task: "interpolate" takes two key frames, the first and the last frame of the file whatever
            its rate, and none of those between; every other task the first 1 + s k, at most at the
            rate of the model.
        size: Of the model; for "upscale" a smaller one is read.
        fps: Of the model.
        stride: s.
    """
    size = size // UPSCALE if task == "upscale" else size
    _say_fit(path, size)
    if task == "interpolate":
        frames = iterate_frames(path, size)
        return torch.from_numpy(np.stack([next(frames), *deque(frames, maxlen=1)]))
    clip = torch.from_numpy(np.stack(list(iterate_frames(path, size, fps=fps))))
    return clip[: 1 + (len(clip) - 1) // stride * stride]


def action_rows(path: Path) -> Float[Tensor, "T A"]:
    """Return the actions that a .npy file holds."""
    try:
        rows = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} is no readable .npy file; write the rows of numbers with numpy.save"
        ) from error
    if not isinstance(rows, np.ndarray) or rows.dtype.kind not in "biuf" or rows.ndim != 2:
        raise ValueError(f"{path} holds no table T x A of numbers; write one with numpy.save")
    return torch.from_numpy(rows.astype(np.float32))


def bright(
    path: Path, guide: Path | None, size: int, fps: float, stride: int
) -> Bool[Tensor, "T H W"]:
    """Return where a picture or a video is brighter than half.

    Args:
        path: Of the size of the model, or of that of the guide, with which it is then resized and
            cropped.
        guide: The video to which it belongs.
        size: Of the model.
        fps: Of the model.
        stride: s; 1 + s k frames are taken, as of the guide.

    Raises:
        ValueError: There is no guide, or the mask is of neither size.
    """
    if guide is None:
        raise ValueError("a mask needs a guide: the video to fill")
    sides, known = _sides(path), _sides(guide)
    if sides not in [(size, size), known]:
        raise ValueError(
            f"the mask {path} is {sides[0]} x {sides[1]} pixels, but its guide {guide} is "
            f"{known[0]} x {known[1]} and the model makes {size} x {size}; give a mask of the size "
            "of one of them"
        )
    return guide_frames(path, "inpaint", size, fps, stride).float().mean(-1) > 127


def _sides(path: Path) -> tuple[int, int]:
    info = probe(path)
    return info.height, info.width


def _say_fit(path: Path, size: int) -> None:
    height, width = _sides(path)
    if (height, width) != (size, size):
        print(f"{path}: {height} x {width} resized and cropped to {size}")


def box(corners: list[int], size: int, inside: bool) -> Bool[Tensor, "H W"]:
    """Return True inside a box, or outside it.

    Args:
        corners: Top, left, bottom, right in pixels; the last two are not part of it.
        size: Height and width of the picture.
        inside: Whether True is inside.
    """
    top, left, bottom, right = corners
    if not (0 <= top < bottom <= size and 0 <= left < right <= size):
        raise ValueError(f"the box is {corners}, but must lie in 0 ... {size}, top left first")
    mask = torch.full((size, size), not inside)
    mask[top:bottom, left:right] = inside
    return mask
