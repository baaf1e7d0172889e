"""Metrics of frames, on uint8 clips: PSNR, SSIM, squared and absolute error, flicker.

Each equation is a function that gives one number a frame; the metrics are their means. PSNR and
SSIM are taken per frame on [0, 1], averaged over frames, then over clips: the usage of MAGVIT, TECO
and FitVid. `PooledPSNR` and `ClipPSNR` are the other two conventions, under their own names.
SSIM: Wang et al. 2004. Flicker: VBench, Huang et al. 2023, arXiv 2311.17982. Moving-MNIST errors:
OpenSTL, Tan et al. 2023, arXiv 2306.11249.
"""

import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Float64, UInt8
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

Clips = UInt8[Tensor, "B T H W 3"]
PerFrame = Float64[Tensor, "B T"]
MAX_PSNR = 100.0  # decibels given to identical pictures, whose PSNR is infinite
SSIM_WINDOW = 11  # pixels each way, without which it has no value


def frame_mse(prediction: Clips, target: Clips) -> PerFrame:
    """Return the mean squared error of each frame on [0, 1]."""
    error = (prediction.double() - target.double()).div(255).square()
    return reduce(error, "B T H W C -> B T", "mean")


def frame_psnr(prediction: Clips, target: Clips) -> PerFrame:
    """Return the PSNR of each frame in decibels, at most 100."""
    return psnr(frame_mse(prediction, target))


def psnr(error: Float64[Tensor, "*B"]) -> Float64[Tensor, "*B"]:
    """Turn mean squared errors on [0, 1] into decibels, at most 100."""
    return (-10 * error.log10()).clamp(max=MAX_PSNR)


def frame_ssim(prediction: Clips, target: Clips) -> PerFrame:
    """Return the SSIM of each frame, with an 11x11 Gaussian window of deviation 1.5.

    The window stays inside the picture and covers each colour channel alone, as in tf.image.ssim
    and in scikit-image with its border cropped; torchmetrics averages over a padded border too.
    """
    height, width = target.shape[2:4]
    if min(height, width) < SSIM_WINDOW:
        raise ValueError(
            f"target is {height}x{width}, but the {SSIM_WINDOW}x{SSIM_WINDOW} window needs at "
            f"least {SSIM_WINDOW} pixels each way; compare larger pictures"
        )
    pairs = zip(prediction, target, strict=True)
    return torch.stack([_ssim(clip, truth) for clip, truth in pairs])  # one clip's memory at a time


def frame_squared_error(prediction: Clips, target: Clips) -> PerFrame:
    """Return squared errors on [0, 1] summed over a frame of one channel: OpenSTL's MSE.

    A grey picture stands in all three channels here and counts once.
    """
    return frame_mse(prediction, target) * target[0, 0, ..., 0].numel()


def frame_absolute_error(prediction: Clips, target: Clips) -> PerFrame:
    """Return absolute errors on [0, 1] summed over a frame of one channel: OpenSTL's MAE."""
    error = (prediction.double() - target.double()).div(255).abs()
    return reduce(error, "B T H W C -> B T", "mean") * target[0, 0, ..., 0].numel()


def frame_change(clip: Clips) -> Float64[Tensor, "B S"]:
    """Return the mean absolute difference of each frame to the one before it, in levels of 255."""
    if clip.shape[1] < 2:
        raise ValueError(f"clip has {clip.shape[1]} frame, but flicker needs at least 2")
    return reduce(clip.double().diff(dim=1).abs(), "B S H W C -> B S", "mean")


class _ClipMean(Metric):
    """The mean of one float64 score a clip; the parts below say how the score is made."""

    full_state_update = False
    higher_is_better = True
    total: Tensor
    num_clips: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("num_clips", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def add(self, scores: Float64[Tensor, " B"]) -> None:
        self.total += scores.sum()
        self.num_clips += len(scores)

    def compute(self) -> Float64[Tensor, ""]:
        return self.total / self.num_clips


class FramePSNR(_ClipMean):
    """Peak signal-to-noise ratio in decibels, clamped at 100 where pictures are identical."""

    def update(
        self, prediction: Clips, target: Clips, mask: Bool[Tensor, "B T H W"] | None = None
    ) -> None:
        """Score clips; with a mask, one PSNR a clip over all pixels where it is True."""
        if mask is None:
            self.add(frame_psnr(prediction, target).mean(1))
            return
        error = (prediction.double() - target.double()).div(255).square()
        num_pixels = reduce(mask.double(), "B T H W -> B", "sum")
        if (num_pixels == 0).any():
            raise ValueError("mask leaves a clip without a pixel; give such clips no mask")
        error = reduce(error.mean(-1) * mask, "B T H W -> B", "sum") / num_pixels
        self.add(psnr(error))


class ClipPSNR(_ClipMean):
    """One PSNR a clip from the error over all its frames, averaged over clips: TokenBench's."""

    def update(self, prediction: Clips, target: Clips) -> None:
        self.add(psnr(frame_mse(prediction, target).mean(1)))


class PooledPSNR(_ClipMean):
    """One PSNR from the error over everything: the lowest of the three conventions."""

    def update(self, prediction: Clips, target: Clips) -> None:
        self.add(frame_mse(prediction, target).mean(1))

    def compute(self) -> Float64[Tensor, ""]:
        return psnr(super().compute())


class FrameSSIM(_ClipMean):
    """Structural similarity as `frame_ssim` defines it."""

    def update(self, prediction: Clips, target: Clips) -> None:
        self.add(frame_ssim(prediction, target).mean(1))


class SquaredError(_ClipMean):
    """Moving-MNIST's MSE: summed over the pixels, averaged over frames and clips."""

    higher_is_better = False

    def update(self, prediction: Clips, target: Clips) -> None:
        self.add(frame_squared_error(prediction, target).mean(1))


class AbsoluteError(_ClipMean):
    """Moving-MNIST's MAE: summed over the pixels, averaged over frames and clips."""

    higher_is_better = False

    def update(self, prediction: Clips, target: Clips) -> None:
        self.add(frame_absolute_error(prediction, target).mean(1))


class TemporalFlicker(_ClipMean):
    """VBench's temporal flickering, 1 for a still clip: (255 - mean |f_t - f_t+1|) / 255."""

    def update(self, clip: Clips) -> None:
        self.add(1 - frame_change(clip).mean(1) / 255)


def _ssim(clip: UInt8[Tensor, "T H W 3"], truth: UInt8[Tensor, "T H W 3"]) -> Float64[Tensor, " T"]:
    x, y = (rearrange(z, "T H W C -> (T C) 1 H W").double() / 255 for z in (clip, truth))
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)  # Eq. 13
    similarity = similarity / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return reduce(similarity, "(T C) 1 H W -> T", "mean", C=3)


def _blur(pictures: Float64[Tensor, "N 1 H W"]) -> Float64[Tensor, "N 1 h w"]:
    steps = torch.arange(-5, 6, dtype=torch.float64, device=pictures.device)
    window = torch.exp(-0.5 * (steps / 1.5) ** 2)
    window = window / window.sum()
    pictures = F.conv2d(pictures, rearrange(window, "k -> 1 1 k 1"))
    return F.conv2d(pictures, rearrange(window, "k -> 1 1 1 k"))
