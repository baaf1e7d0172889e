"""The diffusion decoder on the command line: what reaches it."""

import pytest
import torch

import diffusion.wishes
import lm.sampling
import sample
from data.video import decode_clip, to_model_range, to_uint8, write_video
from diffusion import DiffusionDecoder, UNet3D
from lm import MaskGITPrior, Transformer
from pipeline import VideoPipeline
from sample_options import READ, parser, refuse_unread

PROMPT = "a red circle moving left"


def with_decoder(pipe, prior=None, text_width=16, **options):
    """Return a model of the demo's shape in small whose decoder can edit."""
    torch.manual_seed(0)
    network = UNet3D([32], [1], text_width=text_width)
    text_size = 320 if text_width else 0
    options = {"use": "read", "text_size": text_size, **options}
    decoder = DiffusionDecoder(network, 200, [4, 8], **options)
    for p in decoder.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    prior = prior or pipe.prior
    return VideoPipeline(pipe.tokenizer, 32, 8.0, prior, pipe.text, decoder=decoder)


def run(pipe, tmp_path, *arguments):
    """Return the first video that the command line writes."""
    pipe.save_pretrained(tmp_path / "model")
    sample.main([str(tmp_path / "model"), *map(str, arguments), "--out", str(tmp_path / "out")])
    return decode_clip(tmp_path / "out" / "000.mp4")


def written(video, tmp_path):
    """Return a video as a file gives it back."""
    write_video(tmp_path / "expected.mp4", video, 8.0)
    return decode_clip(tmp_path / "expected.mp4")


@pytest.mark.parametrize("option", ["--steps", "--decoder-steps"])
def test_the_steps_are_the_decoder_s_where_the_prior_takes_none(pipe, tmp_path, option):
    pipe = with_decoder(pipe)
    asked = ["--prompt", PROMPT, "--frames", 5, "--decoder", "diffusion"]
    found = run(pipe, tmp_path, *asked, option, 3)
    made = [
        pipe.generate([PROMPT], 5, 0, decoder="diffusion", decoder_steps=steps)[0]
        for steps in (3, 20)
    ]
    assert torch.equal(found, written(made[0], tmp_path))
    assert not torch.equal(*made)
    with pytest.raises(ValueError, match="leave steps out"):
        run(pipe, tmp_path, *asked, "--steps", 3, "--decoder-steps", 2)
    with pytest.raises(ValueError, match="leave steps out"):
        run(pipe, tmp_path, "--prompt", PROMPT, "--steps", 3)


@pytest.mark.parametrize("task", ["generate", "edit"])
def test_a_decoder_of_few_steps_takes_them_where_no_number_is_told(pipe, tmp_path, task):
    pipe, (_, path) = with_decoder(pipe, steps=2), source(tmp_path)
    asked = ["--prompt", PROMPT, "--decoder", "diffusion"]
    asked += ["--task", task] + (["--context", path] if task == "edit" else ["--frames", 5])
    ours, two, four = (
        run(pipe, tmp_path, *asked, *told)
        for told in ([], ["--decoder-steps", 2], ["--decoder-steps", 4])
    )
    assert torch.equal(ours, two)
    assert not torch.equal(ours, four)


def test_the_steps_stay_a_masked_prior_s(pipe, tmp_path):
    masked = MaskGITPrior(Transformer(width=32, depth=1, num_heads=2), 200, grid=[5, 4, 4])
    pipe = with_decoder(pipe, masked)
    found = run(pipe, tmp_path, "--frames", 5, "--decoder", "diffusion", "--steps", 3)
    told = {"num_frames": 5, "steps": 3, "decoder": "diffusion"}
    assert torch.equal(found, written(pipe.generate(**told, decoder_steps=20)[0], tmp_path))
    assert not torch.equal(*(pipe.generate(**told, decoder_steps=steps) for steps in (20, 3)))


def test_solver_and_guidance_reach_the_decoder(pipe, tmp_path):
    pipe = with_decoder(pipe)
    asked = ["--prompt", PROMPT, "--frames", 5, "--decoder", "diffusion", "--decoder-steps", 3]
    found = run(pipe, tmp_path, *asked, "--decoder-guidance", 2, "--decoder-solver", "dpm")
    condition, generator = pipe.condition([PROMPT], 1), torch.Generator().manual_seed(0)
    tokens = pipe.prior.sample(condition, [generator], num_latent_frames=2)
    seed = int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(0)))
    expected = pipe.decoder.decode(tokens, [seed], 3, 2.0, "dpm", texts=condition.texts)
    assert torch.equal(found, written(to_uint8(expected)[0], tmp_path))
    plain = pipe.decoder.decode(tokens, [seed], 3, texts=condition.texts)
    assert not torch.allclose(expected, plain, atol=1e-2)


@pytest.mark.parametrize("task", ["reconstruct", "encode", "decode"])
def test_the_codec_refuses_a_decoder_that_it_would_not_use(tmp_path, task):
    with pytest.raises(ValueError, match=f"--task {task} does not read --decoder"):
        sample.main([str(tmp_path), "--task", task, "--context", "in.mp4", "--decoder=diffusion"])


@pytest.mark.parametrize(
    ("task", "option", "flag"),
    [
        ("reconstruct", "--num=2", "--num"),
        ("encode", "--side-by-side", "--side-by-side"),
        ("decode", "--class=3", "--class"),
        ("caption", "--guidance-scale=2", "--guidance-scale"),
        ("edit", "--top-k=5", "--top-k"),
        ("generate", "--strength=0.9", "--strength"),
        ("inpaint", "--tile=64", "--tile"),
    ],
)
def test_an_option_that_the_task_does_not_read_is_refused(tmp_path, task, option, flag):
    with pytest.raises(ValueError, match=f"--task {task} does not read {flag}; leave it out"):
        sample.main([str(tmp_path), "--task", task, option])


def test_a_task_takes_what_it_reads():
    options = parser()
    for task, read in READ.items():
        told = options.parse_args(["model", "--task", task])
        vars(told).update(dict.fromkeys(read.split(), "anything"))
        refuse_unread(told, options)


def source(tmp_path):
    """Write a video of 18 frames and return it as a file gives it back, and its path."""
    frames = torch.randint(256, (18, 32, 32, 3), generator=torch.Generator().manual_seed(2))
    write_video(tmp_path / "in.mp4", frames.to(torch.uint8), 8.0)
    return decode_clip(tmp_path / "in.mp4"), tmp_path / "in.mp4"


def test_a_video_is_edited_once_a_prompt(pipe, tmp_path):
    pipe, (clip, path) = with_decoder(pipe), source(tmp_path)
    prompts, asked = [PROMPT, "a blue square moving up"], ["--decoder-steps", 2, "--seed", 3]
    given = ["--task", "edit", "--context", path, "--prompt", prompts[0], "--prompt", prompts[1]]
    found = run(pipe, tmp_path, *given, *asked, "--strength", 0.5)
    other = decode_clip(tmp_path / "out" / "001.mp4")
    expected = pipe.edit(clip[None, :17].expand(2, -1, -1, -1, -1), prompts, 0.5, 3, 1.0, 2)
    assert torch.equal(found, written(expected[0], tmp_path))
    assert torch.equal(other, written(expected[1], tmp_path))
    # As far from the source as the strength says.
    little = run(pipe, tmp_path, *given, *asked, "--strength", 0.02)
    far, near = ((video.int() - clip[:17].int()).abs().float().mean() for video in (found, little))
    assert near < 0.5 * far


def test_a_pipeline_fills_in_between_two_frames(pipe, tmp_path):
    pipe, (clip, _) = with_decoder(pipe), source(tmp_path)
    ends = torch.arange(17) % 16 == 0
    filled = pipe.edit(clip[None, :17], [PROMPT], 1.0, decoder_steps=1, kept=ends)[0]
    assert (filled[ends].int() - clip[:17][ends].int()).abs().max() <= 1
    assert not torch.equal(filled[~ends], clip[:17][~ends])


def test_an_edit_that_cannot_be_is_refused(pipe, tmp_path):
    _, path = source(tmp_path)
    given = ["--task", "edit", "--context", path]
    for strength in (0, 1.5):
        with pytest.raises(ValueError, match=r"must lie in \(0, 1\]"):
            run(with_decoder(pipe), tmp_path, *given, "--prompt", PROMPT, "--strength", strength)
    with pytest.raises(ValueError, match="needs --context, the video, and --prompt"):
        run(with_decoder(pipe), tmp_path, *given)
    with pytest.raises(ValueError, match="reads no text; editing needs"):
        run(with_decoder(pipe, text_width=0), tmp_path, *given, "--prompt", PROMPT)


def test_a_control_is_read_as_it_is_and_another_size_is_refused(pipe, tmp_path):
    pipe, (clip, path) = with_decoder(pipe, control="low resolution"), source(tmp_path)
    given = ["--prompt", PROMPT, "--decoder", "diffusion", "--decoder-steps", 1, "--control"]
    found = run(pipe, tmp_path, *given, path)
    told = {"decoder": "diffusion", "decoder_steps": 1}
    expected = pipe.generate([PROMPT], control=clip[None, :17], **told)
    assert torch.equal(found, written(expected[0], tmp_path))
    write_video(tmp_path / "large.mp4", torch.zeros(17, 48, 64, 3, dtype=torch.uint8), 8.0)
    with pytest.raises(ValueError, match=r"17 frames of 48 x 64 pixels, but .* 32 x 32"):
        run(pipe, tmp_path, *given, tmp_path / "large.mp4")


def test_an_edit_follows_a_control_and_shows_its_source(pipe, tmp_path):
    pipe, (clip, path) = with_decoder(pipe, control="low resolution"), source(tmp_path)
    shown = torch.full((21, 32, 32, 3), 200, dtype=torch.uint8)
    write_video(tmp_path / "shown.mp4", shown, 8.0)
    shown = decode_clip(tmp_path / "shown.mp4")
    given = ["--task", "edit", "--context", path, "--prompt", PROMPT, "--decoder-steps", 2]
    found = run(pipe, tmp_path, *given, "--control", tmp_path / "shown.mp4", "--side-by-side")
    x, pixels = to_model_range(clip[None, :17]), to_model_range(shown[None, :17])
    texts, pictures = pipe.condition([PROMPT], 1).texts, pipe.decoder.control.pictures(pixels)
    edited = pipe.decoder.edit(x, texts, 0.5, steps=2, control=pictures)
    expected = torch.cat([clip[:17], to_uint8(edited)[0]], dim=2)
    assert torch.equal(found, written(expected, tmp_path))
    with pytest.raises(ValueError, match="follows low resolution; give control"):
        run(pipe, tmp_path, *given)
    with pytest.raises(ValueError, match="18 frames of 32 x 32 pixels, but the video 17 frames"):
        pipe.edit(clip[None, :17], [PROMPT], control=clip[None])
    with pytest.raises(ValueError, match="follows no control"):
        run(with_decoder(pipe), tmp_path, *given, "--control", path)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"decoder_steps": 0}, "steps is 0, but must be 1 or more"),
        ({"decoder_guidance": float("nan")}, "guidance_scale is nan"),
    ],
)
def test_what_no_decoder_takes_is_refused_before_sampling(pipe, monkeypatch, asked, words):
    pipe = with_decoder(pipe)
    monkeypatch.setattr(pipe.prior, "sample", None)
    with pytest.raises(ValueError, match=words):
        pipe.generate([PROMPT], decoder="diffusion", **asked)


@pytest.mark.parametrize(
    "asked", [{"decoder_steps": 3}, {"decoder_guidance": 2.0}, {"decoder_solver": "dpm"}]
)
def test_what_the_cnn_would_not_use_is_refused(pipe, asked):
    with pytest.raises(ValueError, match="takes no decoder_ options; set decoder to diffusion"):
        with_decoder(pipe).generate([PROMPT], 5, **asked)


@pytest.mark.parametrize(
    ("sampling", "name", "words"),
    [
        (diffusion.wishes.Sampling(), "solver", "must be one of ddim, ancestral, dpm"),
        (diffusion.wishes.Sampling(), "joint", "must be one of given, replaced, guided"),
        (lm.sampling.Sampling(), "quantize", "must be None or one of int8"),
    ],
)
def test_a_word_that_no_sampling_knows_is_refused(sampling, name, words):
    object.__setattr__(sampling, name, "euler")  # outside of tests nobody checks the types
    with pytest.raises(ValueError, match=f"{name} is 'euler', but {words}"):
        sampling.__post_init__()


def test_a_decoder_of_images_refuses_a_video_before_sampling(pipe, monkeypatch):
    pipe = with_decoder(pipe, window=1)
    monkeypatch.setattr(pipe.prior, "sample", None)
    with pytest.raises(ValueError, match="decoder is for images"):
        pipe.generate([PROMPT], decoder="diffusion")


def test_a_decoder_that_reads_pieces_is_refused_beside_states_of_a_text_encoder(pipe):
    pipe = with_decoder(pipe)
    pipe.text_encoder = object()
    with pytest.raises(ValueError, match=r"reads text pieces.*text_size: 0"):
        pipe.require_decoder()


def test_a_decoder_that_reads_fewer_pieces_than_the_text_has_is_refused(pipe):
    pieces = pipe.text.vocabulary_size
    with pytest.raises(ValueError, match=f"decoder reads 10 text pieces, but text has {pieces}"):
        with_decoder(pipe, text_size=10)


@pytest.mark.parametrize("frames", [-4, 0, 21])
def test_an_edit_of_frames_that_are_not_there_is_refused(pipe, tmp_path, frames):
    _, path = source(tmp_path)
    asked = ["--task", "edit", "--context", path, "--prompt", PROMPT, "--decoder-steps", 1]
    with pytest.raises(ValueError, match=f"{frames} frames are asked for, .*; ask for 1 to 17"):
        run(with_decoder(pipe), tmp_path, *asked, "--frames", frames)
    assert run(with_decoder(pipe), tmp_path, *asked, "--frames", 5).shape == (5, 32, 32, 3)
