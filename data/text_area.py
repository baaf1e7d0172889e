"""How much of a clip is writing: --scorer data.text_area.TextArea (pip install 'reelm[text]')."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor


class TextArea:
    """The largest share of a frame that lines of writing cover, found by RapidOCR's detector.

    The first, the middle and the last frame are looked at. The models come with the package.
    """

    names = ("text_area",)

    def __init__(self) -> None:
        try:
            engine = import_module("rapidocr").RapidOCR
        except ImportError as error:
            raise ValueError(
                "the area of text needs RapidOCR; pip install 'reelm[text]'"
            ) from error
        self.detect: Any = engine(params={"Global.log_level": "error"})

    def __call__(self, clip: UInt8[Tensor, "T H W 3"], captions: Sequence[str]) -> dict[str, float]:
        chosen = clip[[0, len(clip) // 2, -1]].numpy()
        return {"text_area": max(self._share(frame) for frame in chosen)}

    def _share(self, frame: UInt8[np.ndarray, "H W 3"]) -> float:
        found = self.detect(frame[..., ::-1], use_det=True, use_cls=False, use_rec=False)
        boxes = [] if found.boxes is None else found.boxes
        covered = sum(polygon_area(np.asarray(box, dtype=np.float64)) for box in boxes)
        return round(min(1.0, covered / (frame.shape[0] * frame.shape[1])), 4)


def polygon_area(corners: Float[np.ndarray, "N 2"]) -> float:
    """Return the area inside corners that are given in order (shoelace formula)."""
    x, y = corners.T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)
