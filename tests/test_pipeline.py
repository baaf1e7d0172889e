import pytest
import torch

from data.video import to_model_range, to_uint8
from lm import AutoregressivePrior, Inputs, MaskGITPrior, Sampling, Transformer
from pipeline import VideoPipeline

PROMPTS = ["a red circle moving left", "a blue square moving up"]


def test_a_saved_pipeline_is_bit_for_bit_the_same(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    again = VideoPipeline.from_pretrained(tmp_path)
    assert torch.equal(again.generate(PROMPTS, seed=3), pipe.generate(PROMPTS, seed=3))
    for name, value in pipe.tokenizer.state_dict().items():
        assert torch.equal(value, again.tokenizer.state_dict()[name])


def test_a_sample_depends_on_its_seed_alone(pipe):
    both = pipe.generate(PROMPTS, num_frames=5, seed=7)
    assert torch.equal(both[1:], pipe.generate(PROMPTS[1:], num_frames=5, seed=8))
    assert torch.equal(both.flip(0), pipe.generate(PROMPTS[::-1], num_frames=5, seed=[8, 7]))


def test_small_weights_are_those_of_the_prior(pipe):
    video = pipe.generate(PROMPTS, num_frames=5, seed=3, quantize="int8")
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    sampling = Sampling(quantize="int8")
    tokens = pipe.prior.sample(
        pipe.condition(PROMPTS, 2), generators, num_latent_frames=2, sampling=sampling
    )
    assert torch.equal(video, to_uint8(pipe.tokenizer.decode(tokens).clamp(-1, 1)))


@pytest.mark.parametrize("num_frames", [1, 5, 17, 33])
def test_videos_have_the_length_asked_for(pipe, num_frames):
    assert pipe.generate(PROMPTS, num_frames=num_frames).shape == (2, num_frames, 32, 32, 3)


def test_context_frames_are_kept(pipe):
    context = torch.randint(256, (2, 6, 32, 32, 3), dtype=torch.uint8)
    video = pipe.generate(PROMPTS, num_frames=17, context=context)
    assert torch.equal(video[:, :5], context[:, 1:])


def test_a_context_of_another_size_is_resized_and_it_is_said(pipe):
    context = torch.randint(256, (2, 5, 48, 40, 3), dtype=torch.uint8)
    with pytest.warns(UserWarning, match="48 x 40 pixels; resized and cropped to 32"):
        assert pipe.generate(PROMPTS, num_frames=9, context=context).shape == (2, 9, 32, 32, 3)


def test_score_is_a_log_likelihood_a_video(pipe):
    videos = pipe.generate(PROMPTS, seed=0)
    scores = pipe.score(videos, PROMPTS)
    assert scores.shape == (2,)
    # An untrained prior of zero branches is nearly uniform over 200 codes.
    assert bool((scores < 0).all())


def test_scores_of_tokens_add_up_to_those_of_frames_and_clips(pipe):
    videos = pipe.generate(PROMPTS, seed=0)
    tokens, frames, clips = (pipe.score(videos, PROMPTS, per) for per in ("token", "frame", "clip"))
    assert tokens.shape == (2, 5, 4, 4)
    torch.testing.assert_close(frames, tokens.sum((2, 3)))
    torch.testing.assert_close(clips, frames.sum(1))
    with pytest.raises(ValueError, match="per is 'pixel'"):
        pipe.score(videos, PROMPTS, "pixel")


def test_a_masked_prior_samples_and_continues_but_has_no_likelihood(pipe):
    torch.manual_seed(0)
    network = Transformer(width=32, depth=1, num_heads=2)
    masked = MaskGITPrior(network, codebook_size=200, grid=[5, 4, 4])
    pipe = VideoPipeline(pipe.tokenizer, 32, 8.0, masked, pipe.text)
    context = torch.randint(256, (2, 5, 32, 32, 3), dtype=torch.uint8)
    video = pipe.generate(PROMPTS, num_frames=33, context=context, steps=4, guidance_scale=2.0)
    assert video.shape == (2, 33, 32, 32, 3)
    assert torch.equal(video[:, :5], context)
    with pytest.raises(ValueError, match="leave quantize out"):
        pipe.generate(PROMPTS, quantize="int8")
    with pytest.raises(ValueError, match="no likelihood"):
        pipe.score(video[:, :17], PROMPTS)


@pytest.mark.parametrize("damage", ["missing", "truncated", "altered"])
@pytest.mark.parametrize("name", ["tokenizer/model.safetensors", "prior/config.json"])
def test_a_damaged_folder_is_refused_and_the_file_named(pipe, tmp_path, name, damage):
    pipe.save_pretrained(tmp_path)
    path = tmp_path / name
    content = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(content[:-1])
    elif damage == "altered":
        path.write_bytes(content[:-9] + b"x" + content[-8:])
    with pytest.raises(ValueError, match=name):
        VideoPipeline.from_pretrained(tmp_path)


def test_a_prior_refuses_another_tokenizer(pipe):
    own = pipe.tokenizer.fingerprint()
    with pytest.raises(ValueError, match=f"0123.*{own}"):
        VideoPipeline(pipe.tokenizer, 32, 8.0, pipe.prior, pipe.text, fingerprint="0123")


@pytest.mark.parametrize(
    ("codes", "side", "words"),
    [
        (300, 4, "codebook_size 300, but the tokenizer has 200; use the tokenizer"),
        (100, 4, "codebook_size 100, but the tokenizer has 200; use the tokenizer"),
        (200, 8, "8 rows of tokens, which are 64 pixels, but size is 32; set it to that"),
    ],
)
def test_a_prior_that_does_not_fit_is_refused_before_anything_is_sampled(pipe, codes, side, words):
    prior = AutoregressivePrior(Transformer(32, 1, 2), codes, [5, side, side])
    with pytest.raises(ValueError, match=words):
        VideoPipeline(pipe.tokenizer, 32, 8.0, prior, pipe.text)


@pytest.mark.parametrize("classes", [0, 99])
def test_text_of_more_pieces_than_the_prior_reads_is_refused(pipe, classes):
    """Without classes such a piece has no vector; with some it would be taken for one of them."""
    network, inputs = Transformer(32, 1, 2), Inputs(num_classes=classes)
    prior = AutoregressivePrior(network, 200, [5, 4, 4], text_size=260, inputs=inputs)
    pieces = pipe.text.vocabulary_size
    with pytest.raises(ValueError, match=f"reads 260 text pieces, but text has {pieces}"):
        VideoPipeline(pipe.tokenizer, 32, 8.0, prior, pipe.text).generate(PROMPTS, 5)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("codes", [50, 300])
def test_guides_of_other_codes_than_the_prior_reads_are_refused(pipe, given, codes):
    inputs = Inputs(["generate", "upscale"], guide_codebook_size=codes)
    prior = AutoregressivePrior(Transformer(32, 1, 2), 200, [5, 4, 4], inputs=inputs)
    guides = pipe.tokenizer if given else None
    with pytest.raises(ValueError, match=f"guides of {codes} codes, but .* has 200; give a guide"):
        VideoPipeline(pipe.tokenizer, 32, 8.0, prior, pipe.text, guide_tokenizer=guides)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"prompts": PROMPTS, "num_frames": 16}, "use 13 or 17"),
        ({"prompts": [""]}, "empty"),
        ({"prompts": ["a red circle " * 9]}, "reads 24"),
        ({"prompts": PROMPTS, "seed": [1]}, "1 seeds"),
        ({"prompts": PROMPTS, "steps": 4}, "leave steps out"),
        ({"prompts": PROMPTS, "choice_temperature": 1.0}, "leave choice_temperature out"),
        ({"prompts": PROMPTS, "min_p": 1.5}, "min_p"),
        ({"guidance_scale": 2.0}, "strengthens what a text or a class says"),
        ({"context": torch.zeros(1, 17, 32, 32, 3, dtype=torch.uint8)}, "at least 21"),
    ],
)
def test_what_cannot_be_is_refused(pipe, arguments, words):
    with pytest.raises(ValueError, match=words):
        pipe.generate(**arguments)


def test_a_tokenizer_alone_is_a_pipeline(pipe, tmp_path):
    alone = VideoPipeline(pipe.tokenizer, size=32, fps=8.0)
    alone.save_pretrained(tmp_path)
    again = VideoPipeline.from_pretrained(tmp_path)
    assert again.prior is None
    assert again.tokenizer.fingerprint() == pipe.tokenizer.fingerprint()
    with pytest.raises(ValueError, match="train a prior"):
        again.generate(PROMPTS)


@pytest.mark.parametrize("kind", ["tokens", "latents"])
def test_a_pipeline_of_a_tokenizer_alone_encodes_and_decodes(
    tiny_tokenizer, continuous, tmp_path, kind
):
    tokenizer = tiny_tokenizer if kind == "tokens" else continuous
    VideoPipeline(tokenizer, size=32, fps=8.0).save_pretrained(tmp_path)
    alone = VideoPipeline.from_pretrained(tmp_path)
    videos = torch.randint(256, (2, 5, 32, 32, 3), dtype=torch.uint8)
    tokens = alone.encode(videos)
    assert tokens.shape == ((2, 2, 4, 4) if kind == "tokens" else (2, 3, 2, 4, 4))
    expected = tokenizer(to_model_range(videos)).clip.detach()
    near = alone.decode(tokens).int() - to_uint8(expected.clamp(-1, 1)).int()
    assert near.abs().max() <= 1


def test_a_folder_of_a_tokenizer_is_no_pipeline(pipe, tmp_path):
    pipe.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"Tokenizer\.from_pretrained"):
        VideoPipeline.from_pretrained(tmp_path)


def test_a_prior_left_from_before_is_not_taken_for_this_one(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="another folder"):
        VideoPipeline(pipe.tokenizer, size=32, fps=8.0).save_pretrained(tmp_path)


def test_clips_longer_than_what_was_learnt_are_not_scored(pipe):
    with pytest.raises(ValueError, match="have 21 frames, but this prior reads 17; cut them"):
        pipe.score(torch.zeros(1, 21, 32, 32, 3, dtype=torch.uint8))


def test_a_prior_without_captions_leaves_no_text_pieces_behind(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    pipe.text = None
    pipe.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="trained without captions"):
        VideoPipeline.from_pretrained(tmp_path).generate(PROMPTS)
