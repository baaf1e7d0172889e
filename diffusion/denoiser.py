"""What every denoising network is: a function from features and angles to features.

What enters and leaves it, pixels with their condition or latents, is the business of who holds it.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from layers.compiling import Compilable
from layers.configurable import Configurable

_FREQUENCIES = 32  # of the angle's embedding
_HIGHEST = 200.0


class Text(NamedTuple):
    """Text that a network reads by cross-attention: states of its pieces, and which are there."""

    states: Float[Tensor, "B L E"]
    present: Bool[Tensor, "B L"]


class Denoiser(Configurable, Compilable, nn.Module, ABC):
    """Base of the denoising networks.

    `width` is the channels of the features at both ends, `text_width` those of the text, 0 without.
    """

    width: int
    text_width: int

    @abstractmethod
    def forward(
        self,
        x: Float[Tensor, "B D T H W"],
        angle: Float[Tensor, "B T"],
        text: Text | None = None,
    ) -> Float[Tensor, "B D T H W"]:
        """Return features that say what is in the noise.

        Args:
            x: Features of the noised clip and its condition.
            angle: Of the noise in each frame, in [0, pi / 2]; known frames have 0.
            text: For a network that reads text.
        """


class AngleEmbedding(nn.Module):
    """Angles of the frames to vectors: waves of many frequencies, then two layers."""

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        exponents = torch.arange(_FREQUENCIES) / (_FREQUENCIES - 1)
        self.register_buffer("frequencies", _HIGHEST**exponents, persistent=False)
        self.first = nn.Linear(2 * _FREQUENCIES, width)
        self.second = nn.Linear(width, width)

    def forward(self, angle: Float[Tensor, "B T"]) -> Float[Tensor, "B T E"]:
        turns = angle.float()[..., None] * self.frequencies
        waves = torch.cat([turns.sin(), turns.cos()], dim=-1)
        return F.silu(self.second(F.silu(self.first(waves))))
