"""Continuation figures against clips whose answer is known."""

import math

import pytest
import torch

from data.shapes import Combination, Scene, Shapes, render
from evaluation.continuation import continuation_figures, shapes_figures


def psnr(first, second):
    error = (first.double() - second.double()).square().mean((-3, -2, -1)) / 255**2
    return (-10 * error.log10()).clamp(max=100).mean().item()


def test_psnr_counts_the_frames_behind_the_context():
    truth = torch.randint(256, (2, 9, 16, 16, 3), dtype=torch.uint8)
    clips = torch.randint(256, (2, 9, 16, 16, 3), dtype=torch.uint8)
    figures = continuation_figures(clips, truth, 5)
    assert figures["psnr"] == pytest.approx(psnr(clips[:, 5:], truth[:, 5:]))
    still = truth[:, 4:5].expand(-1, 4, -1, -1, -1)
    assert figures["copy_last_psnr"] == pytest.approx(psnr(still, truth[:, 5:]))
    clips[:, :5] = 0
    assert continuation_figures(clips, truth, 5) == figures


def test_constant_velocity_is_exact_until_a_wall_is_met():
    scene = Scene(
        Combination("red", "square", "right"), 14.0, 2.0, (12.0, 30.0), "plain", background_seed=1
    )
    rendered = render(scene, 17)
    figures = shapes_figures(rendered.frames[None], [rendered], 5)
    assert figures["constant_velocity_psnr"] == 100
    assert figures["position_error"] == pytest.approx(0, abs=0.2)
    hidden = rendered.background.expand_as(rendered.frames)
    assert figures["erase_psnr"] == pytest.approx(psnr(hidden[5:], rendered.frames[5:]))


def test_an_object_that_is_gone_is_infinitely_far():
    scenes = [render(Shapes(2, "val").scene(i), 9) for i in range(2)]
    erased = torch.stack([s.background.expand_as(s.frames) for s in scenes])
    assert math.isinf(shapes_figures(erased, scenes, 5)["position_error"])
