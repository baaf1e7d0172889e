"""Weights as a CPU reads them fastest when it draws one token after another.

Sampling reads every weight once a token, so the time is that of reading memory. oneDNN's own order
of a matrix reads at twice to four times the speed of PyTorch's plain one; one byte a weight instead
of two or four reads less. int8 weights with a scale a row: LLM.int8 (Dettmers et al. 2022, arXiv
2208.07339), without outliers in the activations, which stay bfloat16.
"""

import copy
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Quantization = Literal["int8"]
Network = TypeVar("Network", bound=nn.Module)


class Projection(nn.Module):
    """A linear map without bias, in PyTorch's plain order."""

    def __init__(self, weight: Float[Tensor, "out in"]) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: Float[Tensor, "*N in"]) -> Float[Tensor, "*N out"]:
        return F.linear(x, self.weight)


class OneDNNProjection(Projection):
    """The same in oneDNN's order.

    Its order for a single vector, which it takes where the number of vectors is told, is a sixth
    slower when each matrix comes from memory, and for more vectors no faster.
    """

    def __init__(self, weight: Float[Tensor, "out in"]) -> None:
        super().__init__(torch.ops.mkldnn._reorder_linear_weight(weight))

    def forward(self, x: Float[Tensor, "*N in"]) -> Float[Tensor, "*N out"]:
        return torch.ops.mkldnn._linear_pointwise.default(x, self.weight, None, "none", [], "")


class Int8Projection(nn.Module):
    """The same with weights round(w / scale) in -127 ... 127, one scale a row; takes bfloat16.

    The kernel reads 16 columns at a time, beyond the end of a row too: zeros fill it up.
    """

    def __init__(self, weight: Float[Tensor, "out in"]) -> None:
        super().__init__()
        weight = weight.float()
        # The scale is rounded first, so that the integers make up for it.
        self.scale = (weight.abs().amax(dim=1) / 127).clamp(min=1e-8).bfloat16()
        steps = (weight / self.scale.float()[:, None]).round()
        self.missing = -weight.shape[1] % 16
        self.weight = F.pad(steps.clamp(-127, 127).to(torch.int8), (0, self.missing))

    def forward(self, x: Float[Tensor, "*N in"]) -> Float[Tensor, "*N out"]:
        rows = x.flatten(0, -2)
        if self.missing:
            rows = F.pad(rows, (0, self.missing))
        y = torch.ops.aten._weight_int8pack_mm(rows, self.weight, self.scale)
        return y.unflatten(0, x.shape[:-1])


def pack(weight: Float[Tensor, "out in"], quantize: Quantization | None = None) -> nn.Module:
    """Return the linear map of a weight in the form that this machine computes fastest.

    Args:
        weight: A matrix; not kept in step with later changes.
        quantize: "int8" halves what bfloat16 reads and changes results by about a hundredth.
    """
    if quantize == "int8":
        return Int8Projection(weight)
    known = weight.dtype in (torch.float32, torch.bfloat16)
    if weight.device.type == "cpu" and known and torch.backends.mkldnn.is_available():
        return OneDNNProjection(weight)
    return Projection(weight)


def packed(network: Network, dtype: torch.dtype, quantize: Quantization | None = None) -> Network:
    """Return a copy of a network whose linear layers are packed; it shares all other weights."""
    clone = copy.copy(network)
    clone._modules = {
        name: pack(child.weight.to(dtype), quantize)
        if isinstance(child, nn.Linear)
        else packed(child, dtype, quantize)
        for name, child in network._modules.items()
        if child is not None
    }
    return clone
