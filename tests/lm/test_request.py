"""What is asked for is refused before anything is sampled, and the remedy said."""

import numpy as np
import pytest
import torch

from lm.request import Request, parse_story

CLIP = torch.zeros(2, 9, 32, 32, 3, dtype=torch.uint8)
MASK = torch.zeros(32, 32, dtype=torch.bool)
STORY = [("a", 9), ("b", 8)]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"task": "dream"}, "use one of generate"),
        ({"task": "caption"}, r"written by pipe\.caption"),
        ({"task": "predict"}, "needs context: frames to go on from"),
        ({"task": "image-to-video"}, "needs context"),
        ({"task": "class"}, "needs classes"),
        ({"task": "rollout"}, "needs actions"),
        ({"task": "interpolate"}, "needs guide"),
        ({"task": "control"}, "needs guide"),
        ({"task": "inpaint", "guide": CLIP}, "needs mask"),
        ({"task": "outpaint", "mask": MASK}, "needs guide"),
        ({"guide": CLIP}, "no use for a guide.*inpaint"),
        ({"mask": MASK}, "no use for a mask.*outpaint"),
        ({"task": "image-to-video", "context": CLIP}, "9 frames"),
        ({"task": "interpolate", "guide": CLIP, "context": CLIP}, "in the guide alone"),
        ({"story": STORY, "prompts": ["a"]}, "leave prompts out"),
        ({"story": STORY, "task": "interpolate", "guide": CLIP[:, :2]}, "leave the story out"),
        ({"story": STORY, "task": "interpolate", "guide": CLIP[:, :4]}, "leave the story out"),
        ({"prompts": ["a"], "context": CLIP}, "1 prompts, 2 contexts"),
        ({"prompts": ["a", "b"], "seed": [1]}, "2 prompts, 1 seeds"),
        ({"task": "rollout", "actions": torch.zeros(1, 8, 2), "num_frames": 9}, "8 frames"),
        ({"task": "control", "guide": CLIP, "num_frames": 17}, "guide has 9 frames"),
        ({"prompts": []}, "no sample is asked for"),
        ({"seed": ()}, "no sample is asked for"),
    ],
)
def test_what_does_not_belong_together_is_refused(asked, words):
    with pytest.raises(ValueError, match=words):
        Request(**asked)


@pytest.mark.parametrize(
    ("story", "words"),
    [
        ([("a", 16)], r"'a' 16 frames, but part 1 needs 1 \+ 4 k"),
        ([("a", 17), ("b", 17)], "'b' 17 frames, but part 2 needs a multiple of 4"),
        ([("a", 17), ("b", 0)], "'b' 0 frames"),
        ([("a", -3)], "'a' -3 frames"),
        ([], "the story has 0 frames"),
    ],
)
def test_a_story_with_a_bad_duration_is_refused(story, words):
    with pytest.raises(ValueError, match=words):
        Request(story=story, num_frames=1 if not story else None).ends(4, 17)


def test_a_story_of_another_length_than_asked_for_is_refused():
    with pytest.raises(ValueError, match="leave num_frames out"):
        Request(story=STORY, num_frames=21).ends(4, 17)
    assert Request(story=STORY).ends(4, 17) == [9, 17]


def test_a_story_is_read_from_a_line():
    assert parse_story("a red: circle:17;  b :8 ") == [("a red: circle", 17), ("b", 8)]
    for text in ("a", "a:", "a:x", ":17", "a:17;", "a:-4"):
        with pytest.raises(ValueError, match="prompt:frames"):
            parse_story(text)


@pytest.mark.parametrize(
    ("frames", "length", "words"),
    [
        (1, 17, "two key frames or more"),
        (2, 16, "multiple of 4"),
        (2, 21, "at most 16"),
        (3, 17 + 4, "multiple of 4"),
        (2, 1, "use 5 to 17"),
    ],
)
def test_key_frames_that_no_window_joins_are_refused(frames, length, words):
    request = Request(task="interpolate", guide=CLIP[:, :frames], num_frames=length)
    with pytest.raises(ValueError, match=words):
        request.ends(4, 17)


def test_key_frames_stand_at_equal_distances():
    request = Request(task="interpolate", guide=CLIP[:, :3], num_frames=33)
    assert request.ends(4, 17) == [17, 33]
    with pytest.raises(ValueError, match="needs num_frames"):
        _ = Request(task="interpolate", guide=CLIP[:, :3]).length


@pytest.mark.parametrize("shape", [(32, 32), (1, 32, 32), (9, 32, 32), (2, 9, 32, 32)])
def test_a_mask_may_be_a_picture_a_video_or_one_a_sample(shape):
    mask = torch.rand(shape) < 0.5
    hole = Request(task="inpaint", guide=CLIP, mask=mask).hole(32)
    assert hole is not None
    assert hole.shape == (2, 9, 32, 32)
    assert torch.equal(hole[1, 8], mask.reshape(-1, 32, 32)[-1])


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((16, 16), "fills 2 x 9 x 32 x 32; resize both"),
        ((8, 32, 32), "the mask has 8 frames for 1 samples, but the guide 9 for 2"),
        ((3, 9, 32, 32), "the mask has 9 frames for 3 samples, but the guide 9 for 2"),
    ],
)
def test_a_mask_of_another_size_is_refused(shape, message):
    request = Request(task="inpaint", guide=CLIP, mask=torch.zeros(shape, dtype=torch.bool))
    with pytest.raises(ValueError, match=message):
        request.hole(32)


@pytest.mark.parametrize("part", ["actions", "features"])
def test_what_counts_from_the_start_forbids_dropping_frames_there(part):
    rows = {part: torch.zeros(2, 17, 3)}
    with pytest.raises(ValueError, match=f"of which the last 5 can be read, but {part} count"):
        Request(num_frames=17, context=CLIP[:, :7], **rows).known(4)
    assert Request(num_frames=17, context=CLIP[:, :5], **rows).known(4).shape[1] == 5
    assert Request(num_frames=17, context=CLIP[:, :7]).known(4).shape[1] == 5


def test_one_text_is_no_list_of_prompts():
    with pytest.raises((ValueError, TypeError)):  # where annotations are checked, these are first
        Request("a red circle moving left")


@pytest.mark.usefixtures("_without_types")
@pytest.mark.parametrize(("part", "shape"), [("actions", "B T A"), ("features", "B t F")])
def test_rows_without_a_batch_are_refused(part, shape):
    with pytest.raises(ValueError, match=rf"{part} is \(17, 2\), but must be {shape}"):
        Request(**{part: torch.zeros(17, 2)})


def test_one_text_is_no_list_of_classes():
    with pytest.raises(ValueError, match="classes is one text; give a list"):
        Request(task="class", classes="12")


def test_lengths_and_numbers_follow_from_what_is_given():
    assert Request().length == 17
    assert Request(seed=[4, 5, 6]).count == 3
    assert Request(prompts=["a", "b"], seed=7).seeds == [7, 8]
    assert Request(task="control", guide=CLIP).length == 9
    assert Request(task="rollout", actions=torch.zeros(3, 5, 2)).length == 5
    assert Request(task="rollout", actions=torch.zeros(3, 5, 2)).count == 3


def test_seeds_may_be_any_sequence():
    assert Request(seed=(3, 5)).seeds == [3, 5]
    assert Request(seed=range(4, 6), prompts=["a", "b"]).seeds == [4, 5]


@pytest.mark.usefixtures("_without_types")
def test_a_seed_may_be_a_number_of_numpy():
    seeds = np.arange(3, 5)
    assert Request(seed=seeds[0], prompts=["a", "b"]).seeds == [3, 4]
    for seed in (seeds[0], seeds):
        assert all(type(one) is int for one in Request(seed=seed).seeds)
