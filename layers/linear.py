"""Linear layers without bias, by the faster of the libraries that PyTorch holds."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Linear(nn.Linear):
    """A linear layer without bias."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__(width_in, width_out, bias=False)

    def forward(self, x: Float[Tensor, "*N in"]) -> Float[Tensor, "*N out"]:
        return linear(x, self.weight)


def linear(x: Float[Tensor, "*N in"], weight: Float[Tensor, "out in"]) -> Float[Tensor, "*N out"]:
    """Return x W^T.

    In float32 on a CPU, PyTorch takes MKL; oneDNN, which it takes in bfloat16, has 200 GFLOP/s
    against 94 a core of an AMD EPYC, in the forward pass and in both products of the gradient. What
    is compiled is left to the compiler, which knows that product only with a constant weight.
    """
    plain = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    plain = plain and not torch.compiler.is_compiling()
    if plain and torch.backends.mkldnn.is_available() and not torch.is_autocast_enabled("cpu"):
        return _OneDNNLinear.apply(x, weight)
    return F.linear(x, weight)


class _OneDNNLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        (gradient,) = gradients
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = _product(gradient, weight.mT)
        if ctx.needs_input_grad[1]:
            of_weight = _product(_columns(gradient), _columns(x))
        return of_x, of_weight


def _product(x: Tensor, weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


def _columns(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1]).mT
