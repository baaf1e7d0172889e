"""Two requests for a long video: what each is told."""

import pytest
import torch

from lm import AutoregressivePrior, MaskGITPrior, Transformer
from lm.key_frames import key_frames, shared_sampling
from lm.request import Request
from lm.sampling import Sampling

STORY = [("left", 17), ("up", 16), ("right", 32)]


def test_the_filling_sees_key_frames_and_is_told_nothing():
    for asked in ({"prompts": ["left", "up"]}, {"classes": [0, 1], "task": "class"}):
        keys, filling = key_frames(Request(num_frames=33, **asked), 8, 32)
        assert (keys.prompts, keys.classes) == (asked.get("prompts"), asked.get("classes"))
        assert (keys.length, filling.length) == (5, 33)
        assert filling.guide is not None
        assert filling.guide.shape == (2, 5, 32, 32, 3)
        assert (filling.prompts, filling.classes, filling.story) == (None, None, None)
        assert filling.count == 2
        assert not set(filling.seeds) & set(keys.seeds)


def test_the_parts_of_a_story_end_with_key_frames():
    keys, filling = key_frames(Request(story=STORY), 16, 32)
    assert keys.story == [("left", 2), ("up", 1), ("right", 2)]
    assert keys.ends(1, 4) == [2, 3, 5]
    assert filling.ends(4, 17) == [17, 33, 49, 65]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"story": [("a", 16), ("b", 16)]}, r"'a' 16 frames.*part 1 needs 1 \+ 16 k"),
        ({"story": [("a", 17), ("b", 24)]}, "'b' 24 frames.*part 2 needs a multiple of 16"),
        ({"story": [("a", 17), ("b", 0)]}, "part 2 needs"),
        ({"story": [("a", -15)]}, "part 1 needs"),
        ({"story": STORY, "num_frames": 33}, "story has 65 frames, but the video 33; leave the"),
        ({"num_frames": 34}, "34 frames, but key frames stand 16 apart; use 33 or 49"),
        ({"task": "rollout", "actions": torch.zeros(1, 33, 2)}, "leave actions or the key frames"),
        ({"features": torch.zeros(1, 9, 2), "num_frames": 33}, "leave features or"),
        (
            {"context": torch.zeros(1, 5, 8, 8, 3, dtype=torch.uint8), "num_frames": 33},
            "from one picture, but the context has 5 frames",
        ),
    ],
)
def test_what_key_frames_cannot_be_told_is_refused(asked, words):
    with pytest.raises(ValueError, match=words):
        key_frames(Request(**asked), 16, 32)


def test_a_decoder_s_control_is_for_the_filling():
    control = torch.zeros(1, 17, 32, 32, 3, dtype=torch.uint8)
    keys, filling = key_frames(Request(control=control), 16, 32)
    assert keys.control is None
    assert filling.control is control


@pytest.mark.parametrize(
    ("kinds", "steps"),
    [
        ([AutoregressivePrior, MaskGITPrior], (None, 8)),
        ([MaskGITPrior, AutoregressivePrior], (8, None)),
        ([MaskGITPrior, MaskGITPrior], (8, 8)),
        ([AutoregressivePrior, AutoregressivePrior], (None, 8)),  # perhaps for its decoder
    ],
)
def test_steps_go_to_the_priors_that_take_them(kinds, steps):
    key_prior, prior = (
        kind(Transformer(width=32, depth=1, num_heads=2), codebook_size=8, grid=[2, 2, 2])
        for kind in kinds
    )
    ours, rest = shared_sampling(Sampling(2.0, 0.5, steps=8), key_prior, prior)
    assert (ours, rest) == (Sampling(2.0, 0.5, steps=steps[0]), Sampling(1.0, 0.5, steps=steps[1]))


def test_noise_of_the_choice_goes_to_a_masked_prior_alone():
    build = lambda kind: kind(Transformer(width=32, depth=1, num_heads=2), 8, [2, 2, 2])
    masked, other = build(MaskGITPrior), build(AutoregressivePrior)
    asked = Sampling(choice_temperature=1.0)
    for priors in ((masked, other), (other, masked)):
        for prior, told in zip(priors, shared_sampling(asked, *priors), strict=True):
            prior.check_sampling(told, 4)
            assert (told == asked) == (prior is masked)
