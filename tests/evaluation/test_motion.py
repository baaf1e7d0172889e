"""Block matching on pictures whose motion is known, and VBench's rule on flows made by hand."""

import pytest
import torch

from data.shapes import Combination, Scene, render
from evaluation import motion
from evaluation.motion import block_flow, flow_of, is_dynamic, warping


@pytest.fixture
def picture():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (64, 64, 3), generator=generator, dtype=torch.uint8)


def moving(picture, down, right, frames=5):
    return torch.stack([picture.roll((t * down, t * right), (0, 1)) for t in range(frames)])


@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, -3), (-4, 4)])
def test_a_rolled_picture_gives_its_shift(picture, down, right):
    flow = flow_of(moving(picture, down, right))
    inside = flow[:, 12:-12, 12:-12]
    assert (inside == torch.tensor([down, right])).all()


def test_a_drawn_object_moves_at_its_speed_and_the_wall_stands_still():
    combination = Combination("red", "square", "right")
    scene = Scene(combination, 20.0, 3.0, (20.0, 32.0), "plain", background_seed=1)
    rendered = render(scene, 6)
    flow = flow_of(rendered.frames)
    inside = rendered.mask[:-1] & rendered.mask[1:]
    moved = flow[inside].float().mean(0)
    # The middle of a plain square looks the same everywhere: it may stand still.
    assert 1 < moved[1] <= 3.2
    assert abs(moved[0]) < 0.2
    assert not flow[:, :10].any()


def test_flow_survives_noise_in_the_levels(picture):
    generator = torch.Generator().manual_seed(1)
    clip = moving(picture // 2, 1, 2).short() + torch.randint(
        -9, 10, (5, 64, 64, 3), generator=generator
    )
    flow = flow_of(clip.clamp(0, 255).byte())[:, 12:-12, 12:-12]
    assert (flow == torch.tensor([1, 2])).all(-1).float().mean() > 0.99


def test_a_neighbourhood_is_averaged_as_far_as_it_lies_in_the_picture():
    pictures = torch.rand(2, 20, 30, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.avg_pool2d(pictures, 9, 1, 4, count_include_pad=False)
    torch.testing.assert_close(motion._neighbourhood(pictures), expected)


def test_dynamic_follows_vbenchs_rule():
    """16 pairs of 64 pixels at 8 frames a second: 4 of them must pass 1.5 pixels."""
    flow = torch.zeros(16, 64, 64, 2, dtype=torch.int64)
    flow[:3, :32] = 2
    assert not is_dynamic(flow)
    flow[3, :2] = 40  # 3 % of the pixels, yet the 5 % longest are 24 long on average
    assert is_dynamic(flow)
    # At 16 frames a second a pixel of motion is twice as fast.
    flow = torch.zeros(16, 64, 64, 2, dtype=torch.int64)
    flow[..., 0] = 1
    assert not is_dynamic(flow)
    assert is_dynamic(flow, fps=16.0)


def test_a_moving_picture_warps_onto_itself_and_a_shuffled_one_does_not(picture):
    clip = moving(picture, 2, 1, frames=6)
    result = warping(clip, flow_of(clip))
    assert result.error.max() < 0.01
    assert result.share.min() > 0.6
    strange = torch.stack([picture.flip(0), picture, picture.flip(1)])
    assert warping(strange, flow_of(strange)).error.min() > 10 * result.error.max()


def test_a_still_clip_is_neither_dynamic_nor_in_error(picture):
    clip = picture.expand(4, -1, -1, -1).contiguous()
    flow = flow_of(clip)
    assert not flow.any()
    assert not is_dynamic(flow)
    result = warping(clip, flow)
    assert not result.error.any()
    assert (result.share == 1).all()
    with pytest.raises(ValueError, match="1 frame, but motion needs at least 2"):
        flow_of(clip[:1])


def test_reach_bounds_the_way(picture):
    clip = moving(picture, 0, 5, frames=2)
    assert block_flow(clip[:1], clip[1:], reach=3).abs().max() <= 3
