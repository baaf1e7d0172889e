"""A tokenizer whose tokens become pixels by diffusion, for videos made window by window."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffusion.decoder import DiffusionDecoder
from diffusion.sampler import generators_of


class DiffusionCodec:
    """Encodes as the tokenizer does and decodes by a diffusion decoder.

    A window begins with the frames that were encoded last: they are given to the decoder, so that
    what it samples goes on from them.

    Args:
        tokenizer: The tokenizer.
        decoder: Of its tokens.
        seeds: Of each sample; its noise depends on nothing else, and the prior's draws not on it.
        steps: Calls of the decoder's network for each of its windows.

    Raises:
        ValueError: The decoder makes clips of another size, or takes no step.
    """

    def __init__(
        self, tokenizer: Any, decoder: DiffusionDecoder, seeds: list[int], steps: int
    ) -> None:
        if decoder.enlarge != [1, 1]:
            raise ValueError(
                "this decoder enlarges, so windows cannot go on from its frames; sample with the "
                "CNN, then call pipe.decoder.decode(pipe.tokenizer.encode(clip))"
            )
        if steps < 1:
            raise ValueError(f"decoder_steps is {steps}, but must be at least 1")
        self.tokenizer, self.decoder, self.steps = tokenizer, decoder, steps
        self.temporal_stride: int = tokenizer.temporal_stride
        self.generators = generators_of(seeds, len(seeds))
        self.known: Tensor | None = None

    def encode(self, clip: Float[Tensor, "B 3 T H W"]) -> Int[Tensor, "B t h w"]:
        """Return tokens, and remember what they are of."""
        self.known = clip
        return self.tokenizer.encode(clip)

    def decode(self, tokens: Int[Tensor, "B t h w"]) -> Float[Tensor, "B 3 T H W"]:
        """Sample the pixels of a window, behind the frames that were encoded last."""
        known, self.known = self.known, None
        seeds = [int(torch.randint(2**62, (), generator=g)) for g in self.generators]
        new = self.decoder.decode(tokens, seeds, self.steps, known=known)
        return new if known is None else torch.cat([known, new], dim=2)

    def num_latent_frames(self, num_frames: int) -> int:
        """Return what the tokenizer does."""
        return self.tokenizer.num_latent_frames(num_frames)

    def num_frames(self, num_latent_frames: int) -> int:
        """Return what the tokenizer does."""
        return self.tokenizer.num_frames(num_latent_frames)


def codec_of(
    name: str, tokenizer: Any, decoder: DiffusionDecoder | None, seeds: list[int], steps: int
) -> Any:
    """Return what turns tokens into pixels: the tokenizer itself for "cnn", or "diffusion".

    Raises:
        ValueError: There is no such way.
    """
    if name == "cnn":
        return tokenizer
    if name != "diffusion":
        raise ValueError(f"decoder is {name!r}, but must be cnn or diffusion")
    if decoder is None:
        raise ValueError(
            "this model has no diffusion decoder; train one (configs/demo_decoder.yaml), or leave "
            "decoder out"
        )
    return DiffusionCodec(tokenizer, decoder, seeds, steps)
