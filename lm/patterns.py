"""Which layers look where: everywhere, within a latent frame, along time, or within a window.

Space and time in turn: ViViT (Arnab et al. 2021, arXiv 2103.15691). Frames and windows in turn:
MaskViT (Gupta et al. 2022, arXiv 2206.11894).
"""

from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

Pattern = Literal["all", "space", "time", "window"]

_WHOLE = 2**30


def cells(pattern: Pattern, window: list[int] | None) -> list[int]:
    """Return the size (t, h, w) of the cells within which a pattern looks.

    Raises:
        ValueError: There is no such pattern, or "window" has no window of three sizes from 1 on.
    """
    if pattern == "window":
        if window is None or len(window) != 3 or min(window) < 1:
            raise ValueError(
                f"the pattern window needs its size (t, h, w) in tokens, but window is {window}"
            )
        return window
    sizes = {"all": [_WHOLE] * 3, "space": [1, _WHOLE, _WHOLE], "time": [_WHOLE, 1, 1]}
    if pattern not in sizes:
        known = ", ".join([*sizes, "window"])
        raise ValueError(f"there is no pattern {pattern!r}; choose among {known}")
    return sizes[pattern]


def within(places: Int[Tensor, "N 3"], size: list[int]) -> Bool[Tensor, "N N"]:
    """Return which places (t, h, w) of a grid lie in the same cell of this size."""
    cell = places.div(torch.tensor(size, device=places.device), rounding_mode="floor")
    return (cell[:, None] == cell).all(dim=-1)


def narrowed(
    mask: Bool[Tensor, "N N"],
    sizes: list[list[int]],
    places: Int[Tensor, "N 3"],
    on_grid: Bool[Tensor, "N"],
) -> list[Bool[Tensor, "N N"]]:
    """Return who sees whom, for each pattern.

    Args:
        mask: Who would see whom without patterns.
        sizes: Of the cells of each pattern.
        places: (t, h, w) of each position.
        on_grid: Which positions are tokens of a video. Between these patterns hold; text, actions
            and features are seen from everywhere and see everywhere.
    """
    free = mask & ~(on_grid[:, None] & on_grid)
    return [free | (mask & within(places, size)) for size in sizes]
