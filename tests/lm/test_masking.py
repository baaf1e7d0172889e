"""What training hides: shares by the schedule, whole first frames, random tokens."""

import math

import pytest
import torch

from lm.masking import corrupt, draw_frame_masks, draw_masks, lowest, masked_share, num_steps


def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("cosine", [1, math.cos(math.pi / 8), math.sqrt(0.5), 0]),
        ("linear", [1, 0.75, 0.5, 0]),
        ("exponential", [15 / 16, 7 / 8, 3 / 4, 0]),
    ],
)
def test_schedules_are_those_of_the_paper(schedule, expected):
    ratio = torch.tensor([0, 0.25, 0.5, 1], dtype=torch.double)
    share = masked_share(schedule, ratio, torch.tensor([16] * 4))
    torch.testing.assert_close(share, torch.tensor(expected, dtype=torch.double))


def test_training_masks_a_quarter_whole_and_every_share_as_often():
    masked = draw_masks(torch.Size([24_000, 3, 2, 4]), 0.0, generator())
    assert torch.equal(masked.sum(1).bincount(), torch.tensor([0] + [750] * 23 + [6750]))
    assert masked.double().mean(0).std() < 0.01
    # No clip of a batch is tied to a share.
    few = [draw_masks(torch.Size([4, 3, 2, 4]), 0.0, g).sum(1) for g in [generator()] * 200]
    assert torch.stack(few).double().mean(0).std() < 1.5


def test_training_gives_whole_first_frames_as_a_continuation_has_them():
    masked = draw_masks(torch.Size([4000, 3, 2, 4]), 1.0, generator()).view(-1, 3, 8)
    assert not masked[:, 0].any()
    one = masked[:, 1].any(1)
    assert one.double().mean().item() == pytest.approx(0.5, abs=0.05)
    assert masked[:, 2].any(1).double().mean() > 0.9


def test_each_latent_frame_has_a_share_of_its_own():
    masked = draw_frame_masks(torch.Size([24_000, 1, 2, 4]), 0.9, generator())
    assert torch.equal(masked.sum(1).bincount(), torch.tensor([0] + [2250] * 7 + [8250]))
    masked = draw_frame_masks(torch.Size([6000, 4, 2, 4]), 0.5, generator()).view(-1, 4, 8)
    hidden = masked.any(-1)
    assert hidden.any(1).all()
    # One of a clip's is never given, the others half of the time.
    assert hidden.double().mean(0).tolist() == pytest.approx([0.625] * 4, abs=0.02)
    counts = masked.sum(-1)[hidden].bincount().double()
    expected = [0.75 / 8] * 7 + [0.75 / 8 + 0.25]
    assert (counts[1:] / counts.sum()).tolist() == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    ("steps", "unknown", "expected"),
    [
        (None, [320], [12]),
        (None, [64] * 5, [8, 1, 1, 1, 1]),
        (24, [64] * 5, [16, 2, 2, 2, 2]),
        (None, [0, 64, 64], [0, 6, 6]),
        (None, [2, 0, 1], [2, 0, 1]),
        (None, [8] * 20, [1] * 20),
        (6, [8] * 5, [2, 1, 1, 1, 1]),
        (5, [1, 4, 0], [1, 4, 0]),
    ],
)
def test_steps_go_where_most_is_unknown(steps, unknown, expected):
    assert num_steps(steps, unknown) == expected


def test_corruption_replaces_up_to_its_share_of_tokens():
    tokens = torch.zeros(4000, 24, dtype=torch.long)
    changed = corrupt(tokens, 17, 0.4, generator()) != 0
    assert changed.double().mean().item() == pytest.approx(0.2 * 16 / 17, abs=0.01)
    assert changed.double().mean(1).max() <= 0.4 + 0.35
    assert torch.equal(corrupt(tokens, 17, 0.0, None), tokens)


def test_lowest_takes_the_count_of_each_row():
    values = torch.tensor([[3.0, 1.0, 2.0], [1.0, 3.0, torch.inf]])
    expected = torch.tensor([[False, True, True], [False, False, False]])
    assert torch.equal(lowest(values, torch.tensor([2, 0])), expected)
