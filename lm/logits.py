"""From logits to a token: temperature, top-k, top-p, min-p; a draw depends on one number.

Top-p: Holtzman et al. 2019 (arXiv 1904.09751). Min-p: Nguyen et al. 2024 (arXiv 2407.01082).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lm.sampling import Sampling


def choose(
    logits: Float[Tensor, "B V"], uniform: Float[Tensor, "B"], sampling: Sampling
) -> Int[Tensor, "B"]:
    """Return a token a sample; greedy where the temperature is 0."""
    if sampling.temperature == 0:
        return logits.argmax(-1)
    return draw(probabilities(logits, sampling), uniform)


def probabilities(logits: Float[Tensor, "B V"], sampling: Sampling) -> Float[Tensor, "B V"]:
    """Return what to draw from, in float32."""
    logits, top_k, top_p = logits.float(), sampling.top_k, sampling.top_p
    if sampling.temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).float()
    # From the likeliest on, so that nothing overflows however cold it is.
    logits = (logits - logits.amax(-1, keepdim=True)) / max(sampling.temperature, 1e-30)
    if top_k is not None and top_k < logits.shape[-1]:
        smallest = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < smallest, -torch.inf)
    chances = logits.softmax(-1)
    if top_p is None and sampling.min_p is None:
        return chances
    if top_p is not None and top_p < 1:
        ordered, order = chances.sort(dim=-1, descending=True)
        ordered = ordered.masked_fill(ordered.cumsum(-1) - ordered >= top_p, 0)
        chances = torch.zeros_like(chances).scatter(-1, order, ordered)
    if sampling.min_p is not None:
        least = sampling.min_p * chances.amax(-1, keepdim=True)
        chances = chances.masked_fill(chances < least, 0)
    return chances / chances.sum(-1, keepdim=True)


def draw(chances: Float[Tensor, "B V"], uniform: Float[Tensor, "B"]) -> Int[Tensor, "B"]:
    """Invert the cumulative distribution: a token a sample from one number in [0, 1) each."""
    total = chances.double().cumsum(-1)
    tokens = torch.searchsorted(total, (uniform.double() * total[:, -1])[:, None], right=True)
    return tokens[:, 0].clamp(max=chances.shape[-1] - 1)


def guided(
    logits: Float[Tensor, "twice_B *rest"], guidance_scale: float
) -> Float[Tensor, "B *rest"]:
    """Return uncond + scale (cond - uncond) of a batch that holds cond and uncond in this order."""
    if guidance_scale == 1.0:
        return logits
    conditional, bare = logits.chunk(2)
    return bare + guidance_scale * (conditional - bare)
