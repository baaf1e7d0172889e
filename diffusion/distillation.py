"""Fewer steps: a student learns to do in one step what its teacher does in two.

Progressive distillation (Salimans and Ho 2022, arXiv 2202.00512, algorithm 2). In angles the target
needs no division by a small sigma: it is the velocity whose one turn ends where two turns end.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffusion.condition import Texts, over_clip
from diffusion.decoder import DiffusionDecoder
from diffusion.objective import noised
from diffusion.sampler import ddim_step


def velocity_between(
    z: Float[Tensor, "*S"],
    end: Float[Tensor, "*S"],
    angle: Float[Tensor, "..."],
    next_angle: Float[Tensor, "..."],
) -> Float[Tensor, "*S"]:
    """Return the v with which `ddim_step` leads from z to `end`; the angles differ."""
    turn = next_angle - angle
    return (end - turn.cos() * z) / turn.sin()


def distillation_loss(
    student: DiffusionDecoder,
    teacher: DiffusionDecoder,
    steps: int,
    clip: Float[Tensor, "B 3 T H W"],
    tokens: Int[Tensor, "B t h w"],
    base: Float[Tensor, "B 3 T H W"],
    generator: torch.Generator,
    texts: Texts | None = None,
    control: Float[Tensor, "B K T H W"] | None = None,
) -> Float[Tensor, ""]:
    """Return the squared error of the student's velocity against two steps of the teacher.

    Args:
        student: What is trained, to sample in `steps` steps.
        teacher: Samples well in twice as many.
        steps: Of the student.
        clip: The truth, as for `DiffusionDecoder.loss`.
        tokens: Of the clip, corrupted or not.
        base: What the CNN makes of them.
        generator: Draws times, noise, what is dropped and what is known.
        texts: Of the clips, for a decoder that reads text.
        control: For a decoder that is steered by pictures.
    """
    case = student.draw(clip, tokens, base, generator, texts, control)
    first = torch.randint(steps, (len(clip),), generator=generator)
    angles = student.objective.schedule.angles(2 * steps).to(clip)
    angle, middle, end = (
        angles[2 * first + k][:, None].masked_fill(case.known, 0) for k in range(3)
    )
    z = noised(case.x, case.noise, over_clip(angle))
    with torch.no_grad():
        halfway = ddim_step(
            z, teacher.velocity(z, angle, case.condition), over_clip(angle), over_clip(middle)
        )
        v = teacher.velocity(halfway, middle, case.condition)
        target = ddim_step(halfway, v, over_clip(middle), over_clip(end))
        target = velocity_between(z, target, over_clip(angle), over_clip(end))
        # In known frames nothing turns, and the target is 0 / 0.
        target = target.masked_fill(case.known[:, None, :, None, None], 0)
    return case.mean((student.velocity(z, angle, case.condition) - target).square())
