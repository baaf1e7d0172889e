"""Bits of latent frames against the prior's own score, and long videos against their windows."""

import csv
import math

import pytest
import torch

from data.video import VideoWriter, to_model_range
from evaluation.likelihood import PSEUDO_GROUPS, bits_of, kind, scored_frames, surprise
from evaluation.surprise import _stands_out, write_surprise
from lm import MaskGITPrior, Transformer


@pytest.fixture
def video():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (43, 32, 32, 3), generator=generator).byte()


def bits(pipe, frames, latents):
    """The last bits of one pass over some frames."""
    tokens = pipe.tokenizer.encode(to_model_range(frames[None]))
    nats = pipe.prior.score(tokens, pipe.condition(None, 1)).reshape(-1, 16).sum(1)
    return (-nats / math.log(2))[-latents:].tolist()


def test_bits_of_a_clip_sum_to_its_score(pipe, video):
    clips = torch.stack([video[:17], video[17:34]])
    found = bits_of(pipe, clips, ["a red circle moving left", "a blue square moving up"])
    nats = pipe.score(clips, ["a red circle moving left", "a blue square moving up"])
    assert found.shape == (2, 5)
    torch.testing.assert_close(found.sum(1), -nats.double() / math.log(2))
    assert scored_frames(pipe, 16) == 13
    assert scored_frames(pipe, 40) == 17


def test_a_long_video_is_judged_window_by_window(pipe, video):
    """The window has 5 latent frames of stride 4; each later one brings 3 new ones."""
    found = list(surprise(pipe, (frame.numpy() for frame in video)))
    assert len(found) == 1 + 42 // 4
    assert [(row.first_frame, row.last_frame) for row in found[:3]] == [(0, 0), (1, 4), (5, 8)]
    assert found[-1].last_frame == 40
    expected = bits(pipe, video[:17], 5) + bits(pipe, video[12:29], 3) + bits(pipe, video[24:41], 3)
    assert [row.bits for row in found] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("length", [1, 4, 5, 16, 18])
def test_videos_of_any_length_are_judged_up_to_the_last_whole_latent_frame(pipe, video, length):
    found = list(surprise(pipe, (frame.numpy() for frame in video[:length])))
    assert found[-1].last_frame == (length - 1) // 4 * 4
    whole = 1 + (length - 1) // 4 * 4
    assert found[0].bits == pytest.approx(bits(pipe, video[: min(whole, 17)], 99)[0], rel=1e-5)


def test_the_csv_holds_what_the_page_shows(pipe, video, tmp_path):
    with VideoWriter(tmp_path / "v.mp4", 8.0, lossless=True) as writer:
        writer.write(video[:21])
    found = write_surprise(pipe, tmp_path / "v.mp4", tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / "surprise.csv").read_text().splitlines()))
    assert [float(row["bits"]) for row in rows] == [row.bits for row in found]
    assert [float(row["seconds"]) for row in rows] == [0, 1 / 8, 5 / 8, 9 / 8, 13 / 8, 17 / 8]
    page = (tmp_path / "out" / "surprise.html").read_text()
    assert "bits of each latent frame" in page
    assert "<svg" in page


def test_only_what_lies_far_above_the_median_stands_out():
    values = [10.0, 11.0, 9.0, 10.0, 12.0, 40.0]
    assert [_stands_out(value, values) for value in values] == [False] * 5 + [True]


def test_a_masked_prior_has_a_pseudo_likelihood_and_other_priors_none(pipe, video):
    torch.manual_seed(0)
    pipe.prior = MaskGITPrior(Transformer(32, 2, num_heads=2), codebook_size=200, grid=[5, 4, 4])
    assert kind(pipe.prior.eval()) == "pseudo_bits"
    clips = torch.stack([video[:17], video[17:34]])
    tokens = pipe.tokenizer.encode(to_model_range(clips))
    nats = pipe.prior.pseudo_log_likelihood(tokens, pipe.condition(None, 2), PSEUDO_GROUPS)
    expected = -nats.reshape(2, 5, 16).sum(2).double() / math.log(2)
    torch.testing.assert_close(bits_of(pipe, clips), expected)
    assert len(list(surprise(pipe, (frame.numpy() for frame in video[:21])))) == 6
    pipe.prior = object()
    with pytest.raises(ValueError, match="object has no likelihood"):
        next(surprise(pipe, iter([video[0].numpy()])))


def test_no_group_of_tokens_is_a_row_or_column_of_a_usual_grid():
    for height, width in ((4, 4), (8, 8), (16, 16), (8, 16), (32, 32), (18, 32)):
        assert math.gcd(PSEUDO_GROUPS, width * height) == 1
