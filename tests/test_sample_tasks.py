"""The tasks on the command line, with their files."""

import numpy as np
import pytest
import torch
from PIL import Image

import sample
from data.video import decode_clip, write_video
from lm import AutoregressivePrior, MaskGITPrior
from lm.key_frames import key_frames
from lm.request import Request
from pipeline import VideoPipeline
from tokenizer import FrameTokenizer

NAMES = "keys", "filling"
TASKS = ["generate", "interpolate", "inpaint", "outpaint", "control", "upscale", "caption"]


@pytest.fixture
def model(tiny_tokenizer, new_pipe, tmp_path):
    ranges = [[-1.0, 1.0]]
    pipe = new_pipe(tiny_tokenizer, TASKS, num_classes=2, action_ranges=ranges)
    pipe.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def clip(tmp_path):
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(256, (11, 32, 32, 3), dtype=torch.uint8, generator=generator)
    write_video(tmp_path / "clip.mp4", frames, 8.0)
    return tmp_path / "clip.mp4"


def made(model, tmp_path, *arguments):
    out = tmp_path / "out"
    sample.main([str(model), "--out", str(out), *map(str, arguments)])
    return decode_clip(out / "000.mp4")


def test_a_box_is_filled_and_a_border_added(model, clip, tmp_path):
    truth = decode_clip(clip)[:9].int()
    for task, outside in (("inpaint", False), ("outpaint", True)):
        arguments = ["--task", task, "--guide", clip, "--box", 8, 8, 24, 24]
        error = (made(model, tmp_path, *arguments).int() - truth).abs().float()
        box = torch.zeros(32, 32, dtype=torch.bool)
        box[8:24, 8:24] = True
        changed = ~box if outside else box
        assert error[:, ~changed].mean() < 0.5 * error[:, changed].mean()


def test_a_mask_beside_a_box_is_refused(capsys):
    asked = ["--task", "inpaint", "--guide", "in.mp4", "--mask", "mask.png"]
    with pytest.raises(SystemExit):
        sample.parser().parse_args(["model", *asked, "--box", "8", "8", "24", "24"])
    assert "--box: not allowed with argument --mask" in capsys.readouterr().err


def test_a_mask_may_be_a_video_of_another_rate(model, clip, tmp_path):
    moving = torch.zeros(33, 32, 32, 3, dtype=torch.uint8)  # of the clip's length
    moving[:16, :16], moving[16:, 16:] = 255, 255
    write_video(tmp_path / "mask.mp4", moving, 24.0)
    arguments = ["--task", "inpaint", "--guide", clip, "--mask", tmp_path / "mask.mp4"]
    error = (made(model, tmp_path, *arguments).int() - decode_clip(clip)[:9].int()).abs().float()
    assert error[:5, 16:].mean() < 0.5 * error[:5, :16].mean()
    assert error[6:, :16].mean() < 0.5 * error[6:, 16:].mean()


def test_image_to_video_starts_from_the_last_frame_of_a_context(model, clip, tmp_path):
    video = made(model, tmp_path, "--task", "image-to-video", "--context", clip, "--frames", 5)
    assert (video[0].int() - decode_clip(clip)[-1].int()).abs().float().mean() < 12


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp"])
def test_a_picture_is_moved_filled_and_followed(model, clip, tmp_path, name):
    first = decode_clip(clip)[0]
    Image.fromarray(first.numpy()).save(tmp_path / name)
    video = made(model, tmp_path, "--task", "image-to-video", "--context", tmp_path / name)
    assert (video[0].int() - first.int()).abs().float().mean() < 25  # noise, in two lossy codecs
    arguments = ["--task", "inpaint", "--guide", tmp_path / name, "--box", 8, 8, 24, 24]
    assert made(model, tmp_path, *arguments).shape == (1, 32, 32, 3)
    with pytest.raises(ValueError, match="two key frames"):
        made(model, tmp_path, "--task", "interpolate", "--guide", tmp_path / name, "--frames", 9)


def test_a_mask_is_read_from_a_picture(model, clip, tmp_path):
    bright = torch.zeros(32, 32, dtype=torch.uint8)
    bright[:16] = 255
    Image.fromarray(bright.numpy()).save(tmp_path / "mask.png")
    arguments = ["--task", "inpaint", "--guide", clip, "--mask", tmp_path / "mask.png"]
    error = (made(model, tmp_path, *arguments).int() - decode_clip(clip)[:9].int()).abs().float()
    assert error[:, 20:].mean() < 0.5 * error[:, :12].mean()


@pytest.mark.parametrize(
    ("arguments", "frames"),
    [
        (["--task", "interpolate", "--guide", "CLIP", "--frames", "9"], 9),
        (["--task", "control", "--guide", "CLIP"], 9),
        (["--task", "upscale", "--guide", "CLIP"], 9),
        (["--task", "class", "--class", "dog", "--class", "0", "--frames", "5"], 5),
        (["--task", "image-to-video", "--context", "CLIP", "--context-frames", "1"], 17),
        (["--task", "predict", "--context", "CLIP", "--frames", "13"], 13),
        (["--story", "a red circle moving left:9; a blue square moving up:8"], 17),
    ],
)
def test_each_task_writes_its_video(model, clip, tmp_path, arguments, frames):
    arguments = [clip if argument == "CLIP" else argument for argument in arguments]
    assert made(model, tmp_path, *arguments).shape == (frames, 32, 32, 3)
    assert len(list((tmp_path / "out").glob("*.mp4"))) == arguments.count("--class") or 1


def test_actions_are_read_from_an_array(model, clip, tmp_path):
    np.save(tmp_path / "actions.npy", np.zeros((13, 1), dtype=np.float32))
    arguments = ["--task", "rollout", "--actions", tmp_path / "actions.npy", "--context", clip]
    assert len(made(model, tmp_path, *arguments)) == 13


def test_a_caption_is_printed(model, clip, capsys):
    sample.main([str(model), "--task", "caption", "--context", str(clip), "--frames", "9"])
    assert capsys.readouterr().out
    with pytest.raises(ValueError, match="--context"):
        sample.main([str(model), "--task", "caption"])


def test_a_long_video_is_made_of_key_frames(model, tiny_tokenizer, new_pipe, tmp_path):
    new_pipe(FrameTokenizer(tiny_tokenizer), ["generate"]).save_pretrained(tmp_path / "keys")
    arguments = ["--prompt", "a red circle moving left", "--key-frames", tmp_path / "keys"]
    assert len(made(model, tmp_path, *arguments, "--frames", 137)) == 137
    assert not list((tmp_path / "out").glob("*.gif"))  # only of short videos
    with pytest.raises(ValueError, match="use 25 or 33"):
        made(model, tmp_path, *arguments, "--frames", 29)


PARTS = ["a red circle moving left", "a blue square moving up"]


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["--prompt", PARTS[0], "--frames", 33], {"prompts": PARTS[:1], "num_frames": 5}),
        (["--story", f"{PARTS[0]}:17; {PARTS[1]}:16"], {"story": [(PARTS[0], 3), (PARTS[1], 2)]}),
    ],
)
def test_key_frames_are_told_what_is_said_and_the_filling_sees_them_alone(
    model, tiny_tokenizer, new_pipe, tmp_path, monkeypatch, arguments, asked
):
    key_pipe, pipe = (
        new_pipe(FrameTokenizer(tiny_tokenizer), ["generate"]),
        VideoPipeline.from_pretrained(model),
    )
    key_pipe.save_pretrained(tmp_path / "keys")
    videos = []
    monkeypatch.setattr(sample, "write_samples", lambda pieces, *rest: videos.extend(pieces))
    told = [*arguments, "--seed", 3, "--key-frames", tmp_path / "keys", "--guidance-scale", 2]
    sample.main([str(model), *map(str, told)])
    keys = key_pipe.generate(seed=3, guidance_scale=2.0, **asked)
    filled = pipe.generate(
        None, 33, key_frames(Request(seed=3), 8, 32)[1].seed, task="interpolate", guide=keys
    )
    assert torch.equal(torch.cat(videos, dim=1), filled)


def test_a_part_that_ends_between_key_frames_is_refused(model, tiny_tokenizer, new_pipe, tmp_path):
    new_pipe(FrameTokenizer(tiny_tokenizer), ["generate"]).save_pretrained(tmp_path / "keys")
    with pytest.raises(ValueError, match="part 2 needs a multiple of 8"):
        made(model, tmp_path, "--story", "a:17; b:12", "--key-frames", tmp_path / "keys")


def test_a_prior_of_whole_clips_makes_no_key_frames(model, tmp_path):
    with pytest.raises(ValueError, match="makes whole clips, not key frames"):
        made(model, tmp_path, "--key-frames", model, "--frames", 33)


@pytest.mark.parametrize("masked", ["keys", "filling", "neither"])
def test_steps_go_to_the_model_that_takes_them(masked, tiny_tokenizer, new_pipe, tmp_path):
    kinds = {name: MaskGITPrior if name == masked else AutoregressivePrior for name in NAMES}
    tokenizers = {"keys": FrameTokenizer(tiny_tokenizer), "filling": tiny_tokenizer}
    for name in NAMES:
        pipe = new_pipe(tokenizers[name], ["generate", "interpolate"], kinds[name])
        pipe.save_pretrained(tmp_path / name)
    arguments = ["--key-frames", tmp_path / "keys", "--frames", 17, "--steps", 2]
    if masked == "neither":
        with pytest.raises(ValueError, match="leave steps out"):
            made(tmp_path / "filling", tmp_path, *arguments)
    else:
        assert len(made(tmp_path / "filling", tmp_path, *arguments)) == 17


def test_a_box_outside_the_picture_is_refused(model, clip, tmp_path):
    with pytest.raises(ValueError, match=r"lie in 0 \.\.\. 32"):
        made(model, tmp_path, "--task", "inpaint", "--guide", clip, "--box", 8, 8, 40, 24)
    with pytest.raises(ValueError, match="prompt:frames"):
        made(model, tmp_path, "--story", "a red circle")
