"""Stochastic moving MNIST: two digits that leave every wall in a direction drawn at random.

Denton and Fergus 2018 (SVG, arXiv 1802.07687), as MCVD (arXiv 2205.09853) takes it over. Every clip
is a pure function of (seed, split, index), so nothing is stored but MNIST itself.
"""

import gzip
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from data.container import VideoError
from data.digits import DrawnDigits, Split

FILES: dict[str, str] = {"train": "train-images*ubyte*", "val": "t10k-images*ubyte*"}
SIDE, DIGIT, SPEED = 64, 32, 4  # of a frame and of a digit in pixels; fastest, in pixels a frame
_ROOM = SIDE - DIGIT
_IMAGES = 0x0803  # what a file of bytes on three axes begins with


class StochasticMNIST(DrawnDigits):
    """Clips of 64 x 64 pixels of two digits of 32; where they cross their brightness adds up.

    Args:
        path: Folder that MNIST's files lie in or below: train-images-idx3-ubyte, t10k-..., as they
            are or with .gz.
        split: `train` or `val`: MNIST's training digits or its test digits.
        num_clips: How many clips the collection has.
        seed: Another seed is another collection.
    """

    def __init__(
        self, path: str | Path, split: Split = "train", num_clips: int = 20000, seed: int = 0
    ) -> None:
        super().__init__(num_clips, split, seed)
        files = sorted(Path(path).rglob(FILES[split]))
        if not files:
            raise VideoError(f"{path} holds no {FILES[split]}; give the folder of MNIST's files")
        self.pictures = read_images(files[0])

    def draw(
        self, key: tuple[int, ...], num_frames: int, stride: int
    ) -> UInt8[np.ndarray, "T H W"]:
        # A stream of numbers for each digit: a short clip begins the long one.
        frames = np.zeros((num_frames, SIDE, SIDE), dtype=np.uint16)
        for number in range(2):
            rng = np.random.default_rng((*key, number))
            digit = _enlarged(self.pictures[rng.integers(len(self.pictures))])
            corners = walk(1 + stride * (num_frames - 1), rng)[::stride]
            for frame, (top, left) in zip(frames, corners, strict=True):
                frame[top : top + DIGIT, left : left + DIGIT] += digit
        return frames.clip(max=255).astype(np.uint8)


def walk(num_frames: int, rng: np.random.Generator) -> Int[np.ndarray, "T 2"]:
    """Return the corner of a digit in each frame.

    It moves by whole pixels. Once it is beyond a wall it is set on that wall and gets a new step,
    of 1 to 4 pixels away from it and of -4 to 4 along it.
    """
    place, step = rng.integers(_ROOM, size=2), rng.integers(-SPEED, SPEED + 1, size=2)
    corners = np.empty((num_frames, 2), dtype=np.int64)
    for corner in corners:
        for axis in (0, 1):
            if not 0 <= place[axis] < _ROOM:
                inward = 1 if place[axis] < 0 else -1
                place[axis] = 0 if inward > 0 else _ROOM - 1
                step = rng.integers(-SPEED, SPEED + 1, size=2)
                step[axis] = inward * rng.integers(1, SPEED + 1)
        corner[:] = place
        place = place + step
    return corners


def read_images(path: Path) -> UInt8[np.ndarray, "N h w"]:
    """Read a file of pictures in MNIST's format (LeCun et al. 1998), packed by gzip or not.

    Raises:
        VideoError: It is none, or is cut off.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise VideoError(f"{path} cannot be unpacked ({error}); get it again") from error
    if len(content) < 16 or int.from_bytes(content[:4]) != _IMAGES:
        raise VideoError(f"{path} is no file of pictures as MNIST has them; get it again")
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", 3, 4))
    if len(content) != 16 + np.prod(shape) or not np.prod(shape):
        raise VideoError(f"{path} says it holds {shape} bytes, but has {len(content) - 16}")
    return np.frombuffer(content, np.uint8, offset=16).reshape(shape)


def _enlarged(picture: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "32 32"]:
    return np.asarray(Image.fromarray(picture).resize((DIGIT, DIGIT), Image.Resampling.BILINEAR))
