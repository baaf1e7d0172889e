"""Frames of another size: the short side resized and the long one cut, or both resized."""

import torch
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional as F


def resize_and_crop(
    clip: UInt8[Tensor, "T H W 3"], size: int
) -> UInt8[Tensor, "T {size} {size} 3"]:
    """Resize the short side to `size` (bilinear, antialiased) and cut out the centre square."""
    height, width = scaled(clip.shape[1], clip.shape[2], size)
    rows, columns = centre(height, width, size)
    return resized(clip, height, width)[:, rows, columns].contiguous()


def resized(clip: UInt8[Tensor, "T H W 3"], height: int, width: int) -> UInt8[Tensor, "T H2 W2 3"]:
    """Resize frames (bilinear, antialiased), whatever becomes of their proportions."""
    if (height, width) == clip.shape[1:3]:
        return clip
    pictures = rearrange(clip, "T H W C -> T C H W").float()
    pictures = F.interpolate(pictures, (height, width), mode="bilinear", antialias=True)
    return rearrange(pictures.round().clamp(0, 255).to(torch.uint8), "T C H W -> T H W C")


def scaled(height: int, width: int, size: int | None) -> tuple[int, int]:
    """Return height and width once the short side is `size`; None changes nothing."""
    if size is None:
        return height, width
    short = min(height, width)
    return round(height * size / short), round(width * size / short)


def centre(height: int, width: int, size: int) -> tuple[slice, slice]:
    """Return the rows and columns of the square in the middle."""
    top, left = (height - size) // 2, (width - size) // 2
    return slice(top, top + size), slice(left, left + size)
