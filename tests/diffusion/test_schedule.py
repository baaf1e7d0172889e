"""Noise schedules against diffusers' and against what their formulas say."""

import math

import pytest
import torch

from diffusion import CosineSchedule, LogLinearSchedule
from diffusion.schedule import (
    angle_of,
    noise_level,
    signal,
    signal_to_noise,
    with_zero_terminal_snr,
)

TIME = torch.linspace(0, 1, 101, dtype=torch.float64)
SCHEDULES = {
    "cosine": CosineSchedule(),
    "shifted cosine": CosineSchedule(shift=4.0),
    "log-linear": LogLinearSchedule(),
    "log-linear to zero": LogLinearSchedule(zero_terminal_snr=True),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_an_angle_rises_with_time_and_keeps_the_variance(name):
    angle = SCHEDULES[name].angle(TIME)
    assert bool((angle.diff() > 0).all())
    assert 0 <= angle[0] < 0.01
    assert 1.55 < angle[-1] <= math.pi / 2
    alpha, sigma = signal(angle), noise_level(angle)
    torch.testing.assert_close(alpha.square() + sigma.square(), torch.ones_like(alpha))
    torch.testing.assert_close(angle_of(alpha, sigma), angle)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["cosine", "shifted cosine", "log-linear to zero"])
def test_nothing_is_left_of_the_clip_at_the_last_step(name, dtype):
    last = SCHEDULES[name].angles(7)[0].to(dtype)
    assert signal(last) == 0
    assert noise_level(last) == 1


def test_something_is_left_without_zero_terminal_snr():
    log_snr = signal_to_noise(SCHEDULES["log-linear"].angle(TIME)).log()
    torch.testing.assert_close(log_snr, torch.linspace(10, -10, 101, dtype=torch.float64))


def test_the_cosine_is_that_of_diffusers():
    from diffusers import DDPMScheduler

    reference = DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2").alphas_cumprod
    ours = signal(CosineSchedule().angle(torch.arange(1, 1001) / 1000)).square()
    # diffusers caps the last of its steps.
    torch.testing.assert_close(ours[:-1].float(), reference[:-1], atol=1e-5, rtol=1e-4)


def test_a_shift_takes_as_much_from_the_log_snr_everywhere():
    plain, shifted = (
        signal_to_noise(CosineSchedule(shift=shift).angle(TIME[1:-1])).log() for shift in (1.0, 4.0)
    )
    torch.testing.assert_close(plain - shifted, torch.full_like(plain, 2 * math.log(4)))


def test_rescaling_is_that_of_diffusers():
    from diffusers import DDIMScheduler

    plain = DDIMScheduler(1000).alphas_cumprod.double().sqrt()
    reference = DDIMScheduler(1000, rescale_betas_zero_snr=True).alphas_cumprod.sqrt()
    ours = with_zero_terminal_snr(plain, plain[0], plain[-1])
    assert ours[-1] == 0
    torch.testing.assert_close(ours.float(), reference, atol=1e-5, rtol=1e-4)


def test_a_sampler_goes_from_the_most_noise_to_none():
    angles = CosineSchedule().angles(4)
    assert len(angles) == 5
    assert bool((angles.diff() < 0).all())
    assert angles[-1] == 0


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: CosineSchedule().angles(0), "steps is 0"),
        (lambda: CosineSchedule().angles(4, 0.0), "strength is 0"),
        (lambda: CosineSchedule().angles(4, 1.5), "strength is 1.5"),
        (lambda: LogLinearSchedule().angles(4, math.nan), "strength is nan"),
        (lambda: CosineSchedule(offset=1.0), "offset is 1"),
        (lambda: CosineSchedule(shift=0.0), "shift is 0, but must be above 0"),
        (lambda: LogLinearSchedule(-1.0, 1.0), "must be below"),
    ],
)
def test_what_cannot_be_is_refused(build, words):
    with pytest.raises(ValueError, match=words):
        build()
