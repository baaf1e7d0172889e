"""Losses against closed forms and slower ways to the same gradient."""

import pytest
import torch
from torch import nn

from tokenizer.losses import (
    adaptive_weight,
    balanced_loss,
    hinge_generator_loss,
    hinge_loss,
    lecam_penalty,
    non_saturating_generator_loss,
    non_saturating_loss,
    quantizer_weight,
    r1_penalty,
)

REAL, FAKE = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0, 1.0])


def test_the_hinge_stops_where_an_answer_is_sure():
    assert hinge_loss(REAL, FAKE).item() == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1 + 2) / 3)
    assert hinge_generator_loss(FAKE).item() == pytest.approx(2 / 3)


def test_the_non_saturating_losses_are_cross_entropies():
    ask = nn.BCEWithLogitsLoss()
    ones, zeros = torch.ones(3), torch.zeros(3)
    expected = ask(REAL, ones) + ask(FAKE, zeros)
    torch.testing.assert_close(non_saturating_loss(REAL, FAKE), expected)
    torch.testing.assert_close(non_saturating_generator_loss(FAKE), ask(FAKE, ones))


def test_lecam_pulls_each_side_towards_the_other_one():
    penalty = lecam_penalty(REAL, FAKE, torch.tensor(0.5), torch.tensor(-0.5))
    above = (2.5**2 + 1.0**2 + 0) / 3
    below = (3.5**2 + 0.5**2 + 0) / 3
    assert penalty.item() == pytest.approx(above + below)


def test_r1_is_the_squared_slope_of_a_plane():
    clip = torch.randn(2, 3, 1, 4, 4, requires_grad=True)
    slope = torch.randn(3, 1, 4, 4)
    logits = torch.stack([(clip * slope).sum((1, 2, 3, 4))] * 5, dim=1)  # five equal patches
    expected = (5 * slope).square().sum() / 5
    torch.testing.assert_close(r1_penalty(logits, clip), expected)


def test_the_quantizers_weight_falls_from_three_to_one():
    assert [quantizer_weight(step, 4) for step in (0, 1, 2, 4, 9)] == [3, 2.5, 2, 1, 1]
    assert quantizer_weight(0, 0) == 1


def test_the_adaptive_weight_is_a_guarded_ratio():
    a, b = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0])
    assert adaptive_weight(a, b).item() == pytest.approx(2.5, rel=1e-4)
    assert adaptive_weight(a, b * 0).item() == 1e4
    assert adaptive_weight(a * 0, b * 0).item() == 0
    assert adaptive_weight(a * 1e4, b * 0).item() == 1e4
    assert adaptive_weight(a * float("nan"), b).item() == 0
    assert adaptive_weight(a, b * float("inf")).item() == 0
    assert adaptive_weight(a.bfloat16(), b.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("weight", [0.0, 0.2])
def test_the_balanced_loss_is_the_sum_in_value_and_gradient(weight):
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Conv3d(3, 8, 1), nn.SiLU(), nn.Conv3d(8, 3, 1))
    judge, noise, truth = nn.Conv3d(3, 1, 3), *torch.randn(2, 2, 3, 3, 8, 8)
    last = generator[2].weight
    judge.requires_grad_(False)

    def losses():
        clip = generator(noise)
        return clip, (clip - truth).abs().mean(), -judge(clip).tanh().mean()

    def gradients(loss, of):
        return torch.autograd.grad(loss, list(of), retain_graph=True)

    _, near, fooled = losses()
    ratio = gradients(near, [last])[0].norm() / (gradients(fooled, [last])[0].norm() + 1e-4)
    expected = near + weight * ratio * fooled
    clip, near, fooled = losses()
    loss, adaptive = balanced_loss(near, fooled, clip, last, weight)
    torch.testing.assert_close(adaptive, ratio)
    torch.testing.assert_close(loss, expected)
    slow, fast = (gradients(x, generator.parameters()) for x in (expected, loss))
    for a, b in zip(slow, fast, strict=True):
        torch.testing.assert_close(a, b)


def test_the_balanced_loss_asks_each_loss_once():
    """Peers go back through the discriminator twice, once for the weight and once to learn."""
    calls = []

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, *gradients):
            calls.append(1)
            return gradients[0]

    last = nn.Parameter(torch.ones(1))
    clip = torch.randn(1, 3, 1, 4, 4) * last
    near, fooled = clip.abs().mean(), Counted.apply(clip).mean()
    balanced_loss(near, fooled, clip, last, 0.5)[0].backward()
    assert len(calls) == 1
