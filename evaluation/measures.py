"""The figures of a protocol: what is read off each clip, and how clips make a number.

A row function gives numbers for each clip; a figure is a function of all rows and of how often each
clip counts, so that one bootstrap serves all of them.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from evaluation.bootstrap import weighted_mean
from evaluation.motion import FLOW, flow_of, is_dynamic, warping
from evaluation.perception import PerceptualDistance, consistency, pixel_features
from evaluation.pixel import (
    frame_absolute_error,
    frame_change,
    frame_mse,
    frame_squared_error,
    frame_ssim,
    psnr,
)

Clips = UInt8[Tensor, "B T H W 3"]
Rows = Callable[[Clips, Clips, list[str]], Float64[Tensor, "B K"]]
"""From clips, their truth and captions to some numbers a clip."""


@runtime_checkable
class TextEncoder(Protocol):
    """`evaluation.clip.CLIPFeatures`, which this file does not import: it needs transformers."""

    extractor_id: str

    def frames(self, clip: Clips) -> Float[Tensor, "B T D"]: ...

    def similarity(self, clip: Clips, captions: list[str]) -> Float64[Tensor, "B T"]: ...


class Figure(NamedTuple):
    """A number made of rows.

    `of_clip` turns a clip's numbers into its score, `of_mean` the mean over clips into the figure;
    `curve` says whether the row is one number a frame, `paired` whether it compares a clip with its
    truth: only then has the best of several samples a meaning.
    """

    name: str
    rows: str
    higher_is_better: bool
    of_clip: Callable[[Tensor], Tensor] = lambda rows: rows.mean(-1)
    of_mean: Callable[[Tensor], Tensor] = lambda mean: mean
    curve: Callable[[Tensor], Tensor] | None = None
    paired: bool = False

    def scores(self, rows: Float64[Tensor, "N S K"], best: bool) -> Float64[Tensor, " N"]:
        """Return one number a clip: that of its best sample, or the mean over samples."""
        return self.of_clip(self._chosen(rows, best)).mean(1)

    def value(
        self, rows: Float64[Tensor, "N S K"], weights: Float64[Tensor, " N"], best: bool
    ) -> Float64[Tensor, ""]:
        """Return the figure where each clip counts as often as its weight says."""
        return self.of_mean(weighted_mean(self.scores(rows, best), weights))

    def frames(
        self, rows: Float64[Tensor, "N S K"], weights: Float64[Tensor, " N"], best: bool
    ) -> Float64[Tensor, " K"]:
        """Return the figure of each predicted frame."""
        assert self.curve is not None
        return weighted_mean(self.curve(self._chosen(rows, best)).mean(1), weights)

    def _chosen(self, rows: Tensor, best: bool) -> Tensor:
        if not (best and self.paired):
            return rows
        quality = self.of_mean(self.of_clip(rows)) * (1 if self.higher_is_better else -1)
        return rows[torch.arange(len(rows)), quality.argmax(1)][:, None]


def _same(rows: Tensor) -> Tensor:
    return rows


PAIRED = [
    Figure("psnr_frame", "mse", True, lambda x: psnr(x).mean(-1), curve=psnr, paired=True),
    Figure("psnr_clip", "mse", True, lambda x: psnr(x.mean(-1)), paired=True),
    Figure("psnr_pooled", "mse", True, of_mean=psnr, paired=True),
    Figure("ssim", "ssim", True, curve=_same, paired=True),
]
"""Figures of a clip beside its truth; only predicted frames count."""

MOVING_MNIST = [
    Figure("mse_sum", "squared_error", False, curve=_same, paired=True),
    Figure("mae_sum", "absolute_error", False, paired=True),
]

ALONE = [
    Figure("flicker", "flicker", True),
    Figure("consistency_pixel", "consistency_pixel", True),
    Figure(f"dynamic_degree_{FLOW}", "motion", True, lambda rows: rows[..., 0]),
    Figure(f"warping_error_{FLOW}", "motion", False, lambda rows: rows[..., 1]),
]
"""Figures of a clip by itself."""


class TokenFacts(NamedTuple):
    """What turns bits into rates: frames a latent frame, tokens a latent frame, pixels a side."""

    stride: int
    tokens_per_latent: int
    size: int


class Measures:
    """Which rows are read and which figures are made of them.

    Args:
        grey: Whether the Moving-MNIST errors are wanted.
        paired: Whether clips have a truth.
        context_frames: Frames that are given and not compared.
        fps: Of the clips, for the dynamic degree.
        lpips: A perceptual distance, or None.
        clip: A text and picture encoder, or None.
        captions: Whether clips have captions.
        token_facts: Of the model, or None where only clips are measured.
    """

    def __init__(
        self,
        *,
        grey: bool,
        paired: bool,
        context_frames: int = 0,
        fps: float = 8.0,
        lpips: PerceptualDistance | None = None,
        clip: TextEncoder | None = None,
        captions: bool = False,
        token_facts: TokenFacts | None = None,
    ) -> None:
        self.first, self.token_facts, self.fps = context_frames, token_facts, fps
        self.rows: dict[str, Rows] = {}
        self.figures: list[Figure] = []
        if paired:
            self._add(PAIRED, mse=frame_mse, ssim=frame_ssim)
            if grey:
                self._add(
                    MOVING_MNIST,
                    squared_error=frame_squared_error,
                    absolute_error=frame_absolute_error,
                )
            if lpips is not None:
                figure = Figure(lpips.name, "lpips", False, curve=_same, paired=True)
                self._add([figure], lpips=lpips)
        self.alone: dict[str, Rows] = {
            "flicker": lambda x, y, c: 1 - frame_change(x) / 255,
            "consistency_pixel": lambda x, y, c: consistency(pixel_features(x)),
            "motion": lambda x, y, c: torch.stack([_motion(clip, fps) for clip in x]),
        }
        self.figures += ALONE
        if clip is not None:
            self.alone["consistency"] = lambda x, y, c: consistency(clip.frames(x))
            name = f"consistency_{clip.extractor_id}"
            self.figures.append(Figure(name, "consistency", True))
            if captions:
                self.alone["text"] = lambda x, y, c: clip.similarity(x, c)
                self.figures.append(Figure(f"clipsim_{clip.extractor_id}", "text", True))

    def _add(self, figures: list[Figure], **pairs: Callable[[Clips, Clips], Tensor]) -> None:
        self.rows |= {name: self._predicted(pair) for name, pair in pairs.items()}
        self.figures += figures

    def _predicted(self, pair: Callable[[Clips, Clips], Tensor]) -> Rows:
        return lambda x, y, c: pair(x[:, self.first :], y[:, self.first :])

    def read(
        self, prediction: Clips, target: Clips, captions: list[str]
    ) -> dict[str, Float64[Tensor, "B _"]]:
        """Read all rows off a batch of clips."""
        found = {name: rows(prediction, target, captions) for name, rows in self.rows.items()}
        return found | self.read_alone(prediction, captions)

    def read_alone(self, clips: Clips, captions: list[str]) -> dict[str, Float64[Tensor, "B _"]]:
        """Read what needs no truth: from the last frame given on, so that the joint counts."""
        seen = clips[:, max(0, self.first - 1) :]
        return {name: rows(seen, seen, captions).double() for name, rows in self.alone.items()}


def _motion(clip: UInt8[Tensor, "T H W 3"], fps: float) -> Float64[Tensor, " 2"]:
    """Return whether a clip moves, and its warping error."""
    flow = flow_of(clip)
    error = float(warping(clip, flow).error.mean())
    return torch.tensor([float(is_dynamic(flow, fps)), error], dtype=torch.float64)
