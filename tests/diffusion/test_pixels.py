"""A prior's tokens become pixels by a diffusion decoder, window after window."""

from dataclasses import replace

import pytest
import torch

from data.video import to_model_range, to_uint8
from diffusion import DiffusionDecoder, UNet3D
from diffusion.control import edges, low_resolution
from diffusion.sampler import generators_of
from lm.request import Request
from pipeline import VideoPipeline

PROMPTS = ["a red circle moving left", "a blue square moving up"]
STORY = [(PROMPTS[0], 9), (PROMPTS[1], 8)]


@pytest.fixture
def with_decoder(pipe):
    def build(text_width=0, **options):
        torch.manual_seed(0)
        network = UNet3D([32], [1], text_width=text_width)
        decoder = DiffusionDecoder(network, 200, [4, 8], **options)
        for p in decoder.parameters():
            p.data.add_(0.05 * torch.randn_like(p))
        return VideoPipeline(pipe.tokenizer, 32, 8.0, pipe.prior, pipe.text, decoder=decoder)

    return build


def video(num_frames, size=32):
    generator = torch.Generator().manual_seed(1)
    shape = (2, num_frames, size, size, 3)
    return torch.randint(256, shape, generator=generator, dtype=torch.uint8)


def drawn(pipe, **asked):
    return pipe.generate(PROMPTS, decoder="diffusion", decoder_steps=1, **asked)


@pytest.mark.parametrize(
    ("kind", "pictures"), [("edges", edges), ("low resolution", low_resolution)]
)
def test_each_window_follows_its_part_of_the_control(with_decoder, monkeypatch, kind, pictures):
    pipe, control = with_decoder(control=kind), video(33)
    told, decode = [], pipe.decoder.decode
    monkeypatch.setattr(
        pipe.decoder, "decode", lambda *a, **k: told.append(k["control"]) or decode(*a, **k)
    )
    drawn(pipe, num_frames=33, control=control)
    whole = pictures(to_model_range(control))
    assert len(told) == 3
    for start, part in zip((0, 8, 16), told, strict=True):
        assert torch.equal(part, whole[:, :, start : start + 17])


def test_a_control_changes_what_is_sampled(with_decoder):
    pipe = with_decoder(control="edges")
    for p in pipe.decoder.control.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    one, other = (drawn(pipe, control=control) for control in (video(17), 255 * (video(17) // 128)))
    assert not torch.equal(one, other)


@pytest.mark.parametrize("enlarge", [[2, 1], [1, 2]])
def test_a_long_video_is_enlarged_as_a_whole_one(with_decoder, monkeypatch, enlarge):
    pipe, clips = with_decoder(enlarge=enlarge), []
    encode = pipe.tokenizer.stream_encode
    kept = lambda stream: (clips.append(clip) or clip for clip in stream)
    monkeypatch.setattr(pipe.tokenizer, "stream_encode", lambda stream: encode(kept(stream)))
    found = drawn(pipe, num_frames=33, seed=3)
    assert found.shape == (2, 1 + enlarge[0] * 32, 32 * enlarge[1], 32 * enlarge[1], 3)
    small = pipe.generate(PROMPTS, num_frames=33, seed=3)
    # The noise of the pixels is drawn when they are, behind all tokens.
    pieces = list(pipe.stream(Request(PROMPTS, 33, 3), decoder="diffusion", decoder_steps=1))
    assert len(pieces) > 2
    assert torch.equal(torch.cat(pieces, dim=1), found)
    # The pieces are sampled twice above; of one time they are the small video.
    whole = torch.cat(clips[: len(clips) // 2], dim=2)
    assert torch.equal(to_uint8(whole), small)
    with torch.no_grad():
        tokens = pipe.tokenizer.encode(whole)
    seeds = [int(torch.randint(2**62, (), generator=g)) for g in generators_of(3, 2)]
    expected = to_uint8(pipe.decoder.decode(tokens, seeds, steps=1))
    assert (found.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize(
    ("options", "asked", "words"),
    [
        ({"control": "edges"}, {}, "give control"),
        ({}, {"control": video(17)}, "follows no control"),
        ({"control": "edges"}, {"control": video(13)}, "control has 13 frames"),
        ({"control": "edges"}, {"control": video(17)[:1]}, "1 controls"),
        ({"control": "edges"}, {"control": video(17, 64)}, "64 x 64 .* resize it to that"),
        ({"control": "edges", "enlarge": [1, 2]}, {"control": video(17)}, "video 17 .* 64 x 64"),
        ({"text_width": 16, "text_size": 320, "text_window": 2}, {}, "decoder reads 2"),
    ],
)
def test_what_does_not_fit_the_decoder_is_refused_before_sampling(
    with_decoder, monkeypatch, options, asked, words
):
    pipe = with_decoder(**options)
    monkeypatch.setattr(pipe.prior, "sample", None)
    with pytest.raises(ValueError, match=words):
        drawn(pipe, **asked)


def test_other_uses_of_a_control_or_a_story_are_refused(with_decoder, monkeypatch):
    pipe = with_decoder(text_width=16, text_size=320, enlarge=[1, 2])
    monkeypatch.setattr(pipe.prior, "sample", None)
    with pytest.raises(ValueError, match="leave the story out"):
        pipe.generate(story=STORY, decoder="diffusion")
    with pytest.raises(ValueError, match="set decoder to diffusion"):
        pipe.generate(control=video(17), seed=[1, 2])
    assert replace(Request(PROMPTS), control=video(17)).count == 2
