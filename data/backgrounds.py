"""The dark, still pictures that captioned shapes move over."""

import math
from typing import Literal

import numpy as np

Difficulty = Literal["plain", "graded", "textured", "grained"]

# Both lists stay far below every object color, so that brightness alone separates the two.
DARK_COLORS = ((22, 22, 26), (14, 24, 50), (12, 38, 26), (46, 24, 18), (38, 18, 46), (12, 38, 44))
DIM_COLORS = ((64, 64, 70), (36, 52, 84), (32, 74, 56), (84, 56, 40), (72, 44, 82), (40, 72, 78))

_TEXTURE_CELLS = {"textured": 6, "grained": 24}  # on a side, whatever its pixels


def background(difficulty: Difficulty, seed: int, size: int) -> np.ndarray:
    """A dark picture, uint8 H x W x 3."""
    rng = np.random.default_rng(seed)
    dark = np.array(DARK_COLORS[rng.integers(len(DARK_COLORS))])
    if difficulty == "plain":
        return np.full((size, size, 3), dark, dtype=np.uint8)
    dim = np.array(DIM_COLORS[rng.integers(len(DIM_COLORS))])
    if difficulty == "graded":
        mix = _gradient(rng, size)
    else:
        mix = _texture(rng, size, _TEXTURE_CELLS[difficulty])
    return (dark + mix[..., None] * (dim - dark) + 0.5).astype(np.uint8)


def _gradient(rng: np.random.Generator, size: int) -> np.ndarray:
    angle = rng.uniform(0, 2 * math.pi)
    line = np.linspace(-0.5, 0.5, size)
    ramp = math.cos(angle) * line + math.sin(angle) * line[:, None]
    return (ramp - ramp.min()) / (ramp.max() - ramp.min())


def _texture(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Noise on a lattice, joined smoothly."""
    lattice = rng.uniform(0, 1, (cells + 1, cells + 1))
    position = np.linspace(0, cells, size)
    near = np.clip(1 - np.abs(position[:, None] - np.arange(cells + 1)), 0, 1)
    weights = near * near * (3 - 2 * near)
    return weights @ lattice @ weights.T
