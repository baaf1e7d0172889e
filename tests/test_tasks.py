"""Every task through the pipeline: known pixels stay, parts join, streams are the whole."""

import copy
from functools import partial

import pytest
import torch

from layers.storage import read_manifest, save_module, write_manifest
from lm import AutoregressivePrior, MaskGITPrior
from lm.request import NEEDS, Request
from lm.sampling import Sampling
from pipeline import VideoPipeline
from tokenizer import FrameTokenizer

PROMPTS = ["a red circle moving left", "a blue square moving up"]
CLIP = torch.randint(
    256, (2, 9, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
MASK = torch.zeros(32, 32, dtype=torch.bool)
MASK[5:20, 9:30] = True
TASKS = ["generate", "interpolate", "inpaint", "outpaint", "control", "upscale"]
ALL = [*TASKS, "caption"]


@pytest.fixture(
    params=[AutoregressivePrior, MaskGITPrior, partial(MaskGITPrior, causal=True)],
    ids=["autoregressive", "masked", "masked, frame after frame"],
)
def pipe(request, tiny_tokenizer, new_pipe):
    tasks = ALL if request.param is AutoregressivePrior else TASKS
    return new_pipe(
        tiny_tokenizer, tasks, request.param, num_classes=2, action_ranges=[[-1.0, 1.0]]
    )


@pytest.mark.parametrize("task", ["inpaint", "outpaint"])
@pytest.mark.parametrize("frames", [9, 17])
def test_known_pixels_stay_exactly_as_they_are(pipe, task, frames):
    guide = torch.cat([CLIP, CLIP.flip(1)[:, 1:]], 1)[:, :frames]
    made = pipe.generate(PROMPTS, task=task, guide=guide, mask=MASK)
    assert torch.equal(made[:, :, ~MASK], guide[:, :, ~MASK])
    assert not torch.equal(made[:, :, MASK], guide[:, :, MASK])
    hidden = guide.clone()
    hidden[:, :, MASK] = 255 - hidden[:, :, MASK]
    assert torch.equal(pipe.generate(PROMPTS, task=task, guide=hidden, mask=MASK), made)


def test_a_mask_of_one_frame_leaves_the_others_alone(pipe):
    mask = torch.zeros(9, 32, 32, dtype=torch.bool)
    mask[6] = True
    made = pipe.generate(PROMPTS, task="inpaint", guide=CLIP, mask=mask)
    assert (made != CLIP).flatten(2).any(2).tolist() == [[k == 6 for k in range(9)]] * 2


def test_an_interpolation_passes_through_its_key_frames(pipe):
    made = pipe.generate(PROMPTS, 17, task="interpolate", guide=CLIP[:, :3])
    assert made.shape == (2, 17, 32, 32, 3)
    assert torch.equal(made[:, ::8], CLIP[:, :3])
    other = CLIP[:, :3].clone()
    other[:, 2] = 255 - other[:, 2]
    again = pipe.generate(PROMPTS, 17, task="interpolate", guide=other)
    assert torch.equal(again[:, :9], made[:, :9])
    assert not torch.equal(again[:, 9:16], made[:, 9:16])


@pytest.mark.parametrize("task", ["control", "upscale", "rollout", "class"])
def test_what_is_given_decides_what_is_made(pipe, task):
    given = {
        "control": {"guide": CLIP},
        "upscale": {"guide": CLIP[:, :, ::2, ::2]},
        "rollout": {"actions": torch.linspace(-1, 1, 18).view(2, 9, 1), "context": CLIP[:, :1]},
        "class": {"classes": ["cat", "dog"], "num_frames": 9},
    }[task]
    changed = {
        "control": {"guide": CLIP.flip(3)},
        "upscale": {"guide": CLIP[:, :, 1::2, 1::2].flip(3)},
        "rollout": {"actions": torch.linspace(1, -1, 18).view(2, 9, 1)},
        "class": {"classes": ["dog", "cat"]},
    }[task]
    made = pipe.generate(task=task, **given)
    assert made.shape == (2, 9, 32, 32, 3)
    assert torch.equal(made, pipe.generate(task=task, **given))
    assert not torch.equal(made, pipe.generate(task=task, **{**given, **changed}))


def test_a_class_has_a_name_and_a_number(pipe):
    named = pipe.generate(task="class", classes=["dog"], num_frames=5)
    assert torch.equal(named, pipe.generate(task="class", classes=[1], num_frames=5))


def test_a_story_changes_only_what_comes_after(pipe):
    one = pipe.generate(story=[(PROMPTS[0], 9), (PROMPTS[1], 8), (PROMPTS[0], 4)])
    other = pipe.generate(story=[(PROMPTS[0], 9), (PROMPTS[0], 8), (PROMPTS[0], 4)])
    assert one.shape == (1, 21, 32, 32, 3)
    assert torch.equal(one[:, :9], other[:, :9])
    assert not torch.equal(one[:, 9:17], other[:, 9:17])


@pytest.mark.parametrize("asked", [{}, {"context": CLIP[:, :5]}, {"story": [(PROMPTS[0], 33)]}])
def test_a_stream_is_the_whole_in_pieces(pipe, asked):
    length = {} if "story" in asked else {"num_frames": 33}
    pieces = list(pipe.stream(Request(seed=3, **length, **asked), Sampling(steps=None)))
    assert len(pieces) > 3
    whole = pipe.generate(seed=3, **length, **asked)
    assert torch.equal(torch.cat(pieces, 1), whole)


def test_a_stream_holds_half_a_window_however_long_it_is(pipe, monkeypatch):
    """The context of each window is bounded, and nothing else is kept."""
    seen, encode = [], pipe.tokenizer.encode
    monkeypatch.setattr(
        pipe.tokenizer, "encode", lambda clip: seen.append(clip.shape[2]) or encode(clip)
    )
    stream = pipe.stream(Request(num_frames=8001))
    shapes = [next(stream).shape[1] for _ in range(6)]
    assert (shapes, seen) == ([9, 4, 4, 4, 4, 4], [5] * 5)


def test_each_window_has_the_features_of_its_own_time(tiny_tokenizer, new_pipe, monkeypatch):
    pipe, seen = new_pipe(tiny_tokenizer, ["generate"], feature_size=1), []
    sample = pipe.prior.sample

    def watched(condition, *arguments, **options):
        seen.append(condition.features[0, :, 0].tolist())
        return sample(condition, *arguments, **options)

    monkeypatch.setattr(pipe.prior, "sample", watched)
    rows = torch.arange(5.0)[None, :, None]
    assert pipe.generate(num_frames=17, features=rows).shape[1] == 17
    assert seen == [[0, 1, 2], [1, 2, 3], [2, 3, 4]]
    with pytest.raises(ValueError, match="4 rows, but the video has 5"):
        pipe.generate(num_frames=17, features=rows[:, 1:])


def test_nothing_is_sampled_before_all_is_checked(pipe, monkeypatch):
    def never(*args, **options):
        raise AssertionError

    monkeypatch.setattr(pipe.prior, "sample", never)
    bad_story = [(PROMPTS[0], 9), ("a red circle " * 9, 8)]
    actions = torch.zeros(1, 33, 1)
    actions[0, 32] = 2
    for asked, words in (
        ({"story": bad_story}, "reads 24"),
        ({"task": "rollout", "actions": actions}, "at frame 32 is 2 in"),
        ({"task": "rollout", "actions": actions[:, :, [0, 0]]}, "2 dimensions"),
        ({"task": "class", "classes": [2]}, "knows 2 classes"),
        ({"task": "class", "classes": ["cow"]}, "'cow' is no class of this model; it knows cat"),
        ({"task": "interpolate", "guide": CLIP[:, :1], "num_frames": 9}, "two key frames"),
        ({"task": "inpaint", "guide": CLIP, "mask": MASK[:16]}, "resize both"),
        ({"task": "inpaint", "guide": CLIP[:, :8], "mask": MASK}, "use 5 or 9"),
        ({"features": torch.zeros(1, 5, 3)}, "trained with 0"),
    ):
        with pytest.raises(ValueError, match=words):
            pipe.stream(Request(**asked))


def test_more_steps_than_the_last_window_has_tokens_are_refused_at_once(
    tiny_tokenizer, monkeypatch, new_pipe
):
    pipe = new_pipe(tiny_tokenizer, TASKS, MaskGITPrior)
    monkeypatch.setattr(pipe.prior, "fill", None)
    with pytest.raises(ValueError, match="16 unknown tokens"):  # of one latent frame
        pipe.stream(Request(num_frames=8005), Sampling(steps=17))


def test_a_model_without_a_task_says_so(tiny_tokenizer, new_pipe):
    pipe = new_pipe(tiny_tokenizer, ["generate"])
    for task, given in (
        ("control", {"guide": CLIP}),
        ("interpolate", {"guide": CLIP[:, :2], "num_frames": 9}),
    ):
        with pytest.raises(ValueError, match="trained for generate;"):
            pipe.generate(task=task, **given)
    with pytest.raises(ValueError, match="without actions"):
        pipe.generate(task="rollout", actions=torch.zeros(1, 9, 1))
    with pytest.raises(ValueError, match="trained for generate;"):
        pipe.caption(CLIP)


def test_captions_are_text(tiny_tokenizer, new_pipe):
    pipe = new_pipe(tiny_tokenizer, ALL)
    texts = pipe.caption(CLIP)
    assert [type(text) for text in texts] == [str, str]
    assert pipe.caption(CLIP[1:]) == texts[1:]
    masked = new_pipe(tiny_tokenizer, TASKS, MaskGITPrior)
    with pytest.raises(ValueError, match="writes no text"):
        masked.caption(CLIP)


def test_a_saved_model_keeps_its_classes_and_the_tokenizer_of_its_guides(
    tiny_tokenizer, tmp_path, new_pipe
):
    pipe = new_pipe(tiny_tokenizer, ALL, guide_codebook_size=200, num_classes=2)
    pipe = VideoPipeline(
        pipe.tokenizer, 32, 8.0, pipe.prior, pipe.text, None, ["cat", "dog"], tiny_tokenizer
    )
    pipe.save_pretrained(tmp_path)
    again = VideoPipeline.from_pretrained(tmp_path)
    assert again.classes == ["cat", "dog"]
    asked = {"task": "upscale", "guide": CLIP[:, :, ::2, ::2]}
    assert torch.equal(again.generate(**asked), pipe.generate(**asked))


def test_a_model_refuses_other_guides_than_those_it_was_trained_with(
    tiny_tokenizer, tmp_path, new_pipe
):
    prior, other = new_pipe(tiny_tokenizer, TASKS).prior, copy.deepcopy(tiny_tokenizer)
    other.encoder.project.bias.data.add_(1)
    pipe = VideoPipeline(tiny_tokenizer, 32, 8.0, prior, guide_tokenizer=tiny_tokenizer)
    pipe.save_pretrained(tmp_path)
    facts = read_manifest(tmp_path)
    save_module(other, tmp_path / "guide_tokenizer")
    write_manifest(tmp_path, facts)
    words = f"guide tokenizer {tiny_tokenizer.fingerprint()}, but {other.fingerprint()} is given"
    with pytest.raises(ValueError, match=words):
        VideoPipeline.from_pretrained(tmp_path)
    del facts["guide_tokenizer_fingerprint"]  # as folders were written before
    write_manifest(tmp_path, facts)
    again = VideoPipeline.from_pretrained(tmp_path)
    assert again.guide_tokenizer.fingerprint() == other.fingerprint()


def test_a_model_of_key_frames_makes_any_number_of_them(tiny_tokenizer, tmp_path, new_pipe):
    frames = new_pipe(FrameTokenizer(tiny_tokenizer), ["generate"])
    frames.save_pretrained(tmp_path)
    again = VideoPipeline.from_pretrained(tmp_path)
    keys = again.generate(PROMPTS, num_frames=6)
    assert keys.shape == (2, 6, 32, 32, 3)
    between = new_pipe(tiny_tokenizer, ALL).generate(PROMPTS, 41, task="interpolate", guide=keys)
    assert torch.equal(between[:, ::8], keys)
    tokens = torch.randint(200, (2, 3, 4, 4))
    decoded = frames.tokenizer.decode(tokens)
    for k in range(3):
        alone = tiny_tokenizer.decode(tokens[:, k, None])
        torch.testing.assert_close(decoded[:, :, k, None], alone)


def test_every_task_can_be_asked_for():
    assert set(NEEDS) == {
        *TASKS,
        "image-to-video",
        "predict",
        "class",
        "rollout",
    }
