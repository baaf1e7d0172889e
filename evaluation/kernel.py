"""Kernel distance (KVD): squared maximum mean discrepancy between two sets of features.

Binkowski et al. 2018, arXiv 1801.01401; on I3D features, Unterthiner et al. 2018, arXiv 1812.01717.
"""

import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor, nn
from torchmetrics import Metric

from evaluation.frechet import described


def polynomial_kernel(
    x: Float64[Tensor, "N D"], y: Float64[Tensor, "M D"]
) -> Float64[Tensor, "N M"]:
    """Return (x . y / D + 1)^3."""
    return (x @ y.mT / x.shape[1] + 1) ** 3


class KernelDistance:
    """The unbiased squared discrepancy of two sets; kernels are computed once, for any weights.

    Args:
        real: Features of real clips.
        fake: Features of generated clips.
    """

    def __init__(self, real: Float[Tensor, "N D"], fake: Float[Tensor, "M D"]) -> None:
        if min(len(real), len(fake)) < 2:
            raise ValueError(
                f"there are {len(real), len(fake)} real and fake clips; give at least 2 of each"
            )
        real, fake = real.double(), fake.double()
        self.within = [polynomial_kernel(x, x).fill_diagonal_(0) for x in (real, fake)]
        self.between = polynomial_kernel(real, fake)

    def __call__(
        self, real_weights: Float64[Tensor, " N"], fake_weights: Float64[Tensor, " M"]
    ) -> Float64[Tensor, ""]:
        """Return the distance where each clip counts as often as its weight says."""
        sides = zip(self.within, (real_weights, fake_weights), strict=True)
        first, second = (w @ kernel @ w / (w.sum() ** 2 - w.square().sum()) for kernel, w in sides)
        cross = real_weights @ self.between @ fake_weights
        return first + second - 2 * cross / (real_weights.sum() * fake_weights.sum())


class KernelVideoDistance(Metric):
    """Kernel distance of a set of clips to real ones; "kvd" only for a proved I3D.

    Keeps the features: 3.2 kB a clip of 400 of them in float64.

    Args:
        extractor: Maps uint8 clips to features; has an `extractor_id`.
    """

    full_state_update = False
    higher_is_better = False
    real: list[Tensor]
    fake: list[Tensor]

    def __init__(self, extractor: nn.Module) -> None:
        super().__init__()
        self.extractor = extractor
        proved = getattr(extractor, "is_i3d", False)
        self.name = "kvd" if proved else f"kernel_{extractor.extractor_id}"
        self.add_state("real", [], dist_reduce_fx="cat")
        self.add_state("fake", [], dist_reduce_fx="cat")

    @torch.no_grad()
    def update(self, clip: UInt8[Tensor, "B T H W 3"], real: bool) -> None:
        """Add clips to the real or to the generated set."""
        (self.real if real else self.fake).append(described(self.extractor, clip))

    def compute(self) -> Float64[Tensor, ""]:
        real, fake = (
            torch.cat(side) if isinstance(side, list) else side for side in (self.real, self.fake)
        )
        ones = [torch.ones(len(side), dtype=torch.float64) for side in (real, fake)]
        return KernelDistance(real, fake)(*ones)
