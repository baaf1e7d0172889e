"""Videos that go on from tokens: one stream, decoded as if it had been made at once."""

import pytest
import torch

from data.video import to_model_range, to_uint8
from lm import AutoregressivePrior, Inputs, MaskGITPrior, Transformer
from pipeline import VideoPipeline

PROMPTS = ["a red circle moving left", "a blue square moving up"]


@pytest.fixture
def made(pipe, monkeypatch):
    """A model that slides, and what its prior was given and made."""
    pipe.prior.slides, calls, sample = True, [], pipe.prior.sample

    def watched(*arguments, **options):
        calls.append((options["context"], sample(*arguments, **options)))
        return calls[-1][1]

    monkeypatch.setattr(pipe.prior, "sample", watched)
    return pipe, calls


def stream_of(calls):
    """Return the tokens of all windows, those that a window was given once."""
    new = [tokens[:, context.shape[1] :] for context, tokens in calls[1:]]
    return torch.cat([calls[0][1], *new], dim=1)


@pytest.mark.parametrize("num_frames", [5, 17, 41, 49])
def test_a_long_video_is_one_stream_of_tokens(made, num_frames):
    pipe, calls = made
    video = pipe.generate(PROMPTS, num_frames)
    stream = stream_of(calls)
    whole = to_uint8(pipe.tokenizer.decode(stream).clamp(-1, 1))
    assert video.shape == whole.shape == (2, num_frames, 32, 32, 3)
    assert (video.int() - whole.int()).abs().max() <= 1  # a rounding boundary
    have = 5
    for context, tokens in calls[1:]:
        assert torch.equal(context, stream[:, have - 2 : have])
        have += tokens.shape[1] - 2


def test_a_model_folder_says_that_its_prior_slides(tiny_tokenizer, tmp_path):
    prior = AutoregressivePrior(Transformer(32, 1, 2), 200, [5, 4, 4], slides=True)
    made = VideoPipeline(tiny_tokenizer, 32, 8.0, prior)
    made.save_pretrained(tmp_path)
    again = VideoPipeline.from_pretrained(tmp_path)
    assert torch.equal(again.generate(num_frames=41), made.generate(num_frames=41))
    assert again.prior.slides
    again.prior.slides = False
    assert not torch.equal(again.generate(num_frames=41), made.generate(num_frames=41))


@pytest.mark.parametrize("causal", [False, True])
def test_a_masked_prior_slides_too(tiny_tokenizer, causal):
    prior = MaskGITPrior(Transformer(32, 1, 2), 200, [5, 4, 4], causal=causal, slides=True)
    video = VideoPipeline(tiny_tokenizer, 32, 8.0, prior).generate(num_frames=41)
    assert video.shape == (1, 41, 32, 32, 3)


def test_a_cache_keeps_no_more_than_it_shows(tiny_tokenizer, clip):
    cache = {}
    tiny_tokenizer.decode(tiny_tokenizer.encode(clip), cache)
    assert len(cache) > 5
    for state in cache.values():
        assert state.untyped_storage().nbytes() == state.numel() * state.element_size()


def test_given_frames_are_kept_and_encoded_once(made):
    pipe, calls = made
    context = torch.randint(256, (2, 9, 32, 32, 3), dtype=torch.uint8)
    video = pipe.generate(PROMPTS, 41, context=context)
    assert torch.equal(video[:, :9], context)
    assert torch.equal(calls[0][0], pipe.tokenizer.encode(to_model_range(context)))
    whole = to_uint8(pipe.tokenizer.decode(stream_of(calls)).clamp(-1, 1))
    assert (video[:, 9:].int() - whole[:, 9:].int()).abs().max() <= 1


def test_a_part_of_a_story_goes_on_from_the_last_frame_alone(made):
    pipe, calls = made
    video = pipe.generate(story=[(PROMPTS[0], 29), (PROMPTS[1], 28)])
    assert video.shape == (1, 57, 32, 32, 3)
    contexts = [None if context is None else context.shape[1] for context, _ in calls]
    assert contexts == [None, 2, 1, 2]
    assert torch.equal(calls[2][0], pipe.tokenizer.encode(to_model_range(video[:, 28:29])))


def test_what_tells_of_numbered_frames_goes_on_from_frames(tiny_tokenizer):
    inputs = Inputs(action_ranges=[[-1.0, 1.0]])
    contexts, size = [], {"codebook_size": 200, "grid": [5, 4, 4]}
    prior = AutoregressivePrior(Transformer(32, 1, 2), **size, inputs=inputs, slides=True)
    pipe, sample = VideoPipeline(tiny_tokenizer, 32, 8.0, prior), prior.sample

    def watched(*arguments, **options):
        contexts.append(options["context"])
        return sample(*arguments, **options)

    prior.sample = watched
    video = pipe.generate(actions=torch.zeros(1, 33, 1), task="rollout")
    assert video.shape == (1, 33, 32, 32, 3)
    again = pipe.tokenizer.encode(to_model_range(video[:, 8:17]))
    assert contexts[1].shape == again.shape
    assert (contexts[1] == again).double().mean() > 0.9  # the prior's frames had not been rounded
