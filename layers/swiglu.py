"""The gated activation of the feed-forward layers (Shazeer 2020, arXiv 2002.05202)."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def swiglu(gate_up: Float[Tensor, "*N two_H"]) -> Float[Tensor, "*N H"]:
    """Return silu(gate) up, where gate is the first half of the channels and up the second."""
    if gate_up.device.type == "cpu" and gate_up.requires_grad:
        return _CPUSwiGLU.apply(gate_up)
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


class _CPUSwiGLU(torch.autograd.Function):
    """Writes the gradients of both halves where they belong; PyTorch's own copies them there."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        activated = F.silu(gate)
        ctx.save_for_backward(gate_up, activated)
        return activated * up

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gate_up, activated = ctx.saved_tensors
        (gradient,) = gradients
        gate, up = gate_up.chunk(2, dim=-1)
        both = torch.empty_like(gate_up)
        of_gate, of_up = both.chunk(2, dim=-1)
        torch.mul(gradient, activated, out=of_up)
        torch.ops.aten.silu_backward(gradient * up, gate, grad_input=of_gate)
        return both
