"""Control by pictures: what is seen of a video, such as its edges, steers a trained decoder.

ControlNet (Zhang et al. 2023, arXiv 2302.05543): what is added enters through a layer of zeros, so
that training starts from the decoder as it is; here as features of the input, like T2I-Adapter
(Mou et al. 2023, arXiv 2302.08453).
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from diffusion.condition import fold

Kind = Literal["edges", "low resolution"]
"""What of a video steers a decoder."""

_SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))
_BLOCK = 8  # pixels on a side of which "low resolution" keeps the mean


class ControlFeatures(nn.Module):
    """Pictures to features of the denoiser's grid, zero at the start.

    Args:
        kind: What the pictures show of a video.
        patch: Pixels on the side of a place of the grid.
        width: Of the features.

    Raises:
        ValueError: There is no such control.
    """

    def __init__(self, kind: Kind, patch: int, width: int) -> None:
        super().__init__()
        if kind not in CONTROLS:
            raise ValueError(f"control is {kind!r}, but must be one of {', '.join(CONTROLS)}")
        self.kind: Kind = kind
        self.channels = CONTROLS[kind].channels
        self.patch, self.is_addition = patch, True
        self.embed = nn.Conv3d(self.channels * patch**2, width, 1)
        self.blocks = nn.ModuleList(
            nn.Conv3d(width, width, (1, 3, 3), padding=(0, 1, 1)) for _ in range(2)
        )
        self.out = nn.Conv3d(width, width, 1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def pictures(self, clip: Float[Tensor, "B 3 T H W"]) -> Float[Tensor, "B K T H W"]:
        """Return what steers the decoder of a clip in [-1, 1]."""
        return CONTROLS[self.kind].pictures(clip)

    def part(
        self,
        control: Float[Tensor, "B2 K2 T2 H2 W2"],
        first: int,
        window: Float[Tensor, "B 3 T H W"],
    ) -> Float[Tensor, "B K T H W"]:
        """Return what of the pictures lies in a window, of a clip's shape, that begins at a frame.

        Raises:
            ValueError: The pictures are not those of the clip.
        """
        B, _, T, *size = window.shape
        part = control[:, :, first : first + T]
        if list(part.shape) != [B, self.channels, T, *size]:
            raise ValueError(
                f"the control is {tuple(control.shape)}, but the clips need "
                f"{(B, self.channels, first + T, *size)} or more frames; give pictures of "
                "the clip's size, as the decoder's control.pictures makes them"
            )
        return part

    def forward(self, control: Float[Tensor, "B K T H W"]) -> Float[Tensor, "B D T h w"]:
        x = self.embed(fold(control, self.patch))
        for block in self.blocks:
            x = x + block(F.silu(x))
        return self.out(F.silu(x))


def edges(clip: Float[Tensor, "B 3 T H W"], threshold: float = 0.2) -> Float[Tensor, "B 1 T H W"]:
    """Return 1 where brightness changes by more than a threshold from pixel to pixel, else 0.

    Args:
        clip: Pixels in [-1, 1].
        threshold: Length of the gradient, by Sobel's kernels.
    """
    frames = rearrange(clip.float().mean(dim=1), "b t h w -> (b t) 1 h w")
    across = torch.tensor(_SOBEL, device=clip.device) / 8
    kernels = torch.stack([across, across.T])[:, None]
    gradient = F.conv2d(F.pad(frames, [1] * 4, mode="replicate"), kernels)
    found = (gradient.square().sum(dim=1).sqrt() > threshold).float()
    return rearrange(found, "(b t) h w -> b 1 t h w", b=len(clip))


def low_resolution(clip: Float[Tensor, "B 3 T H W"]) -> Float[Tensor, "B 3 T H W"]:
    """Return a clip in which all pixels of a block of about 8 x 8 have their mean."""
    frames = rearrange(clip.float(), "b c t h w -> (b t) c h w")
    height, width = frames.shape[2:]
    blocks = max(1, height // _BLOCK), max(1, width // _BLOCK)
    small = F.interpolate(frames, blocks, mode="area")
    coarse = F.interpolate(small, (height, width), mode="nearest-exact")
    return rearrange(coarse, "(b t) c h w -> b c t h w", b=len(clip))


class Control(NamedTuple):
    """How a kind of control is made.

    Args:
        pictures: From clips in [-1, 1] to pictures of their size.
        channels: Of the pictures.
    """

    pictures: Callable[[Tensor], Tensor]
    channels: int


CONTROLS: dict[Kind, Control] = {
    "edges": Control(edges, 1),
    "low resolution": Control(low_resolution, 3),
}
