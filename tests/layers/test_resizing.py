"""Larger and smaller clips keep what both can show."""

import pytest
import torch

from layers.resizing import enlarged, reduced


def test_enlarging_keeps_what_was_there_and_blends_frames():
    clip = torch.rand(2, 3, 5, 8, 8)
    twice = enlarged(clip, 2, 1)
    assert twice.shape == (2, 3, 9, 8, 8)
    torch.testing.assert_close(twice[:, :, ::2], clip)
    torch.testing.assert_close(twice[:, :, 1::2], (clip[:, :, 1:] + clip[:, :, :-1]) / 2)
    assert enlarged(clip, 1, 2).shape == (2, 3, 5, 16, 16)
    assert torch.equal(enlarged(clip, 1, 1), clip)


@pytest.mark.parametrize("factors", [(2, 1), (1, 2), (2, 2), (3, 1)])
def test_reducing_undoes_enlarging_of_flat_clips(factors):
    clip = torch.rand(2, 3, 5, 1, 1).expand(-1, -1, -1, 8, 8)
    torch.testing.assert_close(reduced(enlarged(clip, *factors), *factors), clip)
