"""A tokenizer with a KL bottleneck, spoken to like one of tokens."""

from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from tokenizer.blocks import Cache
from tokenizer.checks import check_latents
from tokenizer.model import Tokenizer
from tokenizer.streaming import Codec

Kind = TypeVar("Kind")


class LatentCodec(Codec):
    """Encodes to continuous latents and decodes them, under the names that tokens have.

    Args:
        tokenizer: Has a continuous bottleneck.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer, self.temporal_stride = tokenizer, tokenizer.temporal_stride
        self.spatial_stride = tokenizer.spatial_stride

    @property
    def device(self) -> torch.device:
        """Where it works."""
        return self.tokenizer.device

    def encode(
        self, clip: Float[Tensor, "B 3 T H W"], cache: Cache | None = None
    ) -> Float[Tensor, "B D t h w"]:
        """Return the latents of pixels in [-1, 1], as `Tokenizer.encode` returns tokens."""
        return self.tokenizer.encode_latents(clip, cache).latents

    def decode(
        self, latents: Float[Tensor, "B D t h w"], cache: Cache | None = None
    ) -> Float[Tensor, "B 3 T H W"]:
        """Return pixels, about in [-1, 1] (not clamped)."""
        return self.tokenizer.decode_latents(latents, cache)

    def check_tokens(self, latents: Float[Tensor, "B D t h w"]) -> None:
        """Raise ValueError where latents do not fit this tokenizer."""
        check_latents(latents, self.tokenizer.quantizer.dim)

    def num_latent_frames(self, num_frames: int) -> int:
        """Return t of T = 1 + s (t - 1)."""
        return self.tokenizer.num_latent_frames(num_frames)

    def num_frames(self, num_latent_frames: int) -> int:
        """Return T = 1 + s (t - 1)."""
        return self.tokenizer.num_frames(num_latent_frames)


def codec_of(tokenizer: Kind) -> Kind | LatentCodec:
    """Return the tokenizer itself, or where its bottleneck is continuous, its latents' codec."""
    if isinstance(tokenizer, Tokenizer) and tokenizer.is_continuous:
        return LatentCodec(tokenizer)
    return tokenizer
