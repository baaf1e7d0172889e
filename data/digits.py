"""Moving digits, the built-in stand-in for Moving MNIST: two digits that bounce off the walls.

The scene is that of Moving MNIST (Srivastava et al. 2015, arXiv 1502.04681), the pictures are
scikit-learn's. Every clip is a pure function of (seed, split, index), so nothing is stored.
"""

from abc import ABC, abstractmethod
from typing import Literal, get_args

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8

from data.source import ClipSource, Place, Sample

Split = Literal["train", "val"]

_TRAINING_PICTURES = 1500  # the other 297 are for validation: its digits were never seen
_SIDE = 20 / 64  # of a digit, as a share of the frame
_SPEED = (2 / 64, 5 / 64)  # slowest and fastest, in frames' sides a frame


class DrawnDigits(ClipSource, ABC):
    """Clips of digits that are drawn when they are read, each from (seed, split, index) alone.

    Args:
        num_clips: How many clips the collection has.
        split: Which pictures of digits: `train` or `val`.
        seed: Another seed is another collection.
    """

    def __init__(self, num_clips: int, split: Split, seed: int) -> None:
        if split not in get_args(Split):
            raise ValueError(f"split is {split!r}; use one of {', '.join(get_args(Split))}")
        if num_clips < 1:
            raise ValueError(f"num_clips is {num_clips}, but must be at least 1; raise it")
        self.num_clips, self.split, self.seed = num_clips, split, seed

    @abstractmethod
    def draw(
        self, key: tuple[int, ...], num_frames: int, stride: int
    ) -> UInt8[np.ndarray, "T H W"]:
        """Draw a clip from its first frame on, as a key for random numbers says."""

    @property
    def fps(self) -> float:
        """Frames a second."""
        return 10.0

    @property
    def captions(self) -> list[str]:
        """None: nothing is said about the clips."""
        return []

    def __len__(self) -> int:
        return self.num_clips

    def place(self, index: int, num_frames: int, offset: float = 0.0, stride: int = 1) -> Place:
        return Place(f"{self.split}-{index}", 0, stride)

    def read(self, index: int, num_frames: int, offset: float = 0.0, stride: int = 1) -> Sample:
        """Draw a clip from its first frame on, whatever the offset."""
        if not 0 <= index < self.num_clips:
            raise IndexError(f"index is {index}, but the collection has clips 0 to {len(self) - 1}")
        key = self.seed, get_args(Split).index(self.split), index
        clip = np.repeat(self.draw(key, num_frames, stride)[..., None], 3, axis=-1)
        return Sample(torch.from_numpy(clip), "", self.place(index, num_frames, 0.0, stride))


class Digits(DrawnDigits):
    """Clips of two digits, each in straight lines at constant speed, reflected by the walls.

    Where the digits cross, the brighter pixel is seen. There are no captions.

    Args:
        num_clips: How many clips the collection has.
        split: Which pictures of digits: `train` or `val`, which have none in common.
        size: Height and width of the frames, from 16.
        seed: Another seed is another collection.
    """

    def __init__(
        self, num_clips: int = 20000, split: Split = "train", *, size: int = 64, seed: int = 0
    ) -> None:
        super().__init__(num_clips, split, seed)
        if size < 16:
            raise ValueError(f"size is {size}, but must be at least 16; raise it")
        self.size = size
        self.pictures = enlarged(load_digits(split), round(_SIDE * size))

    def draw(
        self, key: tuple[int, ...], num_frames: int, stride: int
    ) -> UInt8[np.ndarray, "T H W"]:
        rng = np.random.default_rng(key)
        frames = np.zeros((num_frames, self.size, self.size), dtype=np.uint8)
        for chosen in rng.integers(len(self.pictures), size=2):
            _draw(frames, self.pictures[chosen], stride, rng)
        return frames


def _draw(
    frames: UInt8[np.ndarray, "T H W"],
    digit: UInt8[np.ndarray, "h w"],
    stride: int,
    rng: np.random.Generator,
) -> None:
    """Put a digit into every frame, along a line drawn at random."""
    size, side = frames.shape[1], len(digit)
    angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(*_SPEED) * size
    step = speed * np.array([np.sin(angle), np.cos(angle)])
    times = stride * np.arange(len(frames))[:, None]
    corners = reflected(rng.uniform(0, size - side, 2) + times * step, size - side)
    for frame, (top, left) in zip(frames, np.round(corners).astype(int), strict=True):
        window = frame[top : top + side, left : left + side]
        np.maximum(window, digit, out=window)


def reflected(straight: Float[np.ndarray, "T 2"], room: int) -> Float[np.ndarray, "T 2"]:
    """Fold a straight line at 0 and `room`."""
    return room - np.abs(straight % (2 * room) - room)


def load_digits(split: Split) -> UInt8[np.ndarray, "N 8 8"]:
    """Return scikit-learn's digits of a split, from 0 to 16.

    Raises:
        ValueError: scikit-learn is not installed.
    """
    try:
        from sklearn import datasets  # it takes a second, which only this data set should cost
    except ImportError as error:
        raise ValueError("moving digits need scikit-learn; pip install scikit-learn") from error
    values = np.asarray(datasets.load_digits(return_X_y=True)[0])
    part = slice(0, _TRAINING_PICTURES) if split == "train" else slice(_TRAINING_PICTURES, None)
    return rearrange(values[part], "N (h w) -> N h w", h=8).astype(np.uint8)


def enlarged(digits: UInt8[np.ndarray, "N 8 8"], side: int) -> UInt8[np.ndarray, "N h w"]:
    """Interpolate bilinearly, and spread 0 to 16 over 0 to 255."""
    places = np.clip((np.arange(side) + 0.5) * 8 / side - 0.5, 0, 7)
    weights = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(8)))
    large = np.einsum("ai,nij,bj->nab", weights, digits, weights)
    return np.round(large * 255 / 16).astype(np.uint8)
