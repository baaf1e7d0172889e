"""Rotary positions on three axes (t, h, w).

RoPE: Su et al. 2021 (arXiv 2104.09864). Three axes: Qwen2-VL (Wang et al. 2024, arXiv 2409.12191).
Where t = h = w, as for text, this is the one-axis RoPE of Llama, with its half-split pairs.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def rotary_table(
    positions: Int[Tensor, "N 3"], head_dim: int, theta: float
) -> Float[Tensor, "two N head_dim"]:
    """Return cosines and sines for each position; pair j turns with axis j mod 3.

    So each axis has frequencies over the whole range from 1 to 1 / `theta`.
    """
    pairs = torch.arange(head_dim // 2, device=positions.device)
    frequencies = theta ** (-2 * pairs.double() / head_dim)
    angles = positions[:, pairs % 3].double() * frequencies
    angles = torch.cat([angles, angles], dim=-1)
    return torch.stack([angles.cos(), angles.sin()]).float()


def rotate(
    x: Float[Tensor, "B heads N head_dim"], table: Float[Tensor, "two N head_dim"]
) -> Float[Tensor, "B heads N head_dim"]:
    """Turn each pair (i, i + head_dim / 2) of a query or key by its position's angle."""
    cosine, sine = table.to(x.dtype)
    low, high = x.chunk(2, dim=-1)
    return x * cosine + torch.cat([-high, low], dim=-1) * sine
