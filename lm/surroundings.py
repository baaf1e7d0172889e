"""What stands around a token, for a masked one has nothing of its own.

Conditional positions (Chu et al. 2021, arXiv 2102.10882).
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

_GROUPS = 8  # of channels that are mixed with each other


class Surroundings(nn.Conv3d):
    """Adds to each token's vector a grouped convolution of those around it; 0 at first.

    Args:
        width: Channels of a vector.
        causal: See the two latent frames before instead of the ones before and after.
    """

    def __init__(self, width: int, *, causal: bool) -> None:
        super().__init__(width, width, 3, padding=(0, 1, 1), groups=_GROUPS)
        self.ends = (2, 0) if causal else (1, 1)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self, codes: Float[Tensor, "B t h w D"], before: Float[Tensor, "B s h w D"] | None = None
    ) -> Float[Tensor, "B t h w D"]:
        """Return vectors that know what stands around them.

        Args:
            codes: Vectors of latent frames.
            before: Of up to two latent frames in front of them.
        """
        x, (lead, trail) = codes, self.ends
        if before is not None:
            x, lead = torch.cat([before, codes], dim=1), lead - before.shape[1]
        x = F.pad(rearrange(x, "b t h w d -> b d t h w"), (0, 0, 0, 0, lead, trail))
        return codes + rearrange(super().forward(x), "b d t h w -> b t h w d")

    def after(
        self,
        codes: Float[Tensor, "B f h w D"],
        whole: Float[Tensor, "B t h w D"],
        frames: list[int],
    ) -> Float[Tensor, "B f h w D"]:
        """Do so for latent frames of which each stands behind the whole ones before it.

        Args:
            codes: Vectors of `frames`.
            whole: Vectors of all latent frames before the last of them.
            frames: Which they are.
        """
        padded = F.pad(whole, (0, 0, 0, 0, 0, 0, 2, 0))
        before = torch.cat([padded[:, frame : frame + 2] for frame in frames])
        codes = rearrange(codes, "b f h w d -> (f b) 1 h w d")
        return rearrange(self(codes, before), "(f b) 1 h w d -> b f h w d", f=len(frames))
