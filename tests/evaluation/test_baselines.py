"""Baselines on motion that they get right, and copies that are found."""

import pytest
import torch

from evaluation.baselines import BASELINES, Neighbours, copy_last, linear, mean_frame


@pytest.fixture
def clips():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (6, 9, 32, 32, 3), generator=generator).byte()


def test_a_steady_fade_is_exactly_linear():
    fade = (10 * torch.arange(1, 10)).byte().reshape(1, 9, 1, 1, 1).expand(1, 9, 4, 4, 3)
    assert torch.equal(linear(fade[:, :3], 6), fade[:, 3:])
    assert torch.equal(copy_last(fade[:, :3], 6), torch.full((1, 6, 4, 4, 3), 30).byte())
    assert torch.equal(mean_frame(fade[:, :3], 2), torch.full((1, 2, 4, 4, 3), 20).byte())


def test_extrapolation_stays_within_the_levels():
    bright = torch.tensor([100, 200]).byte().reshape(1, 2, 1, 1, 1).expand(1, 2, 4, 4, 3)
    assert (linear(bright, 40) == 255).all()
    assert (linear(bright.flip(1), 40)[:, 1:] == 0).all()
    assert torch.equal(linear(bright[:, :1], 3), copy_last(bright[:, :1], 3))


def test_baselines_have_the_length_that_is_asked_for(clips):
    for go_on in BASELINES.values():
        assert go_on(clips[:, :2], 7).shape == (6, 7, 32, 32, 3)


def test_a_copy_is_found_among_the_training_clips(clips):
    training = Neighbours(list(clips))
    index, distance = training.nearest(clips[[4, 1]])
    assert index.tolist() == [4, 1]
    assert distance.max() < 1e-6
    noisy = (clips[2:3].short() + 3).clamp(0, 255).byte()
    index, distance = training.nearest(noisy)
    assert index.tolist() == [2]
    other = torch.randint(256, (1, 9, 32, 32, 3), generator=torch.Generator().manual_seed(9)).byte()
    assert training.nearest(other)[1] > 10 * distance
    # Averaged over cells of 2 x 2 pixels, independent noise keeps a quarter of its variance.
    assert training.nearest(other)[1].item() == pytest.approx(2 / 12 / 4, rel=0.1)


def test_retrieval_goes_on_as_the_nearest_clip_does(clips):
    assert torch.equal(Neighbours(list(clips)).go_on(clips[3:4, :5], 4), clips[3:4, 5:])
