"""The equations between clip, noise and velocity, against derivatives, inverses and diffusers."""

import pytest
import torch

from diffusion import CosineSchedule, DiffusionObjective, LogLinearSchedule
from diffusion.objective import (
    clean,
    min_snr_weight,
    noise_in,
    noised,
    velocity,
    velocity_of_clean,
    velocity_of_noise,
)
from diffusion.schedule import signal, signal_to_noise

GENERATOR = torch.Generator().manual_seed(0)
X, NOISE = torch.randn(2, 5, 7, generator=GENERATOR, dtype=torch.float64)
ANGLE = torch.linspace(0.1, 1.4, 5, dtype=torch.float64)[:, None]


def test_the_velocity_is_the_derivative_of_the_noised_clip_by_the_angle():
    angle = ANGLE.expand_as(X).clone().requires_grad_()
    (v,) = torch.autograd.grad(noised(X, NOISE, angle).sum(), angle)
    torch.testing.assert_close(velocity(X, NOISE, ANGLE), v)


def test_clip_noise_and_velocity_turn_into_each_other():
    z, v = noised(X, NOISE, ANGLE), velocity(X, NOISE, ANGLE)
    torch.testing.assert_close(clean(z, v, ANGLE), X)
    torch.testing.assert_close(noise_in(z, v, ANGLE), NOISE)
    torch.testing.assert_close(velocity_of_clean(z, X, ANGLE), v)
    torch.testing.assert_close(velocity_of_noise(z, NOISE, ANGLE), v)


def test_the_velocity_is_that_of_diffusers():
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(1000)
    steps = torch.tensor([0, 10, 500, 900, 999])
    alpha = scheduler.alphas_cumprod[steps].sqrt().double()
    reference = scheduler.get_velocity(X.float(), NOISE.float(), steps)
    ours = velocity(X, NOISE, alpha.acos()[:, None])
    torch.testing.assert_close(ours.float(), reference, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("prediction", ["v", "x", "eps"])
def test_the_weight_makes_every_error_that_of_the_clip_up_to_a_snr(prediction):
    objective = DiffusionObjective(LogLinearSchedule(), prediction, min_snr_gamma=5.0)
    wrong = X + 0.1
    outputs = {
        "x": wrong,
        "v": velocity_of_clean(noised(X, NOISE, ANGLE), wrong, ANGLE),
        "eps": (noised(X, NOISE, ANGLE) - ANGLE.cos() * wrong) / ANGLE.sin(),
    }
    errors = objective.errors(lambda z: outputs[prediction], X, NOISE, ANGLE)
    expected = 0.01 * signal_to_noise(ANGLE).clamp(max=5).expand_as(errors)
    torch.testing.assert_close(errors, expected, atol=1e-6, rtol=1e-4)


def test_the_weight_is_that_of_the_paper():
    snr = torch.tensor([0.5, 5.0, 50.0], dtype=torch.float64)
    angle = torch.atan(snr.rsqrt())
    torch.testing.assert_close(
        min_snr_weight(angle, 5.0, "eps"), torch.tensor([1, 1, 0.1]).double()
    )
    expected = torch.tensor([0.5, 5, 5]).double() / (snr + 1)
    torch.testing.assert_close(min_snr_weight(angle, 5.0, "v"), expected)


@pytest.mark.parametrize("prediction", ["v", "x", "eps"])
def test_a_network_that_is_right_has_no_loss_and_its_output_is_the_velocity(prediction):
    objective = DiffusionObjective(LogLinearSchedule(), prediction)
    target = objective.target(X, NOISE, ANGLE)
    assert objective.errors(lambda z: target, X, NOISE, ANGLE).max() < 1e-12
    z = noised(X, NOISE, ANGLE)
    torch.testing.assert_close(objective.velocity(target, z, ANGLE), velocity(X, NOISE, ANGLE))


def test_times_lie_evenly_and_reach_the_end():
    objective = DiffusionObjective()
    times = torch.stack([objective.draw_times(8, GENERATOR) for _ in range(200)])
    gaps = times.sort(dim=1).values.diff(dim=1)
    torch.testing.assert_close(gaps, torch.full_like(gaps, 1 / 8))
    assert times.min() > 0
    assert 0.99 < times.max() <= 1
    assert abs(times[:, 0].mean() - 0.5) < 0.1
    assert signal(objective.schedule.angle(torch.tensor(1.0))) == 0


@pytest.mark.parametrize(
    "schedule", [CosineSchedule(), LogLinearSchedule(zero_terminal_snr=True)], ids=["cos", "log"]
)
def test_noise_and_weights_are_refused_where_no_signal_is_left(schedule):
    with pytest.raises(ValueError, match="predict v or x"):
        DiffusionObjective(schedule, "eps")
    with pytest.raises(ValueError, match="never learnt"):
        DiffusionObjective(schedule, "v", min_snr_gamma=5.0)


def test_a_weight_of_nothing_is_refused():
    with pytest.raises(ValueError, match="above 0"):
        DiffusionObjective(LogLinearSchedule(), "v", min_snr_gamma=0.0)


@pytest.mark.usefixtures("_without_types")
def test_a_prediction_that_nobody_knows_is_refused():
    with pytest.raises(ValueError, match="is 'velocity', but must be one of v, x, eps"):
        DiffusionObjective(prediction="velocity")
