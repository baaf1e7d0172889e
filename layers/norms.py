"""Normalisation that never looks across positions: a statistic over time would break causality.

LayerNorm: Ba et al. 2016 (arXiv 1607.06450). RMSNorm: Zhang and Sennrich 2019 (arXiv 1910.07467).
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class ChannelLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of a clip, at each position for itself.

    Chosen over RMSNorm for the CNN because PyTorch has it as one kernel on a CPU: forward and
    backward take a fifth of the time.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, bias=False)

    def forward(self, x: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C T H W"]:
        # channels_last_3d memory makes both permutes free.
        last = x.permute(0, 2, 3, 4, 1)
        weight = self.weight.to(last.dtype)
        normed = F.layer_norm(last, self.normalized_shape, weight, None, self.eps)
        return normed.permute(0, 4, 1, 2, 3)
