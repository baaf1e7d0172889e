"""From noise to a clip, given a network that guesses the clip in the noise.

Solvers take the guess x and go from one angle to a smaller one. What a user knows of the clip
already enters by wrapping the guess: `guided`, `replaced`, `reconstruction_guided`.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffusion.objective import clean, noised, velocity_of_clean
from diffusion.schedule import noise_level, signal

Guess = Callable[[Tensor, Tensor], Tensor]
"""From a noised clip and the angle of its noise to the clean clip, as far as one can tell."""

Velocity = Callable[[Tensor, Tensor], Tensor]
"""From a noised clip and the angle of its noise to the velocity."""

Solver = Literal["ddim", "ancestral", "dpm"]


def ddim_step(
    z: Float[Tensor, "*S"],
    v: Float[Tensor, "*S"],
    angle: Float[Tensor, "..."],
    next_angle: Float[Tensor, "..."],
) -> Float[Tensor, "*S"]:
    """Turn z towards the clip: z_s = cos(phi_s - phi_t) z + sin(phi_s - phi_t) v.

    Salimans and Ho 2022 (arXiv 2202.00512), Eq. 36: DDIM (Song et al. 2020, arXiv 2010.02502) as a
    rotation, exact where v does not change on the way.
    """
    turn = next_angle - angle
    return turn.cos() * z + turn.sin() * v


def remaining_share(angle: Float[Tensor, ""], next_angle: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Return tan(phi_s) / tan(phi_t): exp((lambda_t - lambda_s) / 2) of log SNRs lambda."""
    return (signal(angle) * noise_level(next_angle)) / (signal(next_angle) * noise_level(angle))


def ancestral_step(
    z: Float[Tensor, "*S"],
    x: Float[Tensor, "*S"],
    angle: Float[Tensor, ""],
    next_angle: Float[Tensor, ""],
    noise: Float[Tensor, "*S"],
) -> Float[Tensor, "*S"]:
    """Draw z_s from q(z_s | z_t, x) (Ho et al. 2020, arXiv 2006.11239, Eq. 6 and 7)."""
    share = remaining_share(angle, next_angle)
    sigma, next_sigma = noise_level(angle), noise_level(next_angle)
    mean = share * next_sigma / sigma * z + (1 - share.square()) * signal(next_angle) * x
    return mean + (1 - share.square()).sqrt() * next_sigma * noise


def dpm_step(
    z: Float[Tensor, "*S"],
    x: Float[Tensor, "*S"],
    angle: Float[Tensor, ""],
    next_angle: Float[Tensor, ""],
) -> Float[Tensor, "*S"]:
    """Solve exactly for a guess that stays: DPM-Solver++ (arXiv 2211.01095), Eq. 9 of order 1."""
    share = remaining_share(angle, next_angle)
    return noise_level(next_angle) / noise_level(angle) * z + (1 - share) * signal(next_angle) * x


def extrapolated(
    x: Float[Tensor, "*S"],
    x_before: Float[Tensor, "*S"],
    angles: tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]],
) -> Float[Tensor, "*S"]:
    """Extend the last two guesses in a line over log SNR to the middle of the next step.

    DPM-Solver++(2M) of Lu et al. 2022 (arXiv 2211.01095), algorithm 2.

    Args:
        x: The guess at the second of the angles.
        x_before: The one at the first.
        angles: The angles before, now and after this step.
    """
    before, now, after = angles
    last, step = (-remaining_share(*pair).log() for pair in ((before, now), (now, after)))
    share = step / (2 * last)
    return (1 + share) * x - share * x_before


def sample(
    guess: Guess,
    z: Float[Tensor, "B *S"],
    angles: Float[Tensor, " steps_1"],
    *,
    solver: Solver = "ddim",
    renewed: Callable[[], Float[Tensor, "B *S"]] | None = None,
) -> Float[Tensor, "B *S"]:
    """Go from noise to a clip.

    Args:
        guess: The network with all it is conditioned on.
        z: Noise at the first angle.
        angles: Falling, from `Schedule.angles`; the last one is 0.
        solver: "ddim" and "dpm" (second order) draw nothing, "ancestral" renews it at each step.
        renewed: Draws noise as that of z, for "ancestral".

    Raises:
        ValueError: Nothing draws the noise of "ancestral".
    """
    angles = angles.to(z.device)
    x = x_before = z
    for i, (angle, next_angle) in enumerate(pairwise(angles)):
        x_before, x = x, guess(z, angle.to(z.dtype))
        if i == len(angles) - 2:
            return x  # where all solvers end without noise
        if solver == "ddim":
            step = ddim_step(z, velocity_of_clean(z, x, angle), angle, next_angle)
        elif solver == "ancestral":
            if renewed is None:
                raise ValueError("ancestral renews the noise; give what draws it, or take ddim")
            step = ancestral_step(z, x, angle, next_angle, renewed().to(z))
        else:
            triple = angles[max(0, i - 1)], angle, next_angle
            step = dpm_step(z, extrapolated(x, x_before, triple) if i else x, angle, next_angle)
        z = step.to(z.dtype)
    return z


def draw_noise(shape: tuple[int, ...], generators: list[torch.Generator]) -> Float[Tensor, "*S"]:
    """Return standard normal noise of a shape; row i is drawn from generator i alone.

    Raises:
        ValueError: There are not as many generators as rows.
    """
    if len(generators) != shape[0]:
        raise ValueError(
            f"{shape[0]} clips are drawn with {len(generators)} generators; give one each"
        )
    return torch.stack([torch.randn(shape[1:], generator=g) for g in generators])


def generators_of(seed: int | list[int], count: int) -> list[torch.Generator]:
    """Return a generator a clip, of seed + i, or of seed[i].

    Raises:
        ValueError: There are not as many seeds as clips.
    """
    seeds = seed if isinstance(seed, list) else [int(seed) + i for i in range(count)]
    if len(seeds) != count:
        raise ValueError(f"{count} clips have {len(seeds)} seeds; give one each")
    return [torch.Generator().manual_seed(int(one)) for one in seeds]


def correlated(
    noise: Float[Tensor, "B C T H W"], shared: Float[Tensor, "B C 1 H W"], correlation: float
) -> Float[Tensor, "B C T H W"]:
    """Mix noise of each frame with one picture of noise that all frames share.

    PYoCo (Ge et al. 2023, arXiv 2305.10474), Eq. 6 for the mixed noise model.

    Args:
        noise: Standard normal, of each frame.
        shared: Standard normal, of the clip.
        correlation: Between any two frames, in [0, 1).
    """
    return correlation**0.5 * shared + (1 - correlation) ** 0.5 * noise


def guided(conditional: Velocity, unconditional: Velocity, scale: float) -> Velocity:
    """Return uncond + scale (cond - uncond) (Ho and Salimans 2022, arXiv 2207.12598).

    At scale 1, where it makes no difference, the unconditional side is not called.
    """
    if scale == 1:
        return conditional

    def inner(z: Tensor, angle: Tensor) -> Tensor:
        bare = unconditional(z, angle)
        return bare + scale * (conditional(z, angle) - bare)

    return inner


def replaced(
    guess: Guess,
    known: Float[Tensor, "B C T H W"],
    where: Bool[Tensor, "#B 1 T #H #W"],
    noise: Float[Tensor, "B C T H W"],
) -> Guess:
    """Wrap a guess so that known parts are put into z with noise, at every step.

    The replacement method (Song et al. 2021, arXiv 2011.13456, appendix I.2). The unknown part sees
    the known one only as far as it shows through its noise.

    Args:
        guess: The network.
        known: The clean clip where it is known, anything elsewhere.
        where: Where it is.
        noise: What the known part is noised with.
    """

    def inner(z: Tensor, angle: Tensor) -> Tensor:
        z = torch.where(where, noised(known, noise, angle), z)
        return torch.where(where, known, guess(z, angle))

    return inner


def reconstruction_guided(
    guess: Guess,
    known: Float[Tensor, "B C T H W"],
    where: Bool[Tensor, "#B 1 T #H #W"],
    noise: Float[Tensor, "B C T H W"],
    weight: float,
    correlation: float = 0.0,
) -> Guess:
    """Wrap a guess so that the unknown part is pulled to where the known part is guessed right.

    Ho et al. 2022 (arXiv 2204.03458), Eq. 7: x_b - (w alpha / 2) grad_{z_b} |x_a - guess_a(z)|^2.
    Through a causal network nothing flows from later frames to earlier ones: the gradient is 0.
    Where frames share noise of covariance S, the square is |.|^2 of S_a^-1 and the gradient becomes
    S grad, as it is where S = 1 in coordinates in which no noise is shared; without that, it does
    no more than replacement.

    Args:
        guess: The network, differentiable.
        known: The clean clip where it is known, anything elsewhere.
        where: Where it is.
        noise: What the known part is noised with.
        weight: w of the equation; 0 is `replaced`.
        correlation: Of the noise in any two frames, as in `correlated`.

    Raises:
        ValueError: torch.inference_mode is on, within which there are no gradients.
    """
    if torch.is_inference_mode_enabled():
        raise ValueError(
            "reconstruction guidance takes a gradient, which torch.inference_mode forbids; use "
            "torch.no_grad instead"
        )
    # S_a^-1 of n known frames is 1 - share, over 1 - correlation (Sherman and Morrison).
    count = where.sum(2, keepdim=True).to(known)
    share = correlation / (1 - correlation + correlation * count)

    def inner(z: Tensor, angle: Tensor) -> Tensor:
        z = torch.where(where, noised(known, noise, angle), z)
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            x = guess(z, angle)
            error = torch.where(where, known - x, 0)
            common = torch.where(where, share * error.sum(2, keepdim=True), 0)
            square = (error * (error - common)).sum() / (1 - correlation)
            (gradient,) = torch.autograd.grad(square, z)
        total = correlation * gradient.sum(2, keepdim=True)
        x = x.detach() - weight * signal(angle) / 2 * ((1 - correlation) * gradient + total)
        return torch.where(where, known, x)

    return inner


def beginning_with(velocity: Velocity, given: Float[Tensor, "B C K H W"]) -> Guess:
    """Make a guess of a network that takes its first frames without noise, at angle 0.

    Args:
        velocity: From noised frames and the angle of each, "B T", to their velocities.
        given: The first frames, none or some.
    """
    count = given.shape[2]

    def guess(z: Tensor, angle: Tensor) -> Tensor:
        z = torch.cat([given, z[:, :, count:]], dim=2)
        angles = angle.expand(len(z), z.shape[2]).clone()
        angles[:, :count] = 0
        x = clean(z, velocity(z, angles), angle)
        return torch.cat([given, x[:, :, count:]], dim=2)

    return guess
