"""Samplers against diffusers' and on Gaussians, whose best guess is known."""

import numpy as np
import pytest
import torch

from diffusion import CosineSchedule, LogLinearSchedule
from diffusion.objective import clean, noised
from diffusion.sampler import (
    correlated,
    draw_noise,
    generators_of,
    guided,
    reconstruction_guided,
    replaced,
    sample,
)
from diffusion.schedule import noise_level, signal

MEAN, DEVIATION = 0.7, 0.3


def gaussian_guess(z, angle):
    """E[x | z] where every element of x is normal with MEAN and DEVIATION."""
    alpha, sigma, variance = signal(angle), noise_level(angle), DEVIATION**2
    gain = variance * alpha / (variance * alpha**2 + sigma**2)
    return MEAN + gain * (z - alpha * MEAN)


def network(z, angle):
    """Any smooth function of both."""
    return torch.sin(2 * z) * torch.cos(angle) - 0.3 * z.roll(1, -1)


def start(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_diffusers(scheduler, z, angles, generator=None):
    for angle, step in zip(angles, scheduler.timesteps, strict=False):
        options = {"generator": generator} if generator is not None else {}
        v = network(z.double(), angle).to(z.dtype)
        z = scheduler.step(v, step, z, **options).prev_sample
    return z


def angles_of(alphas_cumprod, scheduler):
    alpha = alphas_cumprod[scheduler.timesteps].double().sqrt()
    return torch.cat([torch.atan2((1 - alpha**2).sqrt(), alpha), torch.zeros(1).double()])


def guess_of_network(z, angle):
    return clean(z, network(z, angle), angle)


@pytest.mark.parametrize("zero_snr", [False, True])
def test_ddim_is_that_of_diffusers(zero_snr):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        1000,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        rescale_betas_zero_snr=zero_snr,
    )
    scheduler.set_timesteps(10)
    angles, z = angles_of(scheduler.alphas_cumprod, scheduler), start(2, 8)
    assert (signal(angles[0]) < 1e-7) == zero_snr
    reference = by_diffusers(scheduler, z, angles)
    torch.testing.assert_close(sample(guess_of_network, z, angles), reference, atol=1e-5, rtol=1e-5)


def test_ancestral_is_that_of_diffusers():
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(
        1000, prediction_type="v_prediction", timestep_spacing="trailing", clip_sample=False
    )
    scheduler.set_timesteps(10)
    angles, z = angles_of(scheduler.alphas_cumprod, scheduler), start(1, 8).float()
    reference = by_diffusers(scheduler, z, angles, torch.Generator().manual_seed(3))
    generators = [torch.Generator().manual_seed(3)]
    ours = sample(
        lambda z, angle: guess_of_network(z, angle.to(z)),
        z,
        angles,
        solver="ancestral",
        renewed=lambda: draw_noise(tuple(z.shape), generators),
    )
    torch.testing.assert_close(ours, reference, atol=1e-4, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of diffusers
@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_the_second_order_solver_is_that_of_diffusers(steps):
    from diffusers import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(
        1000, prediction_type="v_prediction", beta_schedule="scaled_linear"
    )
    scheduler.set_timesteps(steps)
    angles, z = scheduler.sigmas.double().atan(), start(2, 8)
    reference = by_diffusers(scheduler, z, angles)
    ours = sample(guess_of_network, z, angles, solver="dpm")
    torch.testing.assert_close(ours, reference, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("dpm", 2)])
def test_solvers_converge_to_the_exact_flow_at_their_order(solver, order):
    schedule, z = LogLinearSchedule(16.0, -10.0), start(1, 1000)
    first = schedule.angles(1)[0]
    spread = ((DEVIATION * signal(first)) ** 2 + noise_level(first) ** 2).sqrt()
    # The flow keeps each element's quantile.
    exact = MEAN + DEVIATION * (z - signal(first) * MEAN) / spread
    errors = [
        (sample(gaussian_guess, z, schedule.angles(n), solver=solver) - exact)
        .square()
        .mean()
        .sqrt()
        for n in (64, 128)
    ]
    assert errors[0] < 0.05
    assert 0.7 * 2**order < errors[0] / errors[1] < 1.4 * 2**order


@pytest.mark.parametrize("schedule", [CosineSchedule(), LogLinearSchedule()])
def test_ancestral_samples_have_the_distribution_of_the_data(schedule):
    generators = [torch.Generator().manual_seed(0)]
    x = sample(
        gaussian_guess,
        start(1, 40000),
        schedule.angles(200),
        solver="ancestral",
        renewed=lambda: draw_noise((1, 40000), generators),
    )
    assert abs(x.mean() - MEAN) < 0.01
    assert abs(x.std() / DEVIATION - 1) < 0.04


@pytest.mark.parametrize("zero_snr", [False, True])
def test_brightness_is_drawn_right_only_from_zero_terminal_snr(zero_snr):
    """A clip of one brightness, normal over clips: its mean shows through much noise."""
    pixels = 4096
    schedule = LogLinearSchedule(10.0, -5.0, zero_terminal_snr=zero_snr)

    def guess(z, angle):
        alpha, sigma = signal(angle), noise_level(angle)
        gain = alpha / (alpha**2 + sigma**2 / pixels)
        return (gain * z.mean(dim=1, keepdim=True)).expand_as(z)

    brightness = sample(guess, start(400, pixels), schedule.angles(200)).mean(dim=1)
    if zero_snr:
        assert abs(brightness.std() - 1) < 0.1
    else:
        assert brightness.std() < 0.3


def joint_guess(correlation):
    """Return E[x | z] of pairs of frames, each standard normal, with a correlation."""

    def guess(z, angle):
        alpha, sigma = signal(angle), noise_level(angle)
        both = torch.tensor([[1, correlation], [correlation, 1]], dtype=z.dtype)
        gain = alpha * both @ torch.linalg.inv(alpha**2 * both + sigma**2 * torch.eye(2).to(z))
        return torch.einsum("s t, b c t h w -> b c s h w", gain, z)

    return guess


def test_reconstruction_guidance_extends_better_than_replacement():
    correlation, count = 0.9, 4000
    known = start(count, 1, 2, 1, 1, seed=1)
    where = torch.tensor([True, False]).view(1, 1, 2, 1, 1)
    noise, z = start(count, 1, 2, 1, 1, seed=2), start(count, 1, 2, 1, 1, seed=3)
    angles, guess = CosineSchedule().angles(100), joint_guess(correlation)

    def miss(wrapped):
        """How far the second frame's mean, given the first, is from the true one."""
        x = sample(wrapped, z, angles)
        assert torch.equal(x[:, :, 0], known[:, :, 0])
        first, second = x[:, 0, 0, 0, 0], x[:, 0, 1, 0, 0]
        return abs((first * second).mean() / first.square().mean() - correlation)

    by_replacement = miss(replaced(guess, known, where, noise))
    by_guidance = miss(reconstruction_guided(guess, known, where, noise, weight=4.0))
    assert by_replacement > 0.1
    assert by_guidance < 0.5 * by_replacement


@pytest.mark.parametrize("shared", [0.5, 0.9, 0.99])
def test_reconstruction_guidance_knows_what_noise_frames_share(shared):
    """A walk of nine frames, of which five are known: how far the others are from their mean."""
    frames, known_frames, count = 9, 5, 3000
    apart = (torch.arange(frames)[:, None] - torch.arange(frames)).abs()
    walk = torch.exp(-apart.double() / 5)
    mixed = shared + (1 - shared) * torch.eye(frames, dtype=torch.float64)

    def drawn(covariance, seed):
        rows = start(count, frames, seed=seed) @ torch.linalg.cholesky(covariance).T
        return rows[:, None, :, None, None]

    def guess(z, angle):
        alpha, sigma = signal(angle), noise_level(angle)
        gain = alpha * walk @ torch.linalg.inv(alpha**2 * walk + sigma**2 * mixed)
        return torch.einsum("s t, b c t h w -> b c s h w", gain, z)

    known, noise = drawn(walk, 1), drawn(mixed, 2)
    where = (torch.arange(frames) < known_frames).view(1, 1, frames, 1, 1)
    first, rest = slice(None, known_frames), slice(known_frames, None)
    gain = walk[rest, first] @ torch.linalg.inv(walk[first, first])
    mean = known[:, 0, first, 0, 0] @ gain.T

    def miss(wrapped):
        found = sample(wrapped, noise, CosineSchedule().angles(100))[:, 0, rest, 0, 0]
        return (found - mean).square().mean()

    by_replacement = miss(replaced(guess, known, where, noise))
    unaware = miss(reconstruction_guided(guess, known, where, noise, 2.0))
    by_guidance = miss(reconstruction_guided(guess, known, where, noise, 2.0, shared))
    assert by_guidance < 0.7 * by_replacement
    assert by_guidance < 0.8 * unaware


def test_shared_noise_is_guided_as_in_coordinates_that_do_not_share_it():
    """S^-1/2 z has noise of its own in each coordinate; there the equation is the plain one."""
    shared, frames, weight = 0.8, 4, 3.0
    angle = torch.tensor(0.7, dtype=torch.float64)
    covariance = shared + (1 - shared) * torch.eye(frames, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors @ values.sqrt().diag() @ vectors.T
    mix = start(frames, frames, seed=4)
    known, noise, z = (start(2, 1, frames, 1, 1, seed=seed) for seed in (1, 2, 3))
    where = (torch.arange(frames) < 2).view(1, 1, frames, 1, 1)

    def guess(z, angle):
        return torch.tanh(torch.einsum("s t, b c t h w -> b c s h w", mix, z))

    found = reconstruction_guided(guess, known, where, noise, weight, shared)(z, angle)
    entering = torch.where(where, noised(known, noise, angle), z)[:, 0, :, 0, 0]
    own = (entering @ torch.linalg.inv(root)).requires_grad_()
    x = guess((own @ root)[:, None, :, None, None], angle)[:, 0, :, 0, 0]
    missed = (known[:, 0, :, 0, 0] - x)[:, :2]
    square = (missed @ torch.linalg.inv(covariance[:2, :2]) * missed).sum()
    (gradient,) = torch.autograd.grad(square, own)
    expected = x - weight * signal(angle) / 2 * gradient @ root
    torch.testing.assert_close(found[:, 0, 2:, 0, 0], expected[:, 2:])


def test_reconstruction_guidance_follows_its_equation():
    known, noise, z = (start(3, 1, 2, 1, 1, seed=seed) for seed in (1, 2, 3))
    where = torch.tensor([True, False]).view(1, 1, 2, 1, 1)
    angle, weight = torch.tensor(0.6, dtype=torch.float64), 3.0
    x = reconstruction_guided(joint_guess(0.9), known, where, noise, weight)(z, angle)
    entering = torch.where(where, noised(known, noise, angle), z)
    plain = joint_guess(0.9)(entering, angle)
    # The guess is linear, so its derivative is what it makes of one.
    unit = torch.tensor([0.0, 1.0], dtype=torch.float64).view(1, 1, 2, 1, 1)
    slope = joint_guess(0.9)(unit, angle)[0, 0, 0, 0, 0]
    miss = known[:, 0, 0, 0, 0] - plain[:, 0, 0, 0, 0]
    gradient = -2 * miss * slope
    expected = plain[:, 0, 1, 0, 0] - weight * signal(angle) / 2 * gradient
    torch.testing.assert_close(x[:, 0, 1, 0, 0], expected)


def test_through_a_causal_guess_guidance_is_replacement():
    def causal(z, angle):
        return torch.cumsum(torch.tanh(z), dim=2) * signal(angle)

    known, noise, z = (start(3, 1, 4, 2, 2, seed=seed) for seed in (1, 2, 3))
    where = (torch.arange(4) < 2).view(1, 1, 4, 1, 1)
    angles = CosineSchedule().angles(5)
    one = sample(replaced(causal, known, where, noise), z, angles)
    other = sample(reconstruction_guided(causal, known, where, noise, 5.0), z, angles)
    torch.testing.assert_close(one, other)


def test_guidance_of_one_and_zero_are_with_and_without():
    one, other = start(3), start(3, seed=1)
    for scale, wanted in ((1.0, one), (0.0, other), (3.0, other + 3 * (one - other))):
        velocity = guided(lambda z, angle: one, lambda z, angle: other, scale)
        torch.testing.assert_close(velocity(one, one), wanted)
    assert guided(abs, print, 1.0) is abs  # the other side costs nothing there


def test_noise_of_a_clip_is_its_generator_s():
    both = draw_noise((2, 5), [torch.Generator().manual_seed(s) for s in (4, 5)])
    assert torch.equal(both[1:], draw_noise((1, 5), [torch.Generator().manual_seed(5)]))
    with pytest.raises(ValueError, match="one each"):
        draw_noise((2, 5), [torch.Generator()])


def test_correlated_noise_has_its_correlation_and_deviation():
    noise = correlated(start(1, 20000, 3, 1, 1), start(1, 20000, 1, 1, 1, seed=1), 0.6)
    matrix = noise[0, :, :, 0, 0].T.corrcoef()
    torch.testing.assert_close(matrix, 0.6 + 0.4 * torch.eye(3).double(), atol=0.03, rtol=0)
    assert abs(noise.std() - 1) < 0.02


@torch.inference_mode()
def test_guidance_without_gradients_is_refused():
    known = start(1, 1, 2, 1, 1)
    where = torch.tensor([True, False]).view(1, 1, 2, 1, 1)
    with pytest.raises(ValueError, match=r"use torch\.no_grad"):
        reconstruction_guided(joint_guess(0.9), known, where, known, 1.0)


@pytest.mark.usefixtures("_without_types")
@pytest.mark.parametrize("kind", [np.int64, np.uint8])
def test_a_seed_of_numpy_is_a_number_like_another(kind):
    ours = [generator.initial_seed() for generator in generators_of(kind(255), 2)]
    assert ours == [255, 256]
    assert [g.initial_seed() for g in generators_of([kind(3)], 1)] == [3]
