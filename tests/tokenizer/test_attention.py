"""Attention inside the CNN: the past within a window, chunk by chunk as in one pass."""

import pytest
import torch

from tokenizer.attention import SpatialAttention, TemporalAttention


def layer_of(kind, *arguments):
    torch.manual_seed(0)
    layer = kind(64, *arguments)
    for p in layer.parameters():
        p.data = 0.3 * torch.randn_like(p)
    return layer


@pytest.mark.parametrize("window", [1, 3, 8])
def test_a_frame_sees_its_window_and_nothing_else(window):
    layer, x = layer_of(TemporalAttention, window), torch.randn(1, 64, 12, 2, 2)
    changed = x.clone()
    changed[:, :, 4] += 1
    moved = (layer(x) != layer(changed)).flatten(3).any(3).any(1)[0]
    assert moved.tolist() == [4 <= frame < 4 + window for frame in range(12)]


@pytest.mark.parametrize("chunks", [[12], [1] * 12, [5, 7], [1, 4, 4, 3]])
def test_chunks_equal_one_pass(chunks):
    layer, x = layer_of(TemporalAttention, 5), torch.randn(2, 64, 12, 3, 2)
    cache: dict = {}
    parts = [layer(part, cache) for part in x.split(chunks, dim=2)]
    torch.testing.assert_close(torch.cat(parts, dim=2), layer(x), atol=1e-5, rtol=0)
    assert cache[layer].shape[2] == 4


def test_pieces_of_a_window_equal_one_masked_softmax():
    """The same attention written out for one place, without pieces."""
    layer, x = layer_of(TemporalAttention, 3), torch.randn(1, 64, 10, 1, 1)
    wide = layer_of(TemporalAttention, 100)
    wide.load_state_dict(layer.state_dict())
    for frame in range(10):
        window = x[:, :, max(0, frame - 2) : frame + 1]
        torch.testing.assert_close(layer(x)[:, :, frame], wide(window)[:, :, -1], atol=1e-5, rtol=0)


def test_a_frame_attends_to_itself_alone_in_space():
    layer, x = layer_of(SpatialAttention), torch.randn(1, 64, 4, 3, 3)
    changed = x.clone()
    changed[:, :, 2, 0, 0] += 1
    moved = (layer(x) != layer(changed)).any(1)[0]
    assert moved.flatten(1).any(1).tolist() == [False, False, True, False]
    assert bool(moved[2].all())


@pytest.mark.parametrize("kind", [SpatialAttention, lambda c: TemporalAttention(c, 4)])
def test_a_fresh_layer_passes_its_input_through(kind):
    x = torch.randn(1, 64, 4, 3, 3)
    assert torch.equal(kind(64)(x), x)


def test_a_still_clip_stays_still():
    layer, frame = layer_of(TemporalAttention, 4), torch.randn(1, 64, 1, 3, 3)
    y = layer(frame.expand(-1, -1, 9, -1, -1))
    torch.testing.assert_close(y, y[:, :, :1].expand_as(y), atol=1e-5, rtol=0)


def test_channels_that_do_not_make_heads_are_refused():
    with pytest.raises(ValueError, match="multiple of 64"):
        SpatialAttention(96)
    with pytest.raises(ValueError, match="at least 1 frame"):
        TemporalAttention(64, 0)
