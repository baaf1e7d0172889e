"""Control by pictures: channels such as edges that steer a trained decoder.

ControlNet (Zhang et al. 2023, arXiv 2302.05543): what is added enters through a layer of zeros, so
that training starts from the decoder as it is; here as features of the input, like T2I-Adapter
(Mou et al. 2023, arXiv 2302.08453).
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from diffusion.condition import fold

_SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))


class ControlFeatures(nn.Module):
    """Channels on the pixel grid to features of the denoiser's grid, zero at the start.

    Args:
        channels: Of the control.
        patch: Pixels on the side of a place of the grid.
        width: Of the features.
    """

    def __init__(self, channels: int, patch: int, width: int) -> None:
        super().__init__()
        self.patch, self.is_addition = patch, True
        self.embed = nn.Conv3d(channels * patch**2, width, 1)
        self.blocks = nn.ModuleList(
            nn.Conv3d(width, width, (1, 3, 3), padding=(0, 1, 1)) for _ in range(2)
        )
        self.out = nn.Conv3d(width, width, 1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

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
