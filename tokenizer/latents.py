"""A tokenizer with a KL bottleneck, spoken to like one of tokens."""

from jaxtyping import Float
from torch import Tensor

from tokenizer.model import Tokenizer


class LatentCodec:
    """Encodes to continuous latents and decodes them, under the names that tokens have.

    Args:
        tokenizer: Has a continuous bottleneck.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer, self.temporal_stride = tokenizer, tokenizer.temporal_stride

    def encode(self, clip: Float[Tensor, "B 3 T H W"]) -> Float[Tensor, "B D t h w"]:
        """Return the latents of pixels in [-1, 1]."""
        self.tokenizer.check_clip(clip)
        return self.tokenizer.encode_latents(clip).latents

    def decode(self, latents: Float[Tensor, "B D t h w"]) -> Float[Tensor, "B 3 T H W"]:
        """Return pixels, about in [-1, 1] (not clamped)."""
        return self.tokenizer.decode_latents(latents)

    def num_latent_frames(self, num_frames: int) -> int:
        """Return t of T = 1 + s (t - 1)."""
        return self.tokenizer.num_latent_frames(num_frames)

    def num_frames(self, num_latent_frames: int) -> int:
        """Return T = 1 + s (t - 1)."""
        return self.tokenizer.num_frames(num_latent_frames)
