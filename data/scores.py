"""What can be measured about a clip without any model: cuts, motion, light, sharpness, sameness."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from data.resizing import resize_and_crop

_SIDE = 64
_BINS = 32
_SOFTEN = np.array([0.25, 0.5, 0.25])  # a level that crosses the edge of a bin is no change
_LEAST, _RATIO, _AROUND, _NEXT_RATIO = 0.1, 4.0, 8, 1.5
_HASH_BANDS, _HASH_BITS = 4, 64


class Scores(NamedTuple):
    """The scores of one clip.

    `cuts` counts shot boundaries; `motion` is the mean change of a pixel from frame to frame,
    `brightness` the mean and `contrast` the deviation of luma, all in levels of 0 to 255;
    `sharpness` is the variance of the Laplacian of the middle frame; `hash` its difference hash.
    """

    cuts: int
    motion: float
    brightness: float
    contrast: float
    sharpness: float
    hash: str


class Basics:
    """What data.curate measures of every clip."""

    names = Scores._fields

    def __call__(
        self, clip: UInt8[Tensor, "T H W 3"], captions: Sequence[str]
    ) -> dict[str, int | float | str]:
        return score(clip)._asdict()


def score(clip: UInt8[Tensor, "T H W 3"]) -> Scores:
    """Measure a clip, at 64 x 64 pixels."""
    frames = resize_and_crop(clip, _SIDE).numpy()
    gray = _luma(frames)
    middle = gray[len(gray) // 2]
    motion = np.abs(np.diff(gray, axis=0)).mean() if len(gray) > 1 else 0.0
    return Scores(
        len(shot_cuts(torch.from_numpy(frames))),
        round(float(motion), 4),
        round(float(gray.mean()), 4),
        round(float(gray.std()), 4),
        round(float(_laplacian(middle).var()), 4),
        difference_hash(middle),
    )


def shot_cuts(clip: UInt8[Tensor, "T H W 3"]) -> list[int]:
    """Return the first frame of every shot but the first.

    A cut changes the histogram of luma and chroma by much, by far more than the usual change around
    it, and more than the frames before and after do; a pan, a flicker or a dissolve is one change
    of many alike. At the end of a fade all levels fall together into one bin, so that its last step
    is large in the histogram alone; beside a flat frame, how far levels move has to stand out too.
    """
    channels = _channels(clip.numpy())
    changes, moves = _histogram_changes(channels), _level_moves(channels)
    flat = channels[0].std(axis=1) < 256 / _BINS
    cuts = []
    for k, change in enumerate(changes):
        around = np.concatenate(
            [changes[max(0, k - _AROUND) : k], changes[k + 1 : k + 1 + _AROUND]]
        )
        usual = float(np.median(around)) if len(around) else 0.0
        far = change > max(_LEAST, _RATIO * usual)
        told = [changes, moves] if flat[k : k + 2].any() else [changes]
        if far and all(_stands_out(values, k) for values in told):
            cuts.append(k + 1)
    return cuts


def _stands_out(values: Float[np.ndarray, " N"], k: int) -> bool:
    """Say whether a value is larger than those beside it by the ratio of a cut."""
    beside = max([*values[max(0, k - 1) : k], *values[k + 1 : k + 2]], default=0.0)
    return bool(values[k] > _NEXT_RATIO * beside)


def _channels(frames: UInt8[np.ndarray, "T H W 3"]) -> Float[np.ndarray, "3 T P"]:
    """Luma and the two chroma differences of every pixel, 0 to 255."""
    luma = _luma(frames)
    blue, red = (frames[..., 2] - luma) * 0.564 + 128, (frames[..., 0] - luma) * 0.713 + 128
    return np.stack([luma, blue, red]).reshape(3, len(frames), -1)


def _histogram_changes(channels: Float[np.ndarray, "3 T P"]) -> Float[np.ndarray, " T_minus_1"]:
    """Share of pixels that change their bin from frame to frame, mean of the three channels."""
    bins = np.clip(channels * (_BINS / 256), 0, _BINS - 1).astype(np.int64)
    counts = np.array([[np.bincount(row, minlength=_BINS) for row in one] for one in bins])
    shares = counts / bins.shape[-1]
    soft = np.array([[np.convolve(row, _SOFTEN, "same") for row in one] for one in shares])
    return np.abs(np.diff(soft, axis=1)).sum(-1).mean(0) / 2


def _level_moves(channels: Float[np.ndarray, "3 T P"]) -> Float[np.ndarray, " T_minus_1"]:
    """How far levels move from frame to frame, wherever in the picture (Wasserstein distance)."""
    return np.abs(np.diff(np.sort(channels, axis=-1), axis=1)).mean((0, 2))


def _luma(frames: UInt8[np.ndarray, "T H W 3"]) -> Float[np.ndarray, "T H W"]:
    return frames.astype(np.float64) @ np.array([0.299, 0.587, 0.114])


def _laplacian(picture: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "h w"]:
    inner = picture[1:-1, 1:-1]
    return (
        picture[:-2, 1:-1] + picture[2:, 1:-1] + picture[1:-1, :-2] + picture[1:-1, 2:] - 4 * inner
    )


def difference_hash(picture: Float[np.ndarray, "H W"]) -> str:
    """Say, on a grid of 8 x 9 means, where a picture gets brighter to the right: 64 bits in hex."""
    rows = np.array_split(picture, 8, axis=0)
    means = np.array([[cell.mean() for cell in np.array_split(row, 9, axis=1)] for row in rows])
    bits = (means[:, 1:] > means[:, :-1]).flatten()
    return f"{int(''.join('01'[int(bit)] for bit in bits), 2):016x}"


def duplicates(hashes: list[str], distance: int = 3) -> list[bool]:
    """Say of each hash whether an earlier one, no duplicate itself, is within `distance` bits.

    Two hashes at most 3 bits apart agree in one of four bands, so that only those are compared.
    """
    if not 0 <= distance < _HASH_BANDS:
        raise ValueError(f"distance is {distance}, but must be 0 to {_HASH_BANDS - 1}")
    width = _HASH_BITS // _HASH_BANDS
    seen: dict[tuple[int, int], list[int]] = {}
    answers = []
    for value in (int(text, 16) for text in hashes):
        bands = [(k, value >> (k * width) & (2**width - 1)) for k in range(_HASH_BANDS)]
        near = (other for band in bands for other in seen.get(band, []))
        answers.append(any((value ^ other).bit_count() <= distance for other in near))
        if not answers[-1]:
            for band in bands:
                seen.setdefault(band, []).append(value)
    return answers
