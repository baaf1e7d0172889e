"""Tokens and pixels as features of one grid, on which a denoiser works."""

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


def fold(clip: Float[Tensor, "B C T H W"], patch: int) -> Float[Tensor, "B D T h w"]:
    """Turn patches of pixels into channels."""
    return rearrange(clip, "b c t (h p) (w q) -> b (c p q) t h w", p=patch, q=patch)


def unfold(features: Float[Tensor, "B D T h w"], patch: int) -> Float[Tensor, "B C T H W"]:
    """Undo `fold`."""
    return rearrange(features, "b (c p q) t h w -> b c t (h p) (w q)", p=patch, q=patch)


class TokenFeatures(nn.Module):
    """A vector a code, laid over the places and frames that the code stands for.

    Each place and each frame within a code's reach has its own part to tell it from the others.

    Args:
        codebook_size: Codes; one vector more stands for a code that is not known.
        token_width: Of the vectors.
        width: Channels of the features.
        scale: Places that a code reaches over, (frames, side).
    """

    def __init__(
        self, codebook_size: int, token_width: int, width: int, scale: tuple[int, int]
    ) -> None:
        super().__init__()
        self.codebook_size, self.scale = codebook_size, scale
        self.codes = nn.Embedding(codebook_size + 1, token_width)
        self.spread = nn.Linear(token_width, scale[1] ** 2 * width)
        self.phases = FramePhases(scale[0], width)

    def forward(
        self, tokens: Int[Tensor, "B t h w"], dropped: Bool[Tensor, " B"]
    ) -> Float[Tensor, "B D T H W"]:
        """Return T = 1 + s (t - 1) frames of features.

        Args:
            tokens: Codes in [0, codebook_size).
            dropped: Clips whose codes are not to be known.
        """
        tokens = torch.where(dropped[:, None, None, None], self.codebook_size, tokens)
        spread = self.spread(self.codes(tokens))
        side = self.scale[1]
        features = rearrange(spread, "b t h w (p q d) -> b d t (h p) (w q)", p=side, q=side)
        return self.phases(features)


class FramePhases(nn.Module):
    """Repeat latent frames over the frames they stand for, with a vector for each but the last.

    The vectors start at zero and an image, the last frame of its group, has none: so a module for
    images can be inflated to video.
    """

    def __init__(self, stride: int, width: int) -> None:
        super().__init__()
        self.sees_time, self.stride = True, stride
        self.vectors = nn.Parameter(torch.zeros(width, stride - 1))

    def forward(self, x: Float[Tensor, "B D t h w"]) -> Float[Tensor, "B D T h w"]:
        group = F.pad(self.vectors, (0, 1))
        vectors = repeat(group, "d s -> d (t s) 1 1", t=x.shape[2])
        frames = repeat(x, "b d t h w -> b d (t s) h w", s=self.stride) + vectors
        return frames[:, :, self.stride - 1 :]
