"""Frechet distance between feature distributions of two sets of clips.

Heusel et al. 2017, arXiv 1706.08500, Eq. 6; on video, Unterthiner et al. 2018, arXiv 1812.01717.
Only numbers from the I3D weights of the latter may be called FVD; others carry the extractor's
name.
"""

import warnings
from itertools import pairwise
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float, Float64, UInt8
from torch import Tensor, nn
from torch.nn.utils import skip_init
from torchmetrics import Metric

Covariance = Literal["unbiased", "population"]
"""Whether covariances divide by N - 1, as in the original, or by N, as in StyleGAN-V's script."""


def frechet_distance(
    mean1: Float64[Tensor, " D"],
    cov1: Float64[Tensor, "D D"],
    mean2: Float64[Tensor, " D"],
    cov2: Float64[Tensor, "D D"],
) -> Float64[Tensor, ""]:
    """Compare two Gaussians: |mean1 - mean2|^2 + tr(cov1 + cov2 - 2 (cov1 cov2)^(1/2))."""
    root = _symmetric_root(cov1)
    # root cov2 root has the eigenvalues of cov1 cov2, and is symmetric.
    eigenvalues = torch.linalg.eigvalsh(root @ cov2 @ root)
    trace = cov1.trace() + cov2.trace() - 2 * eigenvalues.clamp(min=0).sqrt().sum()
    return (mean1 - mean2).square().sum() + trace


def _symmetric_root(matrix: Float64[Tensor, "D D"]) -> Float64[Tensor, "D D"]:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.mT


def feature_distance(
    real: Float[Tensor, "N D"],
    fake: Float[Tensor, "M D"],
    real_weights: Float64[Tensor, " N"] | None = None,
    fake_weights: Float64[Tensor, " M"] | None = None,
    covariance: Covariance = "unbiased",
) -> Float64[Tensor, ""]:
    """Return the distance of two sets of features; a weight says how often a clip counts."""
    sides = []
    for features, weights in ((real, real_weights), (fake, fake_weights)):
        weighted = features.double()
        count = torch.tensor(len(features), device=features.device)
        if weights is not None:
            features, count = features[weights > 0], weights.sum()
            weighted = features.double() * weights[weights > 0, None]
        sides += _moments(weighted.sum(0), weighted.mT @ features.double(), count, covariance)
    return frechet_distance(*sides)


class RandomFeatures3D(nn.Module):
    """A frozen random 3D convolution network: features that need no download.

    Means and deviations of random filters tell colour, texture and motion apart well enough to
    rank a model against itself over time. The weights are a pure function of the seed.

    Args:
        seed: Draws the weights.
        num_features: How many numbers describe a clip; an even number.
    """

    def __init__(self, seed: int = 0, num_features: int = 64) -> None:
        super().__init__()
        if num_features < 2 or num_features % 2:
            raise ValueError(f"num_features is {num_features}, but must be even and at least 2")
        self.extractor_id = f"rand3d-seed{seed}"
        if num_features != 64:
            self.extractor_id += f"-{num_features}"
        self.num_features = num_features
        widths = [3, 16, 32, num_features // 2]
        self.layers = nn.ModuleList(
            skip_init(nn.Conv3d, narrow, wide, 3, stride=(1, 2, 2), padding=1)
            for narrow, wide in pairwise(widths)
        )
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            deviation = (2 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.1
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * deviation)
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, clip: UInt8[Tensor, "B T H W 3"]) -> Float[Tensor, "B D"]:
        """Describe each clip by the mean and the deviation of every last channel."""
        clip = clip.to(next(self.parameters()).device)
        states = rearrange(clip, "B T H W C -> B C T H W").float() / 127.5 - 1
        for layer in self.layers:
            states = nn.functional.leaky_relu(layer(states), 0.2)
        states = rearrange(states, "B D T H W -> B D (T H W)")
        return torch.cat([states.mean(-1), states.std(-1, correction=0)], dim=1).cpu()


def described(extractor: nn.Module, clip: UInt8[Tensor, "B T H W 3"]) -> Float64[Tensor, "B D"]:
    """Return the features of clips.

    Raises:
        ValueError: Some are not finite: one such clip would spoil the distance of all.
    """
    features = extractor(clip).double()
    if bad := (~torch.isfinite(features).all(1)).nonzero().flatten().tolist():
        raise ValueError(
            f"{extractor.extractor_id} gives features that are not finite for clips {bad} of a "
            "batch; look at these clips, and at the precision the extractor runs in"
        )
    return features


class FrechetVideoDistance(Metric):
    """Frechet distance of a set of clips to real ones, under any feature extractor.

    The distance is biased upwards for few clips: compare numbers of equal counts only. Log it under
    `name`, which is "fvd" only for an extractor that proved to be I3D (`evaluation.extractors`).

    Args:
        extractor: Maps uint8 clips to features; has `num_features` and an `extractor_id`.
        covariance: Divide covariances by N - 1 ("unbiased") or by N ("population").
    """

    full_state_update = False
    higher_is_better = False
    real_sum: Tensor
    real_outer: Tensor
    real_count: Tensor
    fake_sum: Tensor
    fake_outer: Tensor
    fake_count: Tensor

    def __init__(self, extractor: nn.Module, covariance: Covariance = "unbiased") -> None:
        super().__init__()
        for attribute in ("extractor_id", "num_features"):
            if not hasattr(extractor, attribute):
                raise ValueError(
                    f"extractor {type(extractor).__name__} has no {attribute}; give it one, so "
                    "that the number says what made it"
                )
        self.extractor = extractor
        self.num_features = int(extractor.num_features)  # type: ignore[arg-type]
        self.covariance: Covariance = covariance
        proved = getattr(extractor, "is_i3d", False)
        self.name = "fvd" if proved else f"frechet_{extractor.extractor_id}"
        features = self.num_features
        for side in ("real", "fake"):
            zeros = torch.zeros(features, dtype=torch.float64)
            self.add_state(f"{side}_sum", zeros, dist_reduce_fx="sum")
            zeros = torch.zeros(features, features, dtype=torch.float64)
            self.add_state(f"{side}_outer", zeros, dist_reduce_fx="sum")
            zeros = torch.zeros((), dtype=torch.int64)
            self.add_state(f"{side}_count", zeros, dist_reduce_fx="sum")

    @torch.no_grad()
    def update(self, clip: UInt8[Tensor, "B T H W 3"], real: bool) -> None:
        """Add clips to the real or to the generated set."""
        features = described(self.extractor, clip)
        if real:
            self.real_sum += features.sum(0)
            self.real_outer += features.mT @ features
            self.real_count += len(features)
        else:
            self.fake_sum += features.sum(0)
            self.fake_outer += features.mT @ features
            self.fake_count += len(features)

    def compute(self) -> Float64[Tensor, ""]:
        counts = int(self.real_count), int(self.fake_count)
        if min(counts) < 2:
            raise ValueError(f"there are {counts} real and fake clips; give at least 2 of each")
        if min(counts) <= self.num_features:
            warnings.warn(
                f"{self.name}: {counts} real and fake clips against {self.num_features} features "
                "leave the covariance without full rank; give more clips",
                stacklevel=2,
            )
        return frechet_distance(
            *_moments(self.real_sum, self.real_outer, self.real_count, self.covariance),
            *_moments(self.fake_sum, self.fake_outer, self.fake_count, self.covariance),
        )


def _moments(
    total: Float64[Tensor, " D"],
    outer: Float64[Tensor, "D D"],
    count: Tensor,
    covariance: Covariance,
) -> tuple[Float64[Tensor, " D"], Float64[Tensor, "D D"]]:
    mean = total / count
    freedom = count - 1 if covariance == "unbiased" else count
    return mean, (outer - count * torch.outer(mean, mean)) / freedom
