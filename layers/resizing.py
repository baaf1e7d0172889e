"""Clips made larger and smaller, in time and in space."""

import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor


def enlarged(
    clip: Float[Tensor, "B C T H W"], time: int, space: int
) -> Float[Tensor, "B C T2 H2 W2"]:
    """Enlarge a clip: T frames to 1 + time (T - 1) in lines, pictures bicubically.

    This is also what a cascade is compared with: frame blending and bicubic enlargement.
    """
    if space > 1:
        frames = rearrange(clip, "b c t h w -> (b t) c h w")
        frames = F.interpolate(frames, scale_factor=float(space), mode="bicubic")
        clip = rearrange(frames, "(b t) c h w -> b c t h w", b=len(clip))
    if time == 1 or clip.shape[2] == 1:
        return clip
    size = 1 + time * (clip.shape[2] - 1), *clip.shape[3:]
    return F.interpolate(clip, size, mode="trilinear", align_corners=True)


def reduced(
    clip: Float[Tensor, "B C T H W"], time: int, space: int
) -> Float[Tensor, "B C T2 H2 W2"]:
    """Take every so-manieth frame and the mean of so many pixels on a side."""
    return reduce(clip[:, :, ::time], "b c t (h p) (w q) -> b c t h w", "mean", p=space, q=space)
