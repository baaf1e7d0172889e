"""One vocabulary and one layout for everything that the prior reads.

    <bos> <task> [class] text ... [states] [guide] [features] <video> tokens in raster order t, h, w
    <bos> <caption> ... guide <bos> text ... <eos>

Text fills a window of fixed length with <pad> behind it, so that a sample never depends on the
prompts beside it. Where there are actions, those that lead to a latent frame stand before its
tokens.
"""

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lm.condition import Condition, Inputs, Texts

SPECIAL = ("<pad>", "<bos>", "<video>", "<eos>")
PAD, BOS, VIDEO, EOS = range(len(SPECIAL))

Grid = tuple[int, int, int]


class Vocabulary(NamedTuple):
    """Segments in order: special tokens, tasks, text pieces, classes, action bins, visual codes."""

    text_size: int
    codebook_size: int
    tasks: tuple[str, ...] = ("generate",)
    num_classes: int = 0
    num_actions: int = 0

    @classmethod
    def of(cls, text_size: int, codebook_size: int, inputs: Inputs) -> "Vocabulary":
        """Return the vocabulary of a prior with these inputs."""
        num_actions = len(inputs.action_ranges) * inputs.action_bins
        tasks = tuple(inputs.tasks)
        return cls(text_size, codebook_size, tasks, inputs.num_classes, num_actions)

    @property
    def first_task(self) -> int:
        return len(SPECIAL)

    @property
    def first_text(self) -> int:
        return self.first_task + len(self.tasks)

    @property
    def first_class(self) -> int:
        return self.first_text + self.text_size

    @property
    def first_action(self) -> int:
        return self.first_class + self.num_classes

    @property
    def first_code(self) -> int:
        return self.first_action + self.num_actions

    @property
    def size(self) -> int:
        return self.first_code + self.codebook_size


def head(condition: Condition, vocabulary: Vocabulary, window: int) -> Int[Tensor, "B P"]:
    """Return `<bos> <task> [class] text ...` for each clip.

    Raises:
        ValueError: A text has more than `window` pieces.
    """
    task = vocabulary.first_task + vocabulary.tasks.index(condition.task)
    classes = condition.classes or [None] * len(condition)
    check_texts(condition.texts, window)
    rows = []
    for pieces, number in zip(condition.texts, classes, strict=True):
        label = [] if number is None else [vocabulary.first_class + number]
        text = [vocabulary.first_text + piece for piece in pieces]
        place = label or [PAD] * (vocabulary.num_classes > 0)
        rows.append([BOS, task, *place, *text, *[PAD] * (window - len(pieces))])
    return torch.tensor(rows)


def check_texts(texts: Texts, window: int) -> None:
    """Raise ValueError where a text has more than `window` pieces."""
    if (longest := max(map(len, texts), default=0)) > window:
        raise ValueError(
            f"a prompt has {longest} text pieces, but this prior reads {window}; shorten it"
        )


def frames_to_sample(asked: int | None, known: int, window: int) -> int:
    """Return how many latent frames a window has, the known ones included; None asks for all.

    Raises:
        ValueError: They are more than the trained window has, or all known.
    """
    t = window if asked is None else asked
    if not known < t <= window:
        raise ValueError(
            f"{t} latent frames are asked for, {known} of them given, but this prior makes "
            f"{known + 1} to {window} then; continue longer videos window by window"
        )
    return t


def line(length: int, first: int = 0) -> Int[Tensor, "N 3"]:
    """Return positions that count on along all three axes, as those of text."""
    return (first + torch.arange(length))[:, None].expand(-1, 3)


def lattice(grid: Grid, origin: int, start: int = 0, step: int = 1) -> Int[Tensor, "t n 3"]:
    """Return (t, h, w) of each token of a grid.

    Args:
        grid: Its size.
        origin: Position of the video's first token on each axis.
        start: Latent frame of the video at which the grid begins.
        step: From one token to the next along h and w, in tokens of the video.
    """
    t, h, w = (torch.arange(length) for length in grid)
    axes = torch.meshgrid(start + t, step * h, step * w, indexing="ij")
    return origin + rearrange(torch.stack(axes), "three t h w -> t (h w) three")


def of_codes(states: Float[Tensor, "B N D"], num_latent_frames: int, num_tokens: int) -> Tensor:
    """Return, of the states of latent frames with actions or without, those of their tokens."""
    frames = rearrange(states, "b (t n) d -> b t n d", t=num_latent_frames)
    return rearrange(frames[:, :, -num_tokens:], "b t n d -> b (t n) d")


def given_tokens(shape: torch.Size, given: Int[Tensor, " B"]) -> Bool[Tensor, "B N"]:
    """Return which tokens stand in the first `given` latent frames of their clip.

    Args:
        shape: Of the tokens, B t h w.
        given: Latent frames of each clip.
    """
    frames = torch.arange(shape[1], device=given.device) < given[:, None]
    return frames.repeat_interleave(shape[2] * shape[3], dim=1)
