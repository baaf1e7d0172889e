"""PSNR, SSIM and flicker against scikit-image and closed forms."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.image import PeakSignalNoiseRatio

from evaluation.pixel import (
    AbsoluteError,
    ClipPSNR,
    FramePSNR,
    FrameSSIM,
    PooledPSNR,
    SquaredError,
    TemporalFlicker,
)


def random_clips(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (*shape, 3), generator=generator).to(torch.uint8)


@pytest.fixture
def pair():
    """Two clips of three frames and what a mediocre model makes of them."""
    coarse = random_clips(2, 3, 5, 6)
    truth = coarse.repeat_interleave(5, 2).repeat_interleave(5, 3)
    return truth // 2 + random_clips(*truth.shape[:-1], seed=1) // 2, truth


def per_frame(pair, score):
    prediction, truth = (clips.numpy() for clips in pair)
    return np.mean(
        [
            [score(x, y) for x, y in zip(clip, other, strict=True)]
            for clip, other in zip(prediction, truth, strict=True)
        ]
    )


def value(metric, *batches):
    for batch in batches:
        metric.update(*batch)
    return metric.compute().item()


def test_psnr_is_scikit_images_mean_over_frames(pair):
    expected = per_frame(pair, lambda x, y: peak_signal_noise_ratio(y, x))
    assert value(FramePSNR(), pair) == pytest.approx(expected, abs=1e-9)


def test_identical_frames_count_100_decibels():
    clips = random_clips(1, 2, 12, 12)
    assert value(FramePSNR(), (clips, clips)) == 100
    other = clips.clone()
    other[:, 1] = 255 - other[:, 1]
    second = peak_signal_noise_ratio(clips[0, 1].numpy(), other[0, 1].numpy())
    assert value(FramePSNR(), (other, clips)) == pytest.approx((100 + second) / 2)


def test_masked_psnr_pools_the_masked_pixels_of_a_clip(pair):
    prediction, truth = pair
    mask = torch.rand(truth.shape[:-1], generator=torch.Generator().manual_seed(2)) < 0.3
    expected = [
        peak_signal_noise_ratio(y[where].numpy(), x[where].numpy())
        for x, y, where in zip(prediction, truth, mask, strict=True)
    ]
    assert value(FramePSNR(), (prediction, truth, mask)) == pytest.approx(np.mean(expected))
    mask[1] = False
    with pytest.raises(ValueError, match="mask leaves a clip without a pixel"):
        FramePSNR().update(prediction, truth, mask)


def test_ssim_is_scikit_images_inside_the_border(pair):
    def score(x, y):
        _, similarity = structural_similarity(
            x,
            y,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
            full=True,
        )
        return similarity[5:-5, 5:-5].mean()

    assert value(FrameSSIM(), pair) == pytest.approx(per_frame(pair, score), abs=1e-9)


def test_ssim_of_a_clip_with_itself_is_one(pair):
    assert value(FrameSSIM(), (pair[1], pair[1])) == pytest.approx(1)
    with pytest.raises(ValueError, match="10x30"):
        FrameSSIM().update(pair[0][:, :, :10], pair[1][:, :, :10])


def test_flicker_follows_vbenchs_formula(pair):
    frames = pair[0].numpy().astype(np.float64)
    changes = [np.mean([np.abs(a - b).mean() for a, b in pairwise(clip)]) for clip in frames]
    expected = np.mean([(255 - change) / 255 for change in changes])
    assert value(TemporalFlicker(), (pair[0],)) == pytest.approx(expected)
    assert value(TemporalFlicker(), (pair[0][:, :1].repeat(1, 4, 1, 1, 1),)) == 1
    with pytest.raises(ValueError, match="1 frame, but flicker needs at least 2"):
        TemporalFlicker().update(pair[0][:, :1])


@pytest.mark.parametrize("metric", [FramePSNR, FrameSSIM])
def test_batching_and_order_do_not_matter(pair, metric):
    singly = [tuple(clips[k : k + 1] for clips in pair) for k in (1, 0)]
    assert value(metric(), *singly) == pytest.approx(value(metric(), pair), rel=1e-12)


def test_the_three_conventions_of_psnr_are_three_numbers(pair):
    prediction, truth = (clips.numpy() for clips in pair)
    pooled = peak_signal_noise_ratio(truth, prediction)
    clipwise = [peak_signal_noise_ratio(y, x) for x, y in zip(prediction, truth, strict=True)]
    assert value(PooledPSNR(), pair) == pytest.approx(pooled)
    assert value(ClipPSNR(), pair) == pytest.approx(np.mean(clipwise))
    assert value(PooledPSNR(), pair) < value(ClipPSNR(), pair) < value(FramePSNR(), pair)


def test_pooled_and_framewise_psnr_are_torchmetrics(pair):
    prediction, truth = (clips.double().div(255).flatten(0, 1) for clips in pair)
    for ours, dim in ((PooledPSNR(), None), (FramePSNR(), (1, 2, 3))):
        oracle = PeakSignalNoiseRatio(data_range=1.0, dim=dim).set_dtype(torch.float64)
        assert value(ours, pair) == pytest.approx(oracle(prediction, truth).item(), abs=1e-6)


def test_moving_mnist_errors_are_summed_over_the_pixels_of_one_channel(pair):
    grey = [clips[..., :1].repeat(1, 1, 1, 1, 3) for clips in pair]
    x, y = (clip[..., 0].numpy() / 255.0 for clip in grey)
    # OpenSTL: mean over batch and frames, then the sum over the rest.
    assert value(SquaredError(), grey) == pytest.approx(np.mean((x - y) ** 2, axis=(0, 1)).sum())
    assert value(AbsoluteError(), grey) == pytest.approx(np.mean(np.abs(x - y), axis=(0, 1)).sum())
