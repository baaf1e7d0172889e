"""Power over spatial frequency, against waves whose place and strength are known."""

import math

import pytest
import torch

from evaluation.spectrum import band_power, high_frequency_gap


def wave(cycles, amplitude=0.2, size=64):
    x = torch.arange(size) / size
    picture = 0.5 + amplitude * torch.cos(2 * math.pi * cycles * x)
    picture = (picture * 255).round().to(torch.uint8)
    return picture[None, None, None, :, None].expand(2, 3, size, size, 3).contiguous()


@pytest.mark.parametrize(("cycles", "band"), [(2, 0), (6, 1), (18, 4), (30, 7)])
def test_a_wave_lies_in_the_band_of_its_frequency(cycles, band):
    assert band_power(wave(cycles)).argmax() == band


def test_white_noise_has_its_variance_in_every_band():
    noise = torch.randint(0, 256, (8, 4, 64, 64, 3), generator=torch.Generator().manual_seed(0))
    power = band_power(noise.to(torch.uint8))
    expected = torch.full((7,), (256**2 - 1) / 12 / 255**2, dtype=torch.float64)
    torch.testing.assert_close(power[1:], expected, rtol=0.05, atol=0)  # the mean is taken out


def test_half_the_amplitude_is_six_decibels_less():
    fine = (wave(18).int() + wave(22).int() + wave(26).int() + wave(30).int()) // 4
    coarse = 127 + (fine - 127) // 2
    gap = high_frequency_gap(coarse.to(torch.uint8), fine.to(torch.uint8))
    assert gap.item() == pytest.approx(6.02, abs=0.5)
    assert high_frequency_gap(fine.to(torch.uint8), fine.to(torch.uint8)) == 0


def test_blur_and_noise_are_both_away_from_the_truth():
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 256, (2, 2, 32, 32, 3), generator=generator).to(torch.uint8)
    blurred = truth.double().unfold(3, 3, 1).mean(-1).round().to(torch.uint8)
    blurred = torch.cat([blurred, truth[:, :, :, :2]], dim=3)
    calm = (truth // 4 + 96).to(torch.uint8)
    assert high_frequency_gap(blurred, truth) > 1
    assert high_frequency_gap(truth, calm) > 5
