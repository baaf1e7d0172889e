"""How well clips are continued, beside answers that need no model."""

import numpy as np
import torch
from einops import repeat
from jaxtyping import Float, UInt8
from torch import Tensor

from data.shapes import Rendered
from evaluation.pixel import FramePSNR
from evaluation.shapes_judge import position_error


def continuation_figures(
    clips: UInt8[Tensor, "B T H W 3"], truth: UInt8[Tensor, "B T H W 3"], num_context: int
) -> dict[str, float]:
    """Return the PSNR of the frames behind the context, and that of repeating its last frame."""
    still = repeat(truth[:, num_context - 1], "b h w c -> b t h w c", t=truth.shape[1])
    return {
        "psnr": _psnr(clips, truth, num_context),
        "copy_last_psnr": _psnr(still, truth, num_context),
    }


def shapes_figures(
    clips: UInt8[Tensor, "B T H W 3"], scenes: list[Rendered], num_context: int
) -> dict[str, float]:
    """Return what only drawn scenes can tell.

    `erase_psnr` shows the background alone; `constant_velocity_psnr` moves the true object of the
    last context frame on by its true velocity, through walls; `position_error` is the median
    distance in pixels between the object and its true place in the last frame.
    """
    truth = torch.stack([scene.frames for scene in scenes])
    erased = torch.stack([scene.background.expand_as(scene.frames) for scene in scenes])
    moved = torch.stack([_move_on(scene, num_context) for scene in scenes])
    errors = [
        position_error(clip, scene.centers) for clip, scene in zip(clips, scenes, strict=True)
    ]
    return {
        "erase_psnr": _psnr(erased, truth, num_context),
        "constant_velocity_psnr": _psnr(moved, truth, num_context),
        "position_error": float(np.median(errors)),
    }


def _psnr(clips: Tensor, truth: Tensor, num_context: int) -> float:
    metric = FramePSNR()
    metric.update(clips[:, num_context:], truth[:, num_context:])
    return metric.compute().item()


def _move_on(scene: Rendered, num_context: int) -> UInt8[Tensor, "T H W 3"]:
    """Shift the difference from the background by whole pixels, frame after frame."""
    last = num_context - 1
    velocity: Float[Tensor, 2] = scene.centers[last] - scene.centers[last - 1]
    background = scene.background.short()
    change = scene.frames[last].short() - background
    frames = scene.frames.clone()
    for t in range(num_context, len(frames)):
        dx, dy = (velocity * (t - last)).round().int().tolist()
        frames[t] = (background + _shift(change, dy, dx)).to(torch.uint8)
    return frames


def _shift(picture: Tensor, down: int, right: int) -> Tensor:
    """Move a picture; what leaves it is gone, what enters is 0."""
    height, width = picture.shape[:2]
    out = torch.zeros_like(picture)
    if abs(down) < height and abs(right) < width:
        to_y, to_x = _span(down, height), _span(right, width)
        from_y, from_x = _span(-down, height), _span(-right, width)
        out[to_y, to_x] = picture[from_y, from_x]
    return out


def _span(shift: int, length: int) -> slice:
    return slice(max(0, shift), min(length, length + shift))
