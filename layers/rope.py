"""Rotary positions on three axes (t, h, w).

RoPE: Su et al. 2021 (arXiv 2104.09864). Three axes: Qwen2-VL (Wang et al. 2024, arXiv 2409.12191).
Where t = h = w, as for text, this is the one-axis RoPE of Llama, with its half-split pairs.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


def rotary_table(
    positions: Int[Tensor, "N 3"], head_dim: int, theta: float
) -> Float[Tensor, "two N head_dim"]:
    """Return cosines and signed sines for each position; pair j turns with axis j mod 3.

    So each axis has frequencies over the whole range from 1 to 1 / `theta`. The sines of the first
    half are negative: `rotate` then needs no other sign.
    """
    pairs = torch.arange(head_dim // 2, device=positions.device)
    frequencies = theta ** (-2 * pairs.double() / head_dim)
    angles = positions[:, pairs % 3].double() * frequencies
    cosine, sine = angles.cos(), angles.sin()
    return torch.stack([cosine.repeat(1, 2), torch.cat([-sine, sine], dim=-1)]).float()


def rotate(
    x: Float[Tensor, "B heads N head_dim"], table: Float[Tensor, "two N head_dim"]
) -> Float[Tensor, "B heads N head_dim"]:
    """Turn each pair (i, i + head_dim / 2) of a query or key by its position's angle."""
    return (
        _Rotation.apply(x, table.to(x.dtype)) if x.requires_grad else _turn(x, *table.to(x.dtype))
    )


def _turn(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    # The partner of channel i is i + head_dim / 2, of which the first half takes it with a minus.
    return torch.addcmul(x * cosine, x.roll(x.shape[-1] // 2, dims=-1), sine)


class _Rotation(torch.autograd.Function):
    """Its gradient is turned back, so nothing but the table is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, table: Tensor) -> Tensor:
        ctx.save_for_backward(table)
        return _turn(x, *table)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (table,) = ctx.saved_tensors
        cosine, sine = table
        return _turn(gradients[0], cosine, -sine), None
