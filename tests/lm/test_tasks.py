"""Guides made of pixels: what they show, what they hide, and where."""

import pytest
import torch
from skimage.filters import sobel

from data.shapes import Shapes
from data.video import to_model_range
from lm import Inputs
from lm.condition import Guide
from lm.tasks import (
    check_training,
    edges,
    end_guide,
    hole_guide,
    random_boxes,
    shrink,
    small_guide,
    touched,
    training_guide,
    with_means,
)

CLIP = torch.rand(2, 3, 9, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def generator():
    return torch.Generator().manual_seed(0)


def test_a_token_is_lost_if_any_of_its_pixels_is_to_be_made():
    """Token by token, against the frames and pixels that it stands for."""
    hole = torch.rand(2, 9, 32, 32, generator=generator()) < 0.003
    lost = touched(hole, (3, 4, 4))
    frames = [range(1), range(1, 5), range(5, 9)]
    for t in range(3):
        for h in range(4):
            for w in range(4):
                part = hole[:, frames[t]][:, :, 8 * h : 8 * h + 8, 8 * w : 8 * w + 8]
                assert torch.equal(lost[:, t, h, w], part.flatten(1).any(1))
    assert 0 < lost.float().mean() < 1


def test_nothing_under_a_hole_reaches_the_tokens(tiny_tokenizer):
    hole = torch.zeros(2, 9, 32, 32, dtype=torch.bool)
    hole[:, :, 4:20, 9:12] = True
    one = hole_guide(tiny_tokenizer.encode, CLIP, hole)
    other = torch.where(hole[:, None], -CLIP, CLIP)
    assert torch.equal(one.tokens, hole_guide(tiny_tokenizer.encode, other, hole).tokens)
    assert one.hole is not None
    assert one.hole[0, 0].tolist() == [[False, True, False, False]] * 3 + [[False] * 4]


def test_the_end_frame_is_an_image_of_its_own_at_its_latent_frame(tiny_tokenizer):
    guide = end_guide(tiny_tokenizer.encode, CLIP[:, :, -1:], 2)
    assert guide.start == 2
    assert torch.equal(guide.tokens, tiny_tokenizer.encode(CLIP[:, :, 8:9]))
    assert guide.tokens.shape == (2, 1, 4, 4)


def test_edges_are_those_of_skimage():
    found = edges(CLIP)
    grey = CLIP.mean(1)
    for b, t in ((0, 0), (1, 8)):
        # skimage divides the length by sqrt 2 and pads by reflection, as does not matter inside.
        expected = torch.from_numpy(sobel(grey[b, t].numpy())) * 2**0.5
        expected = (2 * expected - 1).clamp(max=1).float()
        for channel in range(3):
            part = found[b, channel, t, 1:-1, 1:-1]
            torch.testing.assert_close(part, expected[1:-1, 1:-1], atol=1e-5, rtol=0)
    assert (edges(torch.full_like(CLIP, 0.3)) == -1).all()


def test_edges_show_the_shape():
    frames = Shapes(1).read(0, 1).frames
    bright = edges(to_model_range(frames[None]))[0, 0, 0] > 0
    moved = (frames[0].int() - frames[0, 0, 0].int()).abs().amax(-1) > 60
    assert bright.any()
    # Every edge is within a pixel of the object's rim.
    rim = torch.nn.functional.max_pool2d(moved[None].float(), 5, 1, 2)[0] > 0
    assert (bright <= rim).all()


def test_a_small_clip_has_the_means_of_four_pixels_and_lies_on_every_other_place(tiny_tokenizer):
    small = shrink(CLIP)
    expected = torch.nn.functional.avg_pool2d(CLIP.flatten(0, 1), 2).view(2, 3, 9, 16, 16)
    torch.testing.assert_close(small, expected)
    guide = small_guide(tiny_tokenizer.encode, small)
    assert (guide.tokens.shape, guide.step) == ((2, 3, 2, 2), 2)


def test_a_clip_takes_the_means_of_its_small_copy():
    other = torch.rand(CLIP.shape, generator=generator()) * 2 - 1
    made = with_means(other, shrink(CLIP))
    torch.testing.assert_close(shrink(made), shrink(CLIP))
    torch.testing.assert_close(with_means(CLIP, shrink(CLIP)), CLIP)
    # Of detail that no mean shows, all is left.
    detail = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(16, 16)
    torch.testing.assert_close(with_means(CLIP + detail, shrink(CLIP)), CLIP + detail)


def test_a_smooth_fault_is_mended_smoothly():
    """Of waves of eight pixels a shift of all four pixels alike leaves a quarter of the energy."""
    ramp = torch.arange(32) * (2 * torch.pi / 8)
    fault = (ramp.cos()[:, None] * ramp.sin()).expand(CLIP.shape)
    left = with_means(CLIP + fault, shrink(CLIP)) - CLIP
    inner = left[..., 4:-4, 4:-4].square().mean() / fault[..., 4:-4, 4:-4].square().mean()
    assert inner < 0.001


@pytest.mark.parametrize("sides", [(0.25, 0.6), (0.4, 0.9)])
def test_boxes_have_the_sides_asked_for_and_lie_anywhere(sides):
    clips = torch.zeros(1, 1).expand(3000, 1)[:, :, None, None, None].expand(-1, 3, 2, 40, 40)
    boxes = random_boxes(clips, sides, generator())
    assert torch.equal(boxes[:, 0], boxes[:, 1])
    heights = boxes[:, 0].any(2).sum(1)
    assert heights.min() >= 40 * sides[0] - 1
    assert heights.max() <= 40 * sides[1] + 1
    assert heights.double().mean() == pytest.approx(20 * sum(sides), abs=0.5)
    area = boxes[:, 0].flatten(1).sum(1)
    assert torch.equal(area, heights * boxes[:, 0].any(1).sum(1))
    assert boxes[:, 0, 0, 0].any()
    assert boxes[:, 0, -1, -1].any()


def test_each_task_hides_or_shows_what_it_should(tiny_tokenizer):
    def made(task) -> Guide | None:
        return training_guide(task, CLIP, tiny_tokenizer.encode, 3, generator())

    holes = {task: made(task).hole for task in ("inpaint", "outpaint")}
    assert holes["inpaint"][:, :, 0, 0].sum() < holes["outpaint"][:, :, 0, 0].sum()
    assert all(0 < hole.float().mean() < 1 for hole in holes.values())
    assert made("interpolate").start == 2
    assert torch.equal(made("control").tokens, tiny_tokenizer.encode(edges(CLIP)))
    assert made("upscale").step == 2
    assert made("generate") is made("class") is made("rollout") is None


@pytest.mark.parametrize(
    ("tasks", "inputs", "words"),
    [
        ({}, {}, "name one or more"),
        ({"generate": 0.0}, {}, "weights above 0"),
        ({"generate": 1.0, "inpaint": 1.0}, {}, "add inpaint"),
        ({"class": 1.0}, {}, "num_classes"),
        ({"rollout": 1.0}, {}, "action_ranges"),
    ],
)
def test_a_mixture_that_the_prior_cannot_learn_is_refused(tasks, inputs, words):
    with pytest.raises(ValueError, match=words):
        check_training(tasks, Inputs(**inputs))
