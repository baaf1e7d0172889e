import re

import pytest
import torch
from PIL import Image

import sample
from data.shapes import Shapes
from data.video import VideoWriter, decode_clip, iterate_frames, probe, write_video
from evaluation.pixel import FramePSNR, frame_psnr, frame_ssim
from tokenizer import Tokenizer
from tokenizer.codec import reconstruct_video
from tokenizer.token_file import TokenReader, TokenWriter

PROMPT = "a red circle moving left"


@pytest.fixture
def model(pipe, tmp_path) -> str:
    folder = tmp_path / "model"
    pipe.save_pretrained(folder)
    return str(folder)


def test_prompts_become_videos_and_a_sheet(model, tmp_path):
    out = tmp_path / "out"
    sample.main([model, "--prompt", PROMPT, "--num", "2", "--frames", "5", "--out", str(out)])
    assert sorted(p.name for p in out.iterdir()) == [
        "000.gif",
        "000.mp4",
        "001.gif",
        "001.mp4",
        "samples.png",
    ]
    assert decode_clip(out / "001.mp4").shape == (5, 32, 32, 3)


def test_a_video_is_continued(model, tmp_path):
    clip = torch.randint(256, (9, 48, 40, 3), dtype=torch.uint8)
    write_video(tmp_path / "clip.mp4", clip, 8.0)
    arguments = ["--context", str(tmp_path / "clip.mp4"), "--context-frames", "5"]
    sample.main([model, *arguments, "--frames", "21", "--out", str(tmp_path / "out")])
    assert len(decode_clip(tmp_path / "out" / "000.mp4")) == 21
    # Frames of a video twice as fast as the model are brought to its rate.
    write_video(tmp_path / "fast.mp4", clip, 16.0)
    with pytest.raises(ValueError, match="has 5 frames at 8 a second"):
        sample.main([model, "--context", str(tmp_path / "fast.mp4"), "--context-frames", "9"])
    with pytest.raises(ValueError, match="has 9 frames"):
        sample.main([model, *arguments[:2], "--context-frames", "13"])


def run(task: str, model: object, *arguments: object) -> None:
    sample.main([str(model), "--task", task, *map(str, arguments)])


def test_a_video_is_encoded_decoded_and_reconstructed(model, tmp_path, capsys):
    path, out = tmp_path / "clip.mp4", tmp_path / "out"
    clip = Shapes(1).read(0, 11).frames[:, :50, :44]
    write_video(path, clip, 8.0)
    run("reconstruct", model, "--context", path, "--out", out)
    figures = capsys.readouterr().out
    run("encode", model, "--context", path, "--out", out)
    run("decode", model, "--context", out / "clip.tokens", "--out", out)
    reconstruction = decode_clip(out / "clip_reconstruction.mp4")
    assert torch.equal(decode_clip(out / "clip_decoded.mp4"), reconstruction)
    assert reconstruction.shape == (11, 50, 44, 3)
    assert probe(out / "clip_decoded.mp4").fps == 8.0
    # Untrained, so the figures are low; but they are those of the pictures on disk.
    psnr = FramePSNR()
    psnr.update(reconstruction[:, None], decode_clip(path)[:, None])
    assert float(re.search(r"PSNR ([\d.]+) dB", figures)[1]) == pytest.approx(psnr.compute(), abs=1)


def test_a_picture_goes_through_the_tokenizer_too(model, tmp_path):
    path, out = tmp_path / "picture.png", tmp_path / "out"
    Image.fromarray(Shapes(1).read(0, 1).frames[0, :50, :44].numpy()).save(path)
    for task in ("reconstruct", "encode"):
        run(task, model, "--context", path, "--out", out)
    run("decode", model, "--context", out / "picture.tokens", "--out", out)
    reconstruction = decode_clip(out / "picture_reconstruction.mp4")
    assert reconstruction.shape == (1, 50, 44, 3)
    assert torch.equal(decode_clip(out / "picture_decoded.mp4"), reconstruction)


def test_the_figures_printed_are_those_of_the_frames(model, tmp_path, capsys):
    path = tmp_path / "clip.mp4"
    write_video(path, Shapes(1).read(0, 11).frames[:, :50, :44], 8.0)
    run("reconstruct", model, "--context", path, "--out", tmp_path)
    pairs = list(reconstruct_video(Tokenizer.from_pretrained(model), iterate_frames(path)))
    truth, clip = (torch.cat(part)[:, None] for part in zip(*pairs, strict=True))
    psnr, ssim = frame_psnr(clip, truth).mean(), frame_ssim(clip, truth).mean()
    assert f"PSNR {psnr:.2f} dB, SSIM {ssim:.4f}\n" in capsys.readouterr().out


def test_a_picture_too_small_for_ssim_is_reconstructed_without(model, tmp_path, capsys):
    path = tmp_path / "clip.mp4"
    write_video(path, Shapes(1).read(0, 6).frames[:, :10, :12], 8.0)
    run("reconstruct", model, "--context", path, "--out", tmp_path)
    assert decode_clip(tmp_path / "clip_reconstruction.mp4").shape == (6, 10, 12, 3)
    assert re.search(r"PSNR [\d.]+ dB, no SSIM, which needs 11 pixels", capsys.readouterr().out)


def test_encode_and_decode_hold_a_few_frames_of_a_long_video(model, tmp_path, monkeypatch):
    path, num_frames = tmp_path / "clip.mp4", 120
    write_video(path, torch.randint(256, (num_frames, 16, 16, 3), dtype=torch.uint8), 8.0)
    read, written, waiting = [], [], []

    def watch(owner, name, log, count):
        """Count what passes through a function: what it yields, or what it is given."""
        inner = getattr(owner, name)

        def reading(*arguments):
            for item in inner(*arguments):
                log.append(count(item))
                yield item

        def writing(self, item):
            log.append(count(item))
            waiting.append(sum(read) - sum(written))
            inner(self, item)

        monkeypatch.setattr(owner, name, reading if log is read else writing)

    watch(sample, "iterate_frames", read, lambda frame: 1)
    watch(TokenWriter, "write", written, lambda tokens: 4 * tokens.shape[1])
    run("encode", model, "--context", path, "--out", tmp_path)
    assert sum(read) == num_frames
    assert max(waiting) <= 40
    for log in (read, written, waiting):
        log.clear()
    watch(TokenReader, "__iter__", read, lambda tokens: 4 * tokens.shape[1])
    watch(VideoWriter, "write", written, len)
    run("decode", model, "--context", tmp_path / "clip.tokens", "--out", tmp_path)
    assert sum(written) == num_frames
    assert max(waiting) <= 40


def test_the_truth_stands_beside_the_reconstruction(model, tmp_path):
    path = tmp_path / "clip.mp4"
    write_video(path, Shapes(1).read(0, 6).frames, 8.0)
    run("reconstruct", model, "--context", path, "--side-by-side", "--tile", 80, "--out", tmp_path)
    pair, truth = decode_clip(tmp_path / "clip_reconstruction.mp4"), decode_clip(path)
    assert pair.shape == (6, 64, 128, 3)
    assert (pair[:, :, :64].int() - truth.int()).abs().float().mean() < 3


def test_a_tokenizer_alone_is_a_codec(pipe, tmp_path):
    pipe.tokenizer.save_pretrained(tmp_path / "tokenizer_alone")
    write_video(tmp_path / "clip.mp4", Shapes(1).read(0, 5).frames, 8.0)
    out = tmp_path / "some" / "clip.tokens"
    run("encode", tmp_path / "tokenizer_alone", "--context", tmp_path / "clip.mp4", "--out", out)
    assert TokenReader(out).num_frames == 5


def test_a_video_broken_half_way_is_named_and_leaves_no_file(model, tmp_path):
    path, out = tmp_path / "clip.mp4", tmp_path / "out"
    write_video(path, torch.randint(256, (60, 48, 48, 3), dtype=torch.uint8), 8.0)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4000] = bytes(4000)
    path.write_bytes(content)
    for task in ("encode", "reconstruct"):
        with pytest.raises(ValueError, match=r"clip\.mp4 is broken"):
            run(task, model, "--context", path, "--out", out)
    assert not out.exists() or list(out.iterdir()) == []


def test_a_task_without_its_input_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match="--context"):
        run("encode", model)
    with pytest.raises(ValueError, match="not a file"):
        run("encode", model, "--context", tmp_path / "absent.mp4")
    with pytest.raises(ValueError, match="not a file"):
        run("decode", model, "--context", tmp_path / "absent.tokens")
    write_video(tmp_path / "clip.mp4", Shapes(1).read(0, 5).frames, 8.0)
    with pytest.raises(ValueError, match="does not begin like a token file"):
        run("decode", model, "--context", tmp_path / "clip.mp4")
