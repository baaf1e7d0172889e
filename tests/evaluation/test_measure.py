"""Everything that is measured of a model, on one that knows nothing."""

import math

import pytest
import torch

from data.shapes import Shapes
from data.video import to_model_range, write_video
from evaluation import measure
from evaluation.reconstruction import reconstruction_figures
from lm import MaskGITPrior, Transformer


def test_a_reconstruction_without_error():
    truth = torch.randint(256, (2, 5, 16, 16, 3), dtype=torch.uint8)
    tokens = torch.arange(16).view(2, 2, 2, 2)
    figures = reconstruction_figures(truth, truth, tokens, 64, truth[..., 0] > 128)
    assert figures["psnr"] == figures["psnr_object"] == 100
    assert figures["ssim"] == pytest.approx(1)
    assert figures["code_usage"] == 16 / 64
    assert figures["bits_per_pixel"] == 16 * 6 / (2 * 5 * 16 * 16)


@pytest.fixture
def videos(tmp_path, monkeypatch):
    """Three captioned videos, of which two clips are measured."""
    monkeypatch.setattr(measure, "NUM_CLIPS", 2)
    source = Shapes(3)
    for i in range(3):
        sample = source.read(i, 51)
        write_video(tmp_path / f"{i}.mp4", sample.frames, 8.0)
        if i:
            (tmp_path / f"{i}.txt").write_text(sample.caption)
    return tmp_path


def test_videos_are_measured_with_and_without_captions(pipe, videos):
    pipe.text = None
    measured = measure.measure_videos(pipe, videos)
    assert len(measured.compared) == 2
    assert [*measured.compared[0].clips] == ["truth", "tokens", "model"]
    figures = measured.figures
    assert not [name for name in figures if name.startswith("prompts.")]
    truth = torch.stack([row.clips["truth"] for row in measured.compared])
    tokens = torch.cat([pipe.tokenizer.encode(to_model_range(clip[None])) for clip in truth])
    nats = pipe.prior.loss(tokens, pipe.condition(None, 2)).item()
    assert figures["prior.bits_per_token"] == pytest.approx(nats / math.log(2))


def test_a_masked_prior_is_measured_by_what_it_can_tell(pipe, videos):
    prior = MaskGITPrior(Transformer(32, 2, num_heads=2), codebook_size=200, grid=[5, 4, 4])
    pipe.prior, pipe.text = prior.eval(), None
    figures = measure.measure_videos(pipe, videos).figures
    assert 0 < figures["prior.pseudo_bits_per_token"] < 20
    assert "prior.bits_per_token" not in figures
    assert figures["continuation.psnr"] > 0
