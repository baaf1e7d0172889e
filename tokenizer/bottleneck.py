"""The one interface of what stands between encoder and decoder."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from layers.configurable import Config, Configurable


class Quantized(NamedTuple):
    """What a bottleneck makes of latents.

    `loss` is its own regularisation, 0 where it has none; `stats` is what to log of it.
    `tokens` is None behind a continuous bottleneck.
    """

    latents: Float[Tensor, "B D t h w"]
    tokens: Int[Tensor, "B t h w"] | None
    loss: Float[Tensor, ""]
    stats: dict[str, Float[Tensor, ""]]


class Bottleneck(Configurable, nn.Module, ABC):
    """Interface: `input_dim` channels of the encoder to `dim` channels of the decoder.

    `bookkeeping` names the part of the state that fingerprints leave out, `for_training` the
    arguments that decide no token and no latent once training is over.
    """

    input_dim: int
    dim: int
    bookkeeping: tuple[str, ...] = ()
    for_training: tuple[str, ...] = ()

    def forward(self, latents: Float[Tensor, "B E t h w"]) -> Quantized:
        """Apply in float32, whatever autocast says; gradients reach the latents."""
        with torch.autocast(latents.device.type, enabled=False):
            return self.apply_to(latents.float())

    def outside_training(self, latents: Float[Tensor, "B E t h w"]) -> Quantized:
        """Apply as in eval mode, whatever the mode: nothing is learnt, drawn or penalised."""
        if not self.training:
            return self(latents)
        self.eval()
        try:
            return self(latents)
        finally:
            self.train()

    def kind(self) -> Config:
        """Return the class and those of its arguments that decide tokens or latents."""
        arguments = self.config["arguments"]
        deciding = {k: v for k, v in arguments.items() if k not in self.for_training}
        return {**self.config, "arguments": deciding}

    @abstractmethod
    def apply_to(self, latents: Float[Tensor, "B E t h w"]) -> Quantized:
        """Do what `forward` promises, with float32 latents and autocast off."""


class Quantizer(Bottleneck):
    """Interface: latents of `dim` channels to tokens in [0, `codebook_size`) and back."""

    codebook_size: int

    @abstractmethod
    def lookup(self, tokens: Int[Tensor, "B t h w"]) -> Float[Tensor, "B D t h w"]:
        """Return the quantized latents that the tokens stand for."""
