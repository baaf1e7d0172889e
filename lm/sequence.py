"""One vocabulary and one layout for everything that the prior reads.

    <bos> <task> text ... <video> tokens in raster order t, h, w

Text fills a window of fixed length with <pad> behind it, so that a sample never depends on the
prompts beside it.
"""

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

SPECIAL = ("<pad>", "<bos>", "<video>", "<eos>", "<generate>")
PAD, BOS, VIDEO, EOS, GENERATE = range(len(SPECIAL))


class Vocabulary(NamedTuple):
    """Segments in order: special tokens, text pieces, visual codes."""

    text_size: int
    codebook_size: int

    @property
    def first_text(self) -> int:
        return len(SPECIAL)

    @property
    def first_code(self) -> int:
        return len(SPECIAL) + self.text_size

    @property
    def size(self) -> int:
        return self.first_code + self.codebook_size


def prefix(texts: list[list[int]], vocabulary: Vocabulary, window: int) -> Int[Tensor, "B P"]:
    """Return `<bos> <task> text ... <video>` for each text (no pieces: unconditional).

    Raises:
        ValueError: A text has more than `window` pieces.
    """
    rows = []
    for pieces in texts:
        if len(pieces) > window:
            raise ValueError(
                f"a prompt has {len(pieces)} text pieces, but this prior reads {window}; shorten it"
            )
        text = [vocabulary.first_text + piece for piece in pieces]
        rows.append([BOS, GENERATE, *text, *[PAD] * (window - len(pieces)), VIDEO])
    return torch.tensor(rows)


def positions(
    prefix_length: int, grid: tuple[int, int, int], places: Literal["grid", "line"] = "grid"
) -> Int[Tensor, "N 3"]:
    """Return (t, h, w) of each position.

    The prefix has the same number on all axes; so have video tokens on a "line".
    """
    if places == "line":
        return torch.arange(prefix_length + math.prod(grid))[:, None].expand(-1, 3)
    text = torch.arange(prefix_length)[:, None].expand(-1, 3)
    axes = torch.meshgrid(*(torch.arange(length) for length in grid), indexing="ij")
    return torch.cat([text, prefix_length + torch.stack(axes, dim=-1).flatten(0, 2)])
