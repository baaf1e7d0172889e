"""Windows over long videos: every frame is made once, from frames that are known."""

import pytest
import torch

from lm.windows import Span, plan, windows_of


@pytest.mark.parametrize(
    ("ends", "known"),
    [([17], 0), ([17], 5), ([1], 0), ([65], 0), ([101], 9), ([17, 33, 49], 0), ([9, 29], 5)],
)
def test_windows_make_every_frame_once_and_go_on_from_known_ones(ends, known):
    have = known
    for span in plan(ends, known, 17, 4):
        assert span.start + span.kept == have
        assert span.start >= 0
        assert (span.stop - span.start - 1) % 4 == 0
        assert span.stop - span.start <= 17
        assert (span.kept > 0) == (have > 0)
        assert span.stop > have
        have = span.stop
        assert have <= ends[span.part]
    assert have == ends[-1]


def test_a_continuation_keeps_half_a_window():
    assert list(plan([33], 0, 17, 4)) == [Span(0, 0, 17, 0), Span(8, 9, 25, 0), Span(16, 9, 33, 0)]


def test_a_new_part_goes_on_from_the_last_frame_alone():
    spans = list(plan([17, 41], 0, 17, 4))
    assert spans == [Span(0, 0, 17, 0), Span(16, 1, 33, 1), Span(24, 9, 41, 1)]


def test_key_frames_bound_their_windows():
    spans = list(plan([17, 33], 1, 17, 4))
    assert spans == [Span(0, 1, 17, 0), Span(16, 1, 33, 1)]


def test_a_window_without_room_for_a_past_makes_no_longer_video():
    assert [*plan([5], 0, 5, 4)] == [Span(0, 0, 5, 0)]
    assert [*plan([9], 0, 5, 4)] == [Span(0, 0, 5, 0), Span(4, 1, 9, 0)]
    assert [*plan([1], 0, 1, 4)] == [Span(0, 0, 1, 0)]
    with pytest.raises(ValueError, match="makes 1 frames at once and goes on from none"):
        list(plan([5], 0, 1, 4))


@pytest.mark.parametrize(
    ("ends", "known"),
    [([17], 0), ([1], 0), ([65], 0), ([101], 9), ([17, 33, 61], 0), ([9, 29], 5)],
)
def test_sliding_windows_hold_whole_latent_frames(ends, known):
    have = known
    for span in plan(ends, known, 17, 4, slides=True):
        kept, latents = span.latent_frames(4)
        assert span.start + span.kept == have
        assert latents <= 5
        if span.slides:
            assert (span.start - 1) % 4 == 0
            assert (kept, span.kept) == (2, 8)
        else:  # the first of a part has an image in front
            assert (span.stop - span.start, span.kept) == (4 * latents - 3, max(0, 4 * kept - 3))
        assert (latents - kept) * 4 == span.stop - have + 3 * (have == 0)
        have = span.stop
    assert have == ends[-1]


def test_a_sliding_continuation_keeps_half_a_window():
    spans = list(plan([41], 0, 17, 4, slides=True))
    assert spans == [Span(0, 0, 17, 0), Span(9, 8, 29, 0, True), Span(21, 8, 41, 0, True)]


def test_half_of_the_trained_windows_stand_at_the_start_and_the_others_anywhere():
    tokens = torch.arange(9)[None, :, None, None].expand(4000, 9, 2, 2)
    cut, given = windows_of(tokens, 5, torch.Generator().manual_seed(0))
    starts = cut[:, 0, 0, 0]
    assert torch.equal(cut[..., 0, 0], starts[:, None] + torch.arange(5))
    shares = torch.bincount(starts, minlength=5) / 4000
    torch.testing.assert_close(shares, torch.tensor([0.5] + [0.125] * 4), rtol=0, atol=0.03)
    assert torch.equal(given, 2 * (starts > 0))
    whole, given = windows_of(tokens, 9, torch.Generator())
    assert torch.equal(whole, tokens)
    assert not given.any()
