"""Do the metrics give here what other people's code and published examples give?"""

import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import UInt8
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torchmetrics.image import PeakSignalNoiseRatio
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from evaluation.extractors import GOLDEN_DISTANCE, GOLDEN_TOLERANCE, I3DFeatures
from evaluation.frechet import FrechetVideoDistance, RandomFeatures3D
from evaluation.inception_score import VideoInceptionScore
from evaluation.kernel import KernelVideoDistance
from evaluation.pixel import FramePSNR, FrameSSIM, PooledPSNR, TemporalFlicker

_ORACLE = 1e-6  # relative


class Check(NamedTuple):
    """What we get, what is right, and how near it must be."""

    name: str
    ours: float
    expected: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return abs(self.ours - self.expected) <= self.tolerance


def checks(i3d: Path | None = None) -> list[Check]:
    """Compare with torchmetrics, with closed forms, and with golden values if I3D is given."""
    generator = torch.Generator().manual_seed(0)
    shape = (24, 9, 16, 16, 3)
    real = torch.randint(256, shape, generator=generator).byte()
    fake = torch.randint(180, shape, generator=generator).byte()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torchmetrics, about memory and single splits
        found = [*_sets(real, fake), *_pixels(real, fake)]
    return found + (_golden(i3d) if i3d is not None else [])


def self_test(console: Console, i3d: Path | None = None) -> int:
    """Print every check; return 0 if all pass, 1 if not."""
    table = Table("check", "ours", "expected", "")
    found = checks(i3d)
    for check in found:
        mark = "pass" if check.passed else "MISS"
        table.add_row(check.name, f"{check.ours:.8g}", f"{check.expected:.8g}", mark)
    console.print(table)
    if i3d is None:
        console.print("No --i3d file: the golden values of FVD were not checked.")
    return 0 if all(check.passed for check in found) else 1


def _sets(real: UInt8[Tensor, "B T H W 3"], fake: UInt8[Tensor, "B T H W 3"]) -> list[Check]:
    extractor = RandomFeatures3D(num_features=8)
    frechet, kernel = FrechetVideoDistance(extractor), KernelVideoDistance(extractor)
    fid = FrechetInceptionDistance(feature=_Plain(extractor)).set_dtype(torch.float64)
    kid = KernelInceptionDistance(feature=_Plain(extractor), subsets=1, subset_size=len(real))
    for metric in (frechet, kernel, fid, kid):
        metric.update(real, real=True)
        metric.update(fake, real=False)
    score, oracle = VideoInceptionScore(extractor), InceptionScore(_Plain(extractor), splits=1)
    score.update(fake)
    oracle.update(fake)
    return [
        _near("Frechet distance: torchmetrics' FID", frechet, fid.compute()),
        _near("kernel distance: torchmetrics' KID", kernel, kid.compute()[0]),
        _near("Inception score: torchmetrics'", score, oracle.compute()[0]),
    ]


class _Plain(nn.Module):
    """The extractor without its weights showing: torchmetrics would turn them to float64."""

    num_features = 8

    def __init__(self, extractor: nn.Module) -> None:
        super().__init__()
        self.describe = extractor.forward

    def forward(self, clip: Tensor) -> Tensor:
        return self.describe(clip)


def _pixels(real: UInt8[Tensor, "B T H W 3"], fake: UInt8[Tensor, "B T H W 3"]) -> list[Check]:
    frames, pooled, ssim, flicker = FramePSNR(), PooledPSNR(), FrameSSIM(), TemporalFlicker()
    for metric in (frames, pooled):
        metric.update(fake, real)
    ssim.update(real, real)
    still = real[:, :1].expand(-1, 9, -1, -1, -1)
    flicker.update(still)
    x, y = (clips.flatten(0, 1).double() / 255 for clips in (fake, real))
    by_frame = PeakSignalNoiseRatio(data_range=1.0, dim=(1, 2, 3)).set_dtype(torch.float64)
    whole = PeakSignalNoiseRatio(data_range=1.0).set_dtype(torch.float64)
    return [
        _near("PSNR per frame: torchmetrics'", frames, by_frame(x, y)),
        _near("PSNR pooled: torchmetrics'", pooled, whole(x, y)),
        Check("SSIM of a clip with itself", float(ssim.compute()), 1.0, _ORACLE),
        Check("flicker of a still clip", float(flicker.compute()), 1.0, 0.0),
    ]


def _near(name: str, metric: object, expected: Tensor) -> Check:
    value = float(expected)
    return Check(name, float(metric.compute()), value, _ORACLE * max(1.0, abs(value)))  # type: ignore[attr-defined]


def _golden(path: Path) -> list[Check]:
    """Black against white clips: common_metrics_on_video_quality's README, for i3d_torchscript."""
    extractor = I3DFeatures(path)
    found = extractor.golden_distance()
    return [Check("FVD of 30 black and white frames", found, GOLDEN_DISTANCE, GOLDEN_TOLERANCE)]
