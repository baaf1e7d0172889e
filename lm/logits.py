"""From logits to a token: temperature, top-k, top-p, min-p; a draw depends on one number.

Top-p: Holtzman et al. 2019 (arXiv 1904.09751). Min-p: Nguyen et al. 2024 (arXiv 2407.01082).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def check_sampling(
    temperature: float, top_k: int | None, top_p: float | None, min_p: float | None
) -> None:
    """Raise ValueError where a sampling argument is out of range."""
    if temperature < 0:
        raise ValueError(f"temperature is {temperature}, but must be 0 (greedy) or more")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k is {top_k}, but must be at least 1; use None to keep all tokens")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p}, but must lie in (0, 1]; use None to keep all tokens")
    if min_p is not None and not 0 <= min_p <= 1:
        raise ValueError(f"min_p is {min_p}, but must lie in [0, 1]; use None to keep all tokens")


def choose(
    logits: Float[Tensor, "B V"],
    uniform: Float[Tensor, "B"],
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
) -> Int[Tensor, "B"]:
    """Return a token a sample; greedy where the temperature is 0."""
    if temperature == 0:
        return logits.argmax(-1)
    return draw(probabilities(logits, temperature, top_k, top_p, min_p), uniform)


def probabilities(
    logits: Float[Tensor, "B V"],
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
) -> Float[Tensor, "B V"]:
    """Return what to draw from, in float32.

    Top-p keeps the smallest set that reaches `top_p`, min-p what has at least `min_p` of the
    likeliest token's probability.
    """
    logits = logits.float()
    if temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).float()
    logits = logits / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        smallest = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < smallest, -torch.inf)
    chances = logits.softmax(-1)
    if top_p is None and min_p is None:
        return chances
    if top_p is not None and top_p < 1:
        ordered, order = chances.sort(dim=-1, descending=True)
        ordered = ordered.masked_fill(ordered.cumsum(-1) - ordered >= top_p, 0)
        chances = torch.zeros_like(chances).scatter(-1, order, ordered)
    if min_p is not None:
        chances = chances.masked_fill(chances < min_p * chances.amax(-1, keepdim=True), 0)
    return chances / chances.sum(-1, keepdim=True)


def draw(chances: Float[Tensor, "B V"], uniform: Float[Tensor, "B"]) -> Int[Tensor, "B"]:
    """Invert the cumulative distribution: a token a sample from one number in [0, 1) each."""
    total = chances.double().cumsum(-1)
    tokens = torch.searchsorted(total, (uniform.double() * total[:, -1])[:, None], right=True)
    return tokens[:, 0].clamp(max=chances.shape[-1] - 1)
