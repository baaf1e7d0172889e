"""What a diffusion decoder is asked: how windows are sampled, and what a clip is to be like."""

from dataclasses import dataclass
from math import isfinite
from typing import Literal, NamedTuple, get_args

from jaxtyping import Bool, Float
from torch import Tensor

from diffusion.condition import Texts
from diffusion.sampler import Solver

Joint = Literal["given", "replaced", "guided"]
"""How a window takes over the frames it begins with: without noise, as in training, by replacement,
or by reconstruction guidance."""


@dataclass(frozen=True)
class Sampling:
    """How windows are sampled.

    Args:
        steps: Calls of the network for each; None for the decoder's own.
        guidance_scale: uncond + scale (cond - uncond); 1 is off.
        solver: "ddim", "dpm" (second order) or "ancestral".
        joint: How a window takes over the frames it begins with; kept ones are never "given".
        start: None samples what tokens leave open. A time edits: a window begins with its base,
            noised that far, and its tokens are not seen.

    Raises:
        ValueError: An argument is out of range.
    """

    steps: int | None = None
    guidance_scale: float = 1.0
    solver: Solver = "ddim"
    joint: Joint = "given"
    start: float | None = None

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps is {self.steps}, but must be 1 or more")
        if not isfinite(self.guidance_scale):
            raise ValueError(f"guidance_scale is {self.guidance_scale}, but must be finite")
        for name, choices in (("solver", get_args(Solver)), ("joint", get_args(Joint))):
            if (choice := getattr(self, name)) not in choices:
                raise ValueError(f"{name} is {choice!r}, but must be one of {', '.join(choices)}")


class Kept(NamedTuple):
    """Frames that are known wherever they lie, such as both ends of what is to be filled in.

    Each counts in the windows that it lies in. A network has learnt to be given first frames only,
    so these are taken over by replacement where `joint` says so, else by guidance.

    Args:
        clip: In [-1, 1], of the length and size that is sampled; anything where it is not known.
        frames: Which are known.
    """

    clip: Float[Tensor, "B 3 T H W"]
    frames: Bool[Tensor, " T"]

    def part(
        self, first: int, window: Float[Tensor, "B2 3 T2 H2 W2"]
    ) -> tuple[Float[Tensor, "B2 3 T2 H2 W2"], Bool[Tensor, " T2"]]:
        """Return what lies in a window of the shape of another clip that begins at a frame."""
        place = slice(first, first + window.shape[2])
        part, frames = self.clip[:, :, place], self.frames[place]
        if part.shape != window.shape or len(self.frames) != self.clip.shape[2]:
            raise ValueError(
                f"frames are kept of clips {tuple(self.clip.shape)}, and it is told of "
                f"{len(self.frames)} frames whether they are; give whole clips and tell it of each"
            )
        return part, frames


class Wishes(NamedTuple):
    """What a clip is to be like, beside its tokens.

    Args:
        texts: Pieces of a text a clip, for a decoder that reads text.
        control: Pictures of the size of the clip, for a decoder that is steered by them.
        kept: Frames that are known.
    """

    texts: Texts | None = None
    control: Float[Tensor, "B K T H W"] | None = None
    kept: Kept | None = None


def known_latents(known: Tensor | None, stride: int) -> int:
    """Return how many latent frames the known frames of clips stand for.

    Raises:
        ValueError: They are no clips, or the last of their latent frames is known in part.
    """
    if known is None:
        return 0
    if known.ndim != 5 or not known.numel() or (known.shape[2] - 1) % stride:
        raise ValueError(
            f"known is {tuple(known.shape)}, but must be (B, 3, K, H, W) with K = 1 + {stride} k "
            "frames; cut it to that"
        )
    return (known.shape[2] - 1) // stride + 1
