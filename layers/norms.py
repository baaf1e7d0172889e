"""Normalisation that never looks across positions: a statistic over time would break causality.

LayerNorm: Ba et al. 2016 (arXiv 1607.06450). RMSNorm: Zhang and Sennrich 2019 (arXiv 1910.07467).
"""

from typing import Any

import torch
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
        with torch.autocast(x.device.type, enabled=False):  # which on CUDA returns float32
            normed = F.layer_norm(last, self.normalized_shape, weight, None, self.eps)
        return normed.permute(0, 4, 1, 2, 3)


class RMSNorm(nn.RMSNorm):
    """RMSNorm over the last axis, in the type of its input.

    PyTorch's own has no fused backward on a CPU; the formula written out is 4 to 20 times faster.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        weight = self.weight.to(x.dtype)
        if x.device.type == "cpu" and torch.is_grad_enabled():
            return _CPURMSNorm.apply(x, weight, self.eps)
        with torch.autocast(x.device.type, enabled=False):
            return F.rms_norm(x, self.normalized_shape, weight, self.eps)


class _CPURMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide)
        inverse = (norm.square() / x.shape[-1] + eps).rsqrt().to(x.dtype)
        normed = x * inverse
        ctx.save_for_backward(normed, inverse, weight)
        return normed * weight

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        normed, inverse, weight = ctx.saved_tensors
        (gradient,) = gradients
        product = (gradient * normed).flatten(0, -2)
        weight_gradient = product.sum(dim=0)
        # In place, since memory is what takes the time: (g w - n mean(g w n)) inverse.
        along = (product @ weight).view(inverse.shape) / len(weight)
        gradient = (gradient * weight).addcmul_(normed, along, value=-1).mul_(inverse)
        return gradient, weight_gradient, None
