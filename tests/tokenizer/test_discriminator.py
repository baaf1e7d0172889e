"""Discriminators: what each patch sees, what no statistic joins, what is kept and what is asked."""

import pytest
import torch
from torch import nn

from tokenizer import Adversary, PatchDiscriminator
from training.adversary import turn_of


def judge(**arguments):
    torch.manual_seed(0)
    return PatchDiscriminator(**{"width": 8, "depth": 2, **arguments})


def clip(frames=5, batch=2, size=16):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(batch, 3, frames, size, size, generator=generator) * 2 - 1


def adversary(**arguments):
    judges = [judge(), judge(temporal=True)]
    return Adversary(judges, **{"ramp_steps": 4, **arguments}).requires_grad_(False)


@pytest.mark.parametrize("norm", ["group", "spectral"])
@pytest.mark.parametrize("temporal", [False, True])
def test_there_is_no_batch_norm_and_a_clip_is_judged_alike_in_any_batch(temporal, norm):
    one = judge(temporal=temporal, norm=norm).eval()
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in one.modules())
    together = one(clip())
    alone = torch.cat([one(part) for part in clip().split(1)])
    torch.testing.assert_close(together, alone)


def test_a_judge_of_frames_sees_each_frame_alone():
    one = judge()
    alone = torch.cat([one(frame) for frame in clip().split(1, dim=2)], dim=1)
    torch.testing.assert_close(one(clip()), alone)


def test_a_judge_of_clips_sees_their_order():
    one = judge(temporal=True)
    assert not torch.allclose(one(clip()).sort()[0], one(clip().flip(2)).sort()[0], atol=1e-4)


@pytest.mark.parametrize("frames", [1, 5, 17])
@pytest.mark.parametrize("temporal", [False, True])
def test_images_and_clips_of_any_length_are_judged(temporal, frames):
    assert judge(temporal=temporal)(clip(frames)).shape[0] == 2


@pytest.mark.parametrize("frames", [1, 3, 5, 9])
@pytest.mark.parametrize("temporal", [False, True])
def test_gradients_in_bfloat16_are_those_in_float32_nearly(temporal, frames):
    """Those of the last layers over 2 frames were memory that nobody wrote, NaN now and then."""
    one, gradients = judge(temporal=temporal), []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = one(clip(frames)).square().mean()
        gradients.append(torch.autograd.grad(loss, list(one.parameters())))
    for exact, near in zip(*gradients, strict=True):
        assert (near - exact).norm() <= 0.1 * exact.norm()


def test_spectral_norm_bounds_every_layer():
    one = judge(norm="spectral")
    for layer in one.modules():
        if isinstance(layer, nn.Conv3d):
            layer.weight = 5 * torch.randn_like(layer.weight)  # type: ignore[assignment]
    for _ in range(30):
        one(clip(1))
    one.eval()
    for layer in one.modules():
        if isinstance(layer, nn.Conv3d):
            assert torch.linalg.svdvals(layer.weight.flatten(1))[0].item() == pytest.approx(1, 0.02)


def test_building_needs_no_memory():
    with torch.device("meta"):
        player = Adversary([PatchDiscriminator(norm="spectral"), PatchDiscriminator(True)])
    assert {p.device.type for p in player.parameters()} == {"meta"}


def test_a_clip_too_small_for_the_depth_is_refused():
    with pytest.raises(ValueError, match="needs 4 each way"):
        judge()(clip(1, size=2))


def test_an_adversary_of_no_discriminators_is_refused():
    with pytest.raises(ValueError, match=r"discriminators is \[\].*leave it out"):
        Adversary([])


@pytest.mark.usefixtures("_without_types")
def test_a_norm_or_a_loss_that_there_is_not_is_refused_by_name():
    with pytest.raises(ValueError, match=r"norm is 'batch'.*\['group', 'spectral'\]"):
        judge(norm="batch")
    with pytest.raises(ValueError, match=r"loss is 'wgan'.*\['hinge', 'non-saturating'\]"):
        adversary(loss="wgan")


@pytest.mark.parametrize("loss", ["hinge", "non-saturating"])
def test_the_generators_loss_comes_from_the_discriminators(loss):
    """A peer's takes the frames themselves for logits, so the discriminator is never asked."""
    player, fake = adversary(loss=loss), clip().requires_grad_()
    before = player.generator_loss(fake)
    before.backward()
    assert fake.grad is not None
    assert bool(fake.grad.any())
    assert all(p.grad is None for p in player.parameters())
    for one in player.discriminators:
        one.layers[-1].bias.data += 1  # each judge thinks better of everything
    after = player.generator_loss(fake)
    assert after < before
    if loss == "hinge":
        assert (before - after).item() == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("loss", ["hinge", "non-saturating"])
@pytest.mark.parametrize("options", [{}, {"lecam_weight": 0.1, "r1_weight": 1.0, "r1_every": 2}])
def test_the_discriminators_learn_to_tell_noise_from_smooth_clips(loss, options):
    player = adversary(loss=loss, **options)
    optimizer = torch.optim.AdamW(player.parameters(), lr=2e-3, betas=(0.5, 0.9))
    real = clip()
    fake = real.mean((3, 4), keepdim=True).expand_as(real)
    for step in range(30):
        with turn_of(player):
            total, logs = player.loss(real, fake, step)
            optimizer.zero_grad()
            total.backward()
        assert all(p.grad is not None for p in player.parameters())
        optimizer.step()
    assert logs["right"] > 0.95


def test_only_the_discriminators_learn_in_their_turn():
    player, fake = adversary(), clip().requires_grad_()
    with turn_of(player):
        player.loss(clip(), fake, 0)[0].backward()
    assert fake.grad is None
    assert not any(p.requires_grad for p in player.parameters())


def test_the_weight_is_nothing_before_the_start_and_then_a_ramp():
    player = adversary(start_step=3, weight=0.8)
    weights = [player.weight_at(step) for step in range(9)]
    assert weights == pytest.approx([0, 0, 0, 0.2, 0.4, 0.6, 0.8, 0.8, 0.8])


def test_lecams_means_follow_both_sides_and_lie_in_the_state():
    player = adversary(lecam_weight=0.1)
    real, fake = clip(), -clip()
    with torch.no_grad():
        expected = [0.01 * one(real).mean() for one in player.discriminators]
        player.loss(real, fake, 0)
    state = player.state_dict()
    torch.testing.assert_close(state["real_means"], torch.stack(expected))
    assert bool(state["fake_means"].all())
    twin = adversary(lecam_weight=0.1)
    twin.load_state_dict(state)
    torch.testing.assert_close(twin.loss(real, fake, 1)[0], player.loss(real, fake, 1)[0])
    with torch.no_grad():
        player.loss(real * float("nan"), fake, 2)
    assert bool(player.real_means.isfinite().all())


def test_r1_is_lazy_and_makes_up_for_it():
    player, plain = adversary(r1_weight=2.0, r1_every=4, start_step=1), adversary(start_step=1)
    extra = [
        (player.loss(clip(), -clip(), step)[0] - plain.loss(clip(), -clip(), step)[0]).item()
        for step in range(1, 10)
    ]
    assert [round(e, 6) != 0 for e in extra] == [True, False, False, False] * 2 + [True]
    slopes = []
    for one in player.discriminators:
        pixels = clip().requires_grad_()
        logits = one(pixels)
        (slope,) = torch.autograd.grad(logits.sum(), pixels)
        slopes.append(slope.square().sum() / logits.numel())
    assert extra[0] == pytest.approx(4 * 2.0 / 2 * torch.stack(slopes).mean().item(), rel=1e-3)
