"""Quantizers: latents to integers and back, behind one interface.

FSQ: Mentzer et al. 2023 (arXiv 2309.15505), through vector-quantize-pytorch.
"""

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from vector_quantize_pytorch import finite_scalar_quantization

from layers.configurable import Configurable


class Quantized(NamedTuple):
    """What a quantizer makes of latents; `loss` is its own regularisation, 0 where it has none."""

    latents: Float[Tensor, "B D t h w"]
    tokens: Int[Tensor, "B t h w"]
    loss: Float[Tensor, ""]


class Quantizer(Configurable, nn.Module, ABC):
    """Interface: latents of `dim` channels to tokens in [0, `codebook_size`) and back."""

    dim: int
    codebook_size: int

    @abstractmethod
    def forward(self, latents: Float[Tensor, "B D t h w"]) -> Quantized:
        """Quantize in float32, whatever autocast says, with a straight-through gradient."""

    @abstractmethod
    def lookup(self, tokens: Int[Tensor, "B t h w"]) -> Float[Tensor, "B D t h w"]:
        """Return the quantized latents that the tokens stand for."""


class FSQ(Quantizer):
    """Finite scalar quantization: each latent dimension is rounded to one of a few levels.

    Args:
        levels: Number of levels of each dimension, each at least 3; their product is the codebook.
    """

    def __init__(self, levels: list[int]) -> None:
        super().__init__()
        if not levels or min(levels) < 3:
            raise ValueError(f"levels is {levels}, but FSQ needs at least 3 in each dimension")
        self.dim, self.codebook_size = len(levels), math.prod(levels)
        with torch.device("cpu"):  # it reads its small tables, which a meta device does not have
            self.rounding = finite_scalar_quantization.FSQ(levels)

    def forward(self, latents: Float[Tensor, "B D t h w"]) -> Quantized:
        with torch.autocast(latents.device.type, enabled=False):
            rounded, tokens = self.rounding(latents.float())
        return Quantized(rounded, tokens.long(), latents.new_zeros((), dtype=torch.float32))

    def lookup(self, tokens: Int[Tensor, "B t h w"]) -> Float[Tensor, "B D t h w"]:
        return self.rounding.indices_to_codes(tokens)
