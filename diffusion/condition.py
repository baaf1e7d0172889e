"""Tokens and pixels as features of one grid, on which a denoiser works."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from diffusion.denoiser import Text


def fold(clip: Float[Tensor, "B C T H W"], patch: int) -> Float[Tensor, "B D T h w"]:
    """Turn patches of pixels into channels."""
    return rearrange(clip, "b c t (h p) (w q) -> b (c p q) t h w", p=patch, q=patch)


def unfold(features: Float[Tensor, "B D T h w"], patch: int) -> Float[Tensor, "B C T H W"]:
    """Undo `fold`."""
    return rearrange(features, "b (c p q) t h w -> b c t (h p) (w q)", p=patch, q=patch)


Texts = list[list[int]]
"""The pieces of a text for each clip of a batch."""


class Condition(NamedTuple):
    """What is known when noise is taken away.

    Args:
        tokens: Of the window.
        base: What the CNN makes of them, grey where it is not used.
        dropped: Clips whose tokens and base are not to be seen.
        texts: Pieces of what is said of the clips; none of a clip is no text.
        base_noise: Deviation of the noise that was added to the base.
        control: Pictures that steer the decoder; guidance keeps them.
    """

    tokens: Int[Tensor, "B t h w"]
    base: Float[Tensor, "B 3 T H W"]
    dropped: Bool[Tensor, " B"]
    texts: Texts
    base_noise: Float[Tensor, " B"]
    control: Float[Tensor, "B K T H W"] | None = None

    def blind(self) -> "Condition":
        """Return the condition of which nothing is seen, for guidance."""
        nothing = torch.ones_like(self.dropped)
        return self._replace(dropped=nothing, texts=[[] for _ in self.texts])


class Case(NamedTuple):
    """A training example of a decoder.

    Args:
        x: What is to be sampled.
        noise: What it is noised with.
        known: Frames that are given without noise.
        condition: What else is known.
    """

    x: Float[Tensor, "B 3 T H W"]
    noise: Float[Tensor, "B 3 T H W"]
    known: Bool[Tensor, "B T"]
    condition: Condition

    def mean(self, errors: Float[Tensor, "B 3 T H W"]) -> Float[Tensor, ""]:
        """Average over the frames that are asked for."""
        asked = ~self.known[:, None, :, None, None].expand_as(errors)
        return (errors * asked).sum() / asked.sum()


def over_clip(value: Shaped[Tensor, "B T"]) -> Shaped[Tensor, "B 1 T 1 1"]:
    """Lay a value of each frame, as its angle, over the pixels of clips."""
    return value[:, None, :, None, None]


def standing(
    clip: Float[Tensor, "B 3 T H W"], base: Float[Tensor, "B 3 T H W"], known: Bool[Tensor, "B T"]
) -> Float[Tensor, "B 3 T H W"]:
    """Return clips as they would be if nothing moved: their known frames, or the base, on average.

    Args:
        clip: The clips, of which known frames are looked at.
        base: What stands for clips of which no frame is known.
        known: Which frames are.
    """
    some = known.any(1, keepdim=True)
    frames = torch.where(over_clip(some), clip, base)
    weights = over_clip((known | ~some).to(base))
    mean = (weights * frames).sum(2, keepdim=True) / weights.sum(2, keepdim=True)
    return mean.expand_as(base)


def draw_known(
    count: int, num_latents: int, stride: int, share: float, generator: torch.Generator
) -> Bool[Tensor, "B T"]:
    """Draw which frames of training clips are given: none, or those of some first latent frames.

    Args:
        count: Clips.
        num_latents: Latent frames of each.
        stride: Frames to a latent frame, T = 1 + s (t - 1).
        share: Of the clips that are given some.
        generator: Draws.
    """
    frames = torch.arange(1 + stride * (num_latents - 1))
    given = torch.rand(count, 1, generator=generator) < share
    last = torch.randint(max(1, num_latents - 1), (count, 1), generator=generator)
    return given & (frames <= stride * last) & (num_latents > 1)


def draw_dropped(
    count: int, share: float, generator: torch.Generator
) -> tuple[Bool[Tensor, " B"], Bool[Tensor, " B"]]:
    """Draw whose tokens and whose texts are left out: some both, as many texts alone.

    Both together are what `Condition.blind` is, of half of a share, but of at most a tenth of all
    clips: where tokens are left out of many, it is so that texts are learnt alone.

    Args:
        count: Clips.
        share: Of the clips whose tokens are left out.
        generator: Draws.
    """
    place, both = torch.rand(count, generator=generator), min(share / 2, 0.1)
    tokens, texts = place < share, (place < both) | (place >= share) & (place < share + both)
    return tokens, texts


def corrupted(
    tokens: Int[Tensor, "B t h w"], codebook_size: int, share: float, generator: torch.Generator
) -> Int[Tensor, "B t h w"]:
    """Replace tokens by random ones, in each clip a share between none and the one given."""
    rates = share * torch.rand(len(tokens), 1, 1, 1, generator=generator)
    wrong = torch.rand(tokens.shape, generator=generator) < rates
    others = torch.randint(codebook_size, tokens.shape, generator=generator)
    return torch.where(wrong.to(tokens.device), others.to(tokens), tokens)


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
        tokens = torch.where(dropped[:, None, None, None], self.codebook_size, tokens.long())
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


class TextFeatures(nn.Module):
    """A vector a piece, its place in the text added; a vector in front stands there always.

    Args:
        text_size: Text pieces.
        text_window: Pieces of the longest text.
        width: Of the vectors.
    """

    def __init__(self, text_size: int, text_window: int, width: int) -> None:
        super().__init__()
        self.text_size, self.text_window = text_size, text_window
        self.pieces = nn.Embedding(text_size + 1, width)
        self.places = nn.Embedding(text_window + 1, width)

    def forward(self, texts: Texts) -> Text:
        """Return states of the texts.

        Raises:
            ValueError: A text is too long.
        """
        longest = max(len(text) for text in texts)
        if longest > self.text_window:
            raise ValueError(
                f"a text has {longest} pieces, but the decoder reads {self.text_window}; shorten it"
            )
        start = self.text_size
        rows = [[start, *text] + [start] * (longest - len(text)) for text in texts]
        device = self.pieces.weight.device
        ids, lengths = torch.tensor(rows, device=device), [1 + len(text) for text in texts]
        places = torch.arange(1 + longest, device=device)
        present = places < torch.tensor(lengths, device=device)[:, None]
        return Text(self.pieces(ids) + self.places(places), present)
