"""Priors over continuous latents make videos by the same calls as those over tokens."""

import pytest
import torch

import sample
from data.video import decode_clip, to_uint8, write_video
from diffusion import UNet3D
from lm import (
    Condition,
    LatentDiffusionPrior,
    Sampling,
    TextTokenizer,
    TokenDiffusionPrior,
    Transformer,
)
from pipeline import VideoPipeline

PROMPTS = ["a red circle moving left", "a blue square moving up"]
GRID = [5, 4, 4]


def by_window():
    return LatentDiffusionPrior(UNet3D([32], [1], text_width=16), 3, GRID, text_size=320)


def by_token():
    transformer = Transformer(width=32, depth=1, num_heads=2)
    return TokenDiffusionPrior(transformer, 3, GRID, head_width=16, head_depth=1)


@pytest.fixture(params=[by_window, by_token], ids=["window", "token"])
def model(request, continuous):
    prior = request.param()
    for p in prior.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    return VideoPipeline(continuous, 32, 8.0, prior, TextTokenizer.train(PROMPTS, 320))


def context(num_frames):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (2, num_frames, 32, 32, 3), generator=generator, dtype=torch.uint8)


def test_a_video_is_the_decoded_sample_of_the_prior(model):
    videos = model.generate(PROMPTS, seed=3, steps=2, guidance_scale=2.0)
    latents = model.prior.sample(
        Condition([model.text.encode(prompt) for prompt in PROMPTS]),
        [torch.Generator().manual_seed(seed) for seed in (3, 4)],
        sampling=Sampling(guidance_scale=2.0, steps=2),
    )
    assert torch.equal(videos, to_uint8(model.tokenizer.decode_latents(latents).clamp(-1, 1)))


def test_a_context_is_kept_and_continued_past_the_window(model):
    videos = model.generate(PROMPTS, num_frames=25, context=context(6), steps=1)
    assert videos.shape == (2, 25, 32, 32, 3)
    assert torch.equal(videos[:, :5], context(6)[:, 1:])
    moved = model.generate(PROMPTS, num_frames=25, context=255 - context(6), steps=1)
    assert not torch.equal(moved[:, 5:], videos[:, 5:])


def test_a_story_is_one_video(model):
    story = [(PROMPTS[0], 9), (PROMPTS[1], 8)]
    videos = model.generate(story=story, steps=1)
    assert videos.shape == (1, 17, 32, 32, 3)
    other = model.generate(story=[(PROMPTS[0], 9), (PROMPTS[0], 8)], steps=1)
    assert torch.equal(videos[:, :9], other[:, :9])
    assert not torch.equal(videos[:, 9:], other[:, 9:])


def test_a_video_is_edited_by_latent_diffusion(model, tmp_path):
    write_video(tmp_path / "in.mp4", context(17)[0], 8.0)
    given = [tmp_path, "--context", tmp_path / "in.mp4", "--task", "edit", "--prompt", PROMPTS[1]]
    given += ["--strength", 0.6, "--seed", 3, "--steps", 2, "--guidance-scale", 2]
    model.save_pretrained(tmp_path)
    arguments = [str(part) for part in [*given, "--out", tmp_path / "out"]]
    if isinstance(model.prior, TokenDiffusionPrior):
        with pytest.raises(ValueError, match="decoder"):
            sample.main(arguments)
        return
    sample.main(arguments)
    latents = model.encode(decode_clip(tmp_path / "in.mp4")[None])
    told = [model.text.encode(PROMPTS[1])], 0.6, 3, 2, 2.0
    expected = model.decode(model.prior.edit(latents, *told))[0]
    write_video(tmp_path / "expected.mp4", expected, 8.0)
    found = decode_clip(tmp_path / "out" / "000.mp4")
    assert torch.equal(found, decode_clip(tmp_path / "expected.mp4"))
    with pytest.raises(ValueError, match="latent diffusion follows no control"):
        model.edit(context(17), PROMPTS, control=context(17))


def test_a_saved_model_is_bit_for_bit_the_same(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = VideoPipeline.from_pretrained(tmp_path)
    assert torch.equal(again.generate(PROMPTS, steps=1), model.generate(PROMPTS, steps=1))


def test_what_these_priors_cannot_is_refused_before_sampling(model, monkeypatch):
    monkeypatch.setattr(model.prior, "draw", None)
    with pytest.raises(ValueError, match="not tokens; leave temperature"):
        model.generate(PROMPTS, top_k=4)
    with pytest.raises(ValueError, match="trained for generate;"):
        model.generate(task="inpaint", guide=context(5), mask=torch.ones(32, 32, dtype=torch.bool))
    with pytest.raises(ValueError, match="trained for generate;"):
        model.generate(task="interpolate", guide=context(2), num_frames=5)
    with pytest.raises(ValueError, match="without actions"):
        model.generate(task="rollout", actions=torch.zeros(1, 9, 1))
    with pytest.raises(ValueError, match="has no likelihood; score with"):
        model.score(context(5))
    with pytest.raises(ValueError, match="writes no text"):
        model.caption(context(17))
    with pytest.raises(ValueError, match="pieces"):
        model.generate([" ".join(PROMPTS * 9)])


def test_prior_and_tokenizer_must_both_be_continuous_or_neither(continuous, pipe):
    with pytest.raises(ValueError, match=r"TokenDiffusionPrior does not fit .* makes tokens"):
        VideoPipeline(pipe.tokenizer, 32, 8.0, by_token())
    with pytest.raises(ValueError, match=r"AutoregressivePrior does not fit .* continuous latents"):
        VideoPipeline(continuous, 32, 8.0, pipe.prior)


def test_a_prior_of_other_latents_is_refused(continuous):
    prior = TokenDiffusionPrior(Transformer(32, 1, 2), 5, [5, 4, 4])
    with pytest.raises(ValueError, match="channels 5, but the tokenizer has 3; use the tokenizer"):
        VideoPipeline(continuous, 32, 8.0, prior)


def test_the_command_line_samples(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    options = ["--frames", "5", "--steps", "1", "--out", str(tmp_path / "out")]
    sample.main([str(tmp_path / "model"), "--prompt", PROMPTS[0], *options])
    assert decode_clip(tmp_path / "out/000.mp4").shape == (5, 32, 32, 3)


def test_its_tokenizer_is_a_codec_without_files(model, tmp_path, capsys):
    model.save_pretrained(tmp_path / "model")
    path, out = tmp_path / "clip.mp4", tmp_path / "out"
    write_video(path, context(11)[0, :, :30, :26], 8.0)
    told = ["--context", str(path), "--out", str(out)]
    sample.main([str(tmp_path / "model"), "--task", "reconstruct", *told])
    assert "PSNR" in capsys.readouterr().out
    assert decode_clip(out / "clip_reconstruction.mp4").shape == (11, 30, 26, 3)
    with pytest.raises(ValueError, match=r"continuous \(KL\).*--task reconstruct"):
        sample.main([str(tmp_path / "model"), "--task", "encode", *told])
    assert [file.name for file in out.iterdir()] == ["clip_reconstruction.mp4"]
