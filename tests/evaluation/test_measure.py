"""Everything that is measured of a model, on one that knows nothing."""

import math

import pytest
import torch

from data.shapes import Shapes
from data.video import to_model_range, write_video
from evaluation import measure
from evaluation.reconstruction import reconstruction_figures


def test_a_reconstruction_without_error():
    truth = torch.randint(256, (2, 5, 16, 16, 3), dtype=torch.uint8)
    tokens = torch.arange(16).view(2, 2, 2, 2)
    figures = reconstruction_figures(truth, truth, tokens, 64, truth[..., 0] > 128)
    assert figures["psnr"] == figures["psnr_object"] == 100
    assert figures["ssim"] == pytest.approx(1)
    assert figures["code_usage"] == 16 / 64
    assert figures["bits_per_pixel"] == 16 * 6 / (2 * 5 * 16 * 16)


def test_videos_are_measured_with_and_without_captions(pipe, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "NUM_CLIPS", 2)
    source = Shapes(3)
    for i in range(3):
        sample = source.read(i, 51)
        write_video(tmp_path / f"{i}.mp4", sample.frames, 8.0)
        if i:
            (tmp_path / f"{i}.txt").write_text(sample.caption)
    pipe.text = None
    measured = measure.measure_videos(pipe, tmp_path)
    assert len(measured.compared) == 2
    assert [*measured.compared[0].clips] == ["truth", "tokens", "model"]
    figures = measured.figures
    assert not [name for name in figures if name.startswith("prompts.")]
    truth = torch.stack([row.clips["truth"] for row in measured.compared])
    tokens = torch.cat([pipe.tokenizer.encode(to_model_range(clip[None])) for clip in truth])
    nats = pipe.prior.loss(tokens, pipe.condition(None, 2)).item()
    assert figures["prior.bits_per_token"] == pytest.approx(nats / math.log(2))
