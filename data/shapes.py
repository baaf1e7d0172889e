"""Captioned shapes, the built-in data set: one moving shape a clip, drawn on the fly by numpy.

Every clip is a pure function of (seed, split, index), so nothing is stored, and everything that a
caption says can be read back from the pixels (`evaluation.shapes_judge`).
"""

import math
from dataclasses import dataclass
from itertools import product
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

from data import backgrounds
from data.backgrounds import Difficulty
from data.source import ClipSource, Place, Sample

Split = Literal["train", "val", "held_out"]

COLORS = {
    "red": (226, 44, 44),
    "green": (56, 190, 72),
    "blue": (44, 100, 236),
    "yellow": (242, 210, 48),
    "white": (242, 242, 242),
    "purple": (176, 64, 212),
}
SHAPES = ("circle", "square", "triangle")
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}  # y points down

STEADY_FRAMES = 6  # no wall is met before, so that the starting direction can be seen

# A square and an equilateral triangle of the area of a circle of diameter 1.
_SQUARE_SIDE = math.sqrt(math.pi) / 2
_TRIANGLE_SIDE = math.sqrt(math.pi / math.sqrt(3))
_TRIANGLE_HALF = _TRIANGLE_SIDE / 2
_TRIANGLE_INRADIUS = _TRIANGLE_SIDE / math.sqrt(12)

# How far a shape of diameter 1 reaches from its centroid: (left, up), (right, down).
_REACH = {
    "circle": ((0.5, 0.5), (0.5, 0.5)),
    "square": ((_SQUARE_SIDE / 2, _SQUARE_SIDE / 2), (_SQUARE_SIDE / 2, _SQUARE_SIDE / 2)),
    "triangle": ((_TRIANGLE_HALF, 2 * _TRIANGLE_INRADIUS), (_TRIANGLE_HALF, _TRIANGLE_INRADIUS)),
}


class Combination(NamedTuple):
    """What a caption says: a key of `COLORS`, one of `SHAPES`, a key of `DIRECTIONS`."""

    color: str
    shape: str
    direction: str

    @property
    def caption(self) -> str:
        """The sentence, naming the direction in which the clip starts."""
        return f"a {self.color} {self.shape} moving {self.direction}"


ALL_COMBINATIONS = tuple(Combination(*c) for c in product(COLORS, SHAPES, DIRECTIONS))

# No two share a pair of words, so each pair is still seen in training.
HELD_OUT = (
    Combination("red", "square", "up"),
    Combination("green", "triangle", "left"),
    Combination("blue", "circle", "down"),
    Combination("yellow", "triangle", "right"),
    Combination("white", "square", "left"),
    Combination("purple", "circle", "right"),
    Combination("yellow", "square", "down"),
)

TRAINING_COMBINATIONS = tuple(c for c in ALL_COMBINATIONS if c not in HELD_OUT)


@dataclass(frozen=True)
class Scene:
    """All that determines a clip of any length; lengths in pixels, speed in pixels a frame.

    Pixel (0, 0) has its center at (0, 0). The diameter is that of the circle of equal area, and
    `start` is the centroid in frame 0, as (x, y).
    """

    combination: Combination
    diameter: float
    speed: float
    start: tuple[float, float]
    difficulty: Difficulty
    background_seed: int


class Rendered(NamedTuple):
    """A clip and its truth: where the object is (coverage above one half), what it hides."""

    frames: UInt8[Tensor, "T H W 3"]
    mask: Bool[Tensor, "T H W"]
    background: UInt8[Tensor, "H W 3"]
    centers: Float32[Tensor, "T 2"]


def coverage(
    shape: str,
    diameter: Float[np.ndarray, "..."] | float,
    dx: Float[np.ndarray, "..."],
    dy: Float[np.ndarray, "..."],
    *,
    edge: Float[np.ndarray, "..."] | float = 1.0,
) -> Float[np.ndarray, "..."]:
    """Share of each pixel that a shape covers, anti-aliased over `edge` pixels.

    `dx` and `dy` are the pixels' offsets from the centroid; all arrays are broadcast.
    Distance is the largest to any side's line, whose sharp corners keep the area exact.
    """
    if shape == "circle":
        distance = np.sqrt(dx * dx + dy * dy) - diameter / 2
    elif shape == "square":
        distance = np.maximum(np.abs(dx), np.abs(dy)) - diameter * (_SQUARE_SIDE / 2)
    elif shape == "triangle":
        slanted = np.abs(dx) * (math.sqrt(3) / 2) - dy / 2
        distance = np.maximum(slanted, dy) - diameter * _TRIANGLE_INRADIUS
    else:
        raise ValueError(f"shape is {shape!r}, but only {', '.join(SHAPES)} are known; use one")
    return np.clip(0.5 - distance / edge, 0, 1)


def render(scene: Scene, num_frames: int, size: int = 64) -> Rendered:
    """Draw a scene; a longer clip begins with the shorter one."""
    if num_frames < 1:
        raise ValueError(f"num_frames is {num_frames}, but a clip has a frame; use 1 or more")
    centers = _trajectory(scene, num_frames, size)
    background = backgrounds.background(scene.difficulty, scene.background_seed, size)
    frames = np.repeat(background[None], num_frames, axis=0)
    mask = np.zeros((num_frames, size, size), dtype=bool)

    # Only a window around the object changes: it has the same side in all frames.
    low, high = np.array(_REACH[scene.combination.shape]) * scene.diameter
    side = min(size, math.ceil((low + high).max()) + 3)
    corners = np.clip(np.floor(centers - low).astype(np.int64) - 1, 0, size - side)
    columns, rows = (corners[:, None, :] + np.arange(side)[:, None]).transpose(2, 0, 1)
    dx = (columns - centers[:, :1]).astype(np.float32)[:, None, :]
    dy = (rows - centers[:, 1:]).astype(np.float32)[:, :, None]
    alpha = coverage(scene.combination.shape, scene.diameter, dx, dy)

    window = np.arange(num_frames)[:, None, None], rows[:, :, None], columns[:, None, :]
    hidden = background[window[1:]].astype(np.float32)
    color = np.array(COLORS[scene.combination.color], dtype=np.float32)
    frames[window] = (hidden + alpha[..., None] * (color - hidden) + 0.5).astype(np.uint8)
    mask[window] = alpha > 0.5
    return Rendered(*map(torch.from_numpy, (frames, mask, background, centers.astype(np.float32))))


class Shapes(ClipSource):
    """Clips of one shape that moves along an axis at constant speed and bounces off the walls.

    `train` draws among the combinations that are not held out; `val` shows each of them equally
    often, in scenes of its own; `held_out` shows the combinations that training never sees.

    Args:
        num_clips: How many clips the collection has.
        split: Which scenes: `train`, `val` or `held_out`.
        difficulty: Of the background: one dark color, a gradient of two, a soft or a fine texture.
        object_diameter: Smallest and largest object, as the diameter of a circle of equal area.
        speed: Slowest and fastest, in pixels a frame.
        size: Height and width of the frames.
        seed: Another seed is another collection.
    """

    def __init__(
        self,
        num_clips: int = 20000,
        split: Split = "train",
        *,
        difficulty: Difficulty = "plain",
        object_diameter: tuple[float, float] = (16.0, 24.0),
        speed: tuple[float, float] = (2.0, 3.0),
        size: int = 64,
        seed: int = 0,
    ) -> None:
        self.num_clips, self.split, self.size, self.seed = num_clips, split, size, seed
        self.difficulty: Difficulty = difficulty
        self.object_diameter, self.speed = object_diameter, speed
        self._check()

    def _check(self) -> None:
        for name, least in (("num_clips", 1), ("seed", 0)):
            if (value := getattr(self, name)) < least:
                raise ValueError(f"{name} is {value}, but must not be below {least}; raise it")
        for name, known in (("split", Split), ("difficulty", Difficulty)):
            if (value := getattr(self, name)) not in get_args(known):
                raise ValueError(f"{name} is {value!r}; use one of {', '.join(get_args(known))}")
        for name in ("object_diameter", "speed"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} is ({low}, {high}); use (least, most), both above 0")
        needed = _TRIANGLE_SIDE * self.object_diameter[1] + STEADY_FRAMES * self.speed[1] + 1
        if self.size < needed:
            raise ValueError(
                f"size is {self.size}, but the largest object at the highest speed needs "
                f"{math.ceil(needed)} pixels; raise size, or lower object_diameter or speed"
            )

    @property
    def fps(self) -> float:
        """Frames per second."""
        return 8.0

    @property
    def captions(self) -> list[str]:
        """The captions of the training combinations, whatever the split; all words occur."""
        return [c.caption for c in TRAINING_COMBINATIONS]

    def __len__(self) -> int:
        return self.num_clips

    def scene(self, index: int, combination: Combination | None = None) -> Scene:
        """Draw what clip `index` shows, or a scene of its kind with another combination."""
        if not 0 <= index < self.num_clips:
            raise IndexError(f"index is {index}, but the collection has clips 0 to {len(self) - 1}")
        rng = np.random.default_rng((self.seed, get_args(Split).index(self.split), index))
        drawn = self._combination(index, rng)
        combination = combination or drawn
        diameter = float(rng.uniform(*self.object_diameter))
        speed = float(rng.uniform(*self.speed))
        low, high = _walls(combination.shape, diameter, self.size)
        run = STEADY_FRAMES * speed * np.array(DIRECTIONS[combination.direction])
        # Over the first frames the object stays between the walls.
        x, y = rng.uniform(np.maximum(low, low - run), np.minimum(high, high - run))
        look = self.difficulty, int(rng.integers(2**31))
        return Scene(combination, diameter, speed, (float(x), float(y)), *look)

    def _combination(self, index: int, rng: np.random.Generator) -> Combination:
        if self.split == "held_out":
            return HELD_OUT[index % len(HELD_OUT)]
        count = len(TRAINING_COMBINATIONS)
        # A stride without a common factor visits all, and a short run already varies every word.
        choice = rng.integers(count) if self.split == "train" else index * 56 % count
        return TRAINING_COMBINATIONS[choice]

    def place(self, index: int, num_frames: int, offset: float = 0.0, stride: int = 1) -> Place:
        return Place(f"{self.split}-{index}", 0, stride)

    def read(self, index: int, num_frames: int, offset: float = 0.0, stride: int = 1) -> Sample:
        """Render a clip; `offset` is ignored, for the caption speaks of the first frames.

        The action that leads to a frame is the object's step (x, y) in pixels.
        """
        scene, length = self.scene(index), 1 + stride * (num_frames - 1)
        made, place = render(scene, length, self.size), self.place(index, num_frames, 0.0, stride)
        steps = made.centers[::stride].diff(dim=0, prepend=made.centers[:1])
        return Sample(made.frames[::stride].contiguous(), scene.combination.caption, place, steps)


def _walls(shape: str, diameter: float, size: int) -> np.ndarray:
    """Smallest and largest centroid (x, y) at which the whole shape is in the frame."""
    low, high = np.array(_REACH[shape]) * diameter
    return np.stack([low, size - 1 - high])


def _trajectory(scene: Scene, num_frames: int, size: int) -> np.ndarray:
    """Centroids, T x 2: a straight line folded at the walls."""
    low, high = _walls(scene.combination.shape, scene.diameter, size)
    if not np.all((low <= scene.start) & (scene.start <= high) & (low < high)):
        raise ValueError(
            f"size is {size}, but an object of diameter {scene.diameter:.1f} that starts at "
            f"{scene.start} does not fit in; raise size"
        )
    step = scene.speed * np.array(DIRECTIONS[scene.combination.direction])
    straight = np.array(scene.start) + np.arange(num_frames)[:, None] * step
    span = high - low
    return low + span - np.abs((straight - low) % (2 * span) - span)
