"""Intervals against the spread that is seen when the whole experiment is repeated."""

from functools import partial

import pytest
import torch

from evaluation.bootstrap import estimate, weighted_mean
from evaluation.frechet import feature_distance


def test_the_interval_of_a_mean_is_the_textbook_one():
    rows = torch.randn(400, generator=torch.Generator().manual_seed(0)).double()
    value, low, high = estimate(partial(weighted_mean, rows), 400, num_replicates=2000)
    half = 1.96 * rows.std() / 20
    assert value == pytest.approx(rows.mean())
    assert (low.item(), high.item()) == pytest.approx(
        ((value - half).item(), (value + half).item()), abs=0.1 * half.item()
    )


def test_ninety_five_in_a_hundred_intervals_cover():
    generator = torch.Generator().manual_seed(1)
    covered = 0
    for seed in range(300):
        rows = torch.rand(50, generator=generator).double() ** 2
        _, low, high = estimate(partial(weighted_mean, rows), 50, seed=seed)
        covered += bool(low <= 1 / 3 <= high)
    assert 0.9 < covered / 300 < 0.98


def test_the_interval_of_a_frechet_distance_has_the_width_of_repeated_experiments():
    generator = torch.Generator().manual_seed(2)

    def draw():
        features = torch.randn(2, 300, 8, generator=generator, dtype=torch.float64)
        return features[0], features[1] * 1.2 + 0.2

    repeated = torch.stack([feature_distance(*draw()) for _ in range(200)])
    widths = []
    for _ in range(5):
        real, fake = draw()
        value, low, high = estimate(lambda w, x=real, y=fake: feature_distance(x, y, w, w), 300)
        assert low < value < high
        widths.append(high - low)
    ends = torch.quantile(repeated, torch.tensor([0.025, 0.975], dtype=torch.float64))
    spread = (ends[1] - ends[0]).item()
    assert torch.stack(widths).mean().item() == pytest.approx(spread, rel=0.3)


def test_a_weight_says_how_often_a_clip_counts():
    generator = torch.Generator().manual_seed(3)
    real, fake = torch.randn(2, 9, 3, generator=generator, dtype=torch.float64)
    weights = torch.tensor([2.0, 0, 1, 1, 3, 0, 1, 0, 1], dtype=torch.float64)
    repeats = weights.long()
    for covariance in ("unbiased", "population"):
        expected = feature_distance(
            real.repeat_interleave(repeats, 0),
            fake.repeat_interleave(repeats, 0),
            covariance=covariance,
        )
        weighted = feature_distance(real, fake, weights, weights, covariance)
        assert weighted == pytest.approx(expected.item())


def test_figures_of_several_numbers_have_an_interval_each():
    rows = torch.rand(30, 5, generator=torch.Generator().manual_seed(0)).double()
    value, low, high = estimate(partial(weighted_mean, rows), 30)
    assert value.shape == low.shape == high.shape == (5,)
    assert (low < value).all()
    assert (value < high).all()


def test_one_clip_or_no_draw_gives_no_interval():
    rows = torch.rand(4).double()
    for count, draws in ((1, 200), (4, 0)):
        result = estimate(partial(weighted_mean, rows[:count]), count, num_replicates=draws)
        assert result.low.isnan()
        assert result.high.isnan()
        assert result.value == pytest.approx(rows[:count].mean())
