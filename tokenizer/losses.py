"""Losses of the tokenizer, one function an equation. Inputs are clips in [-1, 1].

Hinge: Lim and Ye 2017 (arXiv 1705.02894). Non-saturating: Goodfellow et al. 2014 (arXiv 1406.2661).
LeCam: Tseng et al. 2021 (arXiv 2104.03310). R1: Mescheder et al. 2018 (arXiv 1801.04406). Adaptive
weight: Esser et al. 2020 (arXiv 2012.09841).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from layers.processes import mean_of_processes

MAX_ADAPTIVE_WEIGHT = 1e4
FIRST_QUANTIZER_WEIGHT = 3.0


def reconstruction_loss(
    clip: Float[Tensor, "B 3 T H W"], truth: Float[Tensor, "B 3 T H W"], square_weight: float
) -> Float[Tensor, ""]:
    """Mean absolute error plus `square_weight` times the mean squared error, in float32.

    The absolute error keeps edges; the squared one pulls harder where a whole object is missing.
    """
    difference = clip.float() - truth
    return difference.abs().mean() + square_weight * difference.square().mean()


def quantizer_weight(step: int, anneal_steps: int) -> float:
    """Fall linearly from 3 at step 0 to 1 at `anneal_steps`: codes spread first, then settle."""
    left = max(0.0, 1 - step / anneal_steps) if anneal_steps else 0.0
    return 1 + (FIRST_QUANTIZER_WEIGHT - 1) * left


def hinge_loss(real: Float[Tensor, "*N"], fake: Float[Tensor, "*N"]) -> Float[Tensor, ""]:
    """Mean of max(0, 1 - D(x)) plus mean of max(0, 1 + D(G)), for the discriminator."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def hinge_generator_loss(fake: Float[Tensor, "*N"]) -> Float[Tensor, ""]:
    """Mean of -D(G)."""
    return -fake.mean()


def non_saturating_loss(real: Float[Tensor, "*N"], fake: Float[Tensor, "*N"]) -> Float[Tensor, ""]:
    """Negative log-likelihood of the right answers, for the discriminator."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def non_saturating_generator_loss(fake: Float[Tensor, "*N"]) -> Float[Tensor, ""]:
    """Mean of -log sigmoid(D(G))."""
    return F.softplus(-fake).mean()


def lecam_penalty(
    real: Float[Tensor, "*N"],
    fake: Float[Tensor, "*N"],
    mean_real: Float[Tensor, ""],
    mean_fake: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Squared distance of each side's logits beyond the running mean of the other side's.

    As in the authors' code: a logit on its side's far side only.
    """
    above = F.relu(real - mean_fake).square().mean()
    return above + F.relu(mean_real - fake).square().mean()


def r1_penalty(logits: Float[Tensor, "B N"], clip: Float[Tensor, "B 3 T H W"]) -> Float[Tensor, ""]:
    """Squared gradient of a clip's logits in its pixels, a patch (0.5 gamma is the caller's).

    Divided by the number of patches, so that it does not grow with the picture.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), clip, create_graph=True)
    return gradient.square().sum() / logits.numel()


def adaptive_weight(
    reconstruction: Float[Tensor, "*N"], adversarial: Float[Tensor, "*N"]
) -> Float[Tensor, ""]:
    """Ratio of the norms of two gradients in the last layer, in float32, without a gradient.

    Clamped where the adversarial one vanishes; 0 where either is not finite.
    """
    pull, push = (g.detach().float().norm() for g in (reconstruction, adversarial))
    ratio = pull / (push + 1e-4)
    return torch.where(ratio.isfinite(), ratio, 0.0).clamp(max=MAX_ADAPTIVE_WEIGHT)


def balanced_loss(
    reconstruction: Float[Tensor, ""],
    adversarial: Float[Tensor, ""],
    clip: Float[Tensor, "B 3 T H W"],
    last_layer: Tensor,
    weight: float,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return reconstruction + weight * adaptive weight * adversarial, and the adaptive weight.

    Both losses are functions of the clip, so each is taken back to the clip once, and from there
    on one gradient goes back for both: the value is that of the sum, and so is the gradient.
    """
    to_clip = [torch.autograd.grad(loss, clip)[0] for loss in (reconstruction, adversarial)]
    at_last = [torch.autograd.grad(clip, last_layer, g, retain_graph=True)[0] for g in to_clip]
    adaptive = adaptive_weight(*[mean_of_processes(g) for g in at_last])
    value = reconstruction.detach() + weight * adaptive * adversarial.detach()
    carrier = (clip * (to_clip[0] + weight * adaptive * to_clip[1])).sum()
    return value + (carrier - carrier.detach()), adaptive
