"""A tokenizer that encodes every frame as an image of its own: for key frames, far apart in time.

TATS (Ge et al. 2022, arXiv 2204.03638) models sparse frames first and those between them after.
"""

from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from layers.configurable import Configurable
from tokenizer.blocks import Cache
from tokenizer.model import Tokenizer


class FrameTokenizer(Configurable, nn.Module):
    """Encodes and decodes frame by frame; T = t, and frame k depends on no other.

    Args:
        tokenizer: Encodes each frame as a clip of one.
    """

    temporal_stride = 1

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.spatial_stride = tokenizer.spatial_stride

    def encode(self, clip: Float[Tensor, "B 3 T H W"]) -> Int[Tensor, "B T h w"]:
        """Return tokens in [0, codebook_size) of pixels in [-1, 1]."""
        frames = rearrange(clip, "b c t h w -> (b t) c 1 h w")
        return rearrange(self.tokenizer.encode(frames), "(b t) 1 h w -> b t h w", b=len(clip))

    def decode(
        self, tokens: Int[Tensor, "B T h w"], cache: Cache | None = None
    ) -> Float[Tensor, "B 3 T H W"]:
        """Return pixels, about in [-1, 1] (not clamped); a stream has nothing to remember."""
        frames = self.tokenizer.decode(rearrange(tokens, "b t h w -> (b t) 1 h w"))
        return rearrange(frames, "(b t) c 1 h w -> b c t h w", b=len(tokens))

    @property
    def codebook_size(self) -> int:
        """Number of codes."""
        return self.tokenizer.codebook_size

    def num_latent_frames(self, num_frames: int) -> int:
        """Return t of T = t."""
        if num_frames < 1:
            raise ValueError(f"num_frames is {num_frames}, but a clip has 1 or more")
        return num_frames

    def num_frames(self, num_latent_frames: int) -> int:
        """Return T = t."""
        return num_latent_frames

    def fingerprint(self) -> str:
        """Return that of the tokenizer, marked: the tokens of a clip are others."""
        return f"{self.tokenizer.fingerprint()}-frames"
