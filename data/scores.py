"""What can be measured about a clip without any model: cuts, motion, light, sharpness, sameness."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from data.video import resize_and_crop

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

    A cut is a change of the histogram of luma and chroma that is large, far larger than the usual
    change around it and larger than the one before and after; a pan, a flicker or a dissolve is
    one of many alike. The last step of a fade to black may still be taken for a cut.
    """
    changes = _histogram_changes(clip.numpy())
    cuts = []
    for k, change in enumerate(changes):
        around = np.concatenate(
            [changes[max(0, k - _AROUND) : k], changes[k + 1 : k + 1 + _AROUND]]
        )
        usual = float(np.median(around)) if len(around) else 0.0
        beside = max([*changes[max(0, k - 1) : k], *changes[k + 1 : k + 2]], default=0.0)
        if change > max(_LEAST, _RATIO * usual, _NEXT_RATIO * beside):
            cuts.append(k + 1)
    return cuts


def _histogram_changes(frames: UInt8[np.ndarray, "T H W 3"]) -> Float[np.ndarray, " T_minus_1"]:
    """Share of pixels that change their bin from frame to frame, mean of the three channels."""
    luma = _luma(frames)
    channels = (luma, (frames[..., 2] - luma) * 0.564 + 128, (frames[..., 0] - luma) * 0.713 + 128)
    total = np.zeros(len(frames) - 1)
    for values in channels:
        bins = (
            np.clip(values * (_BINS / 256), 0, _BINS - 1).astype(np.int64).reshape(len(frames), -1)
        )
        counts = np.stack([np.bincount(row, minlength=_BINS) for row in bins]) / bins.shape[1]
        soft = np.stack([np.convolve(row, _SOFTEN, "same") for row in counts])
        total += np.abs(np.diff(soft, axis=0)).sum(1) / 2
    return total / len(channels)


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
