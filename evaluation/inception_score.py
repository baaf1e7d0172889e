"""Video Inception Score: Salimans et al. 2016, arXiv 1606.03498; on video, Saito et al. 2018.

Published numbers use C3D fine-tuned on UCF-101 (TGANv2, arXiv 1811.09245).
"""

import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor, nn
from torchmetrics import Metric


def inception_score(
    logits: Float[Tensor, "N K"], weights: Float64[Tensor, " N"] | None = None
) -> Float64[Tensor, ""]:
    """Return exp(E KL(p(y|x) || p(y))) over one split of clips."""
    count = torch.ones(len(logits), dtype=torch.float64) if weights is None else weights
    chances = logits.double().softmax(1)
    return _score(count @ chances, count @ _negative_entropy(chances), count.sum())


class VideoInceptionScore(Metric):
    """Inception score of one split, under any classifier of clips.

    Args:
        classifier: Maps uint8 clips to logits; has `num_features` and an `extractor_id`.
    """

    full_state_update = False
    higher_is_better = True
    chances: Tensor
    negative_entropy: Tensor
    count: Tensor

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier
        self.name = f"inception_score_{classifier.extractor_id}"
        zeros = torch.zeros(int(classifier.num_features), dtype=torch.float64)  # type: ignore[arg-type]
        self.add_state("chances", zeros, dist_reduce_fx="sum")
        zero = torch.zeros((), dtype=torch.float64)
        self.add_state("negative_entropy", zero, dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    @torch.no_grad()
    def update(self, clip: UInt8[Tensor, "B T H W 3"]) -> None:
        chances = self.classifier(clip).double().softmax(1)
        self.chances += chances.sum(0)
        self.negative_entropy += _negative_entropy(chances).sum()
        self.count += len(chances)

    def compute(self) -> Float64[Tensor, ""]:
        return _score(self.chances, self.negative_entropy, self.count)


def _negative_entropy(chances: Float64[Tensor, "N K"]) -> Float64[Tensor, " N"]:
    return -torch.special.entr(chances).sum(1)


def _score(chances: Tensor, negative_entropy: Tensor, count: Tensor) -> Float64[Tensor, ""]:
    marginal = chances / count
    return (negative_entropy / count + torch.special.entr(marginal).sum()).exp()
