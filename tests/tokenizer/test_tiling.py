"""Tiles give what the whole frame gives, and say so where they cannot."""

import pytest
import torch
from torch import nn

from tokenizer import FSQ, TiledTokenizer, Tokenizer
from tokenizer.blocks import CausalConv3d, Upsample
from tokenizer.tiling import decoder_reach, encoder_reach, spans

LAYOUTS = {
    "demo": ([2, 4], [8, 16], [[2, 2]], True),
    "three levels": ([2, 2], [8, 8, 16], [[2, 2], [1, 2]], True),
    "full convolutions": ([2, 4], [8, 16], [[2, 2]], False),
    "no stride in time": ([1, 4], [8, 16], [[1, 2]], True),
    "no stride in space": ([2, 8], [8, 16], [[2, 1]], True),
}


def build(name: str) -> Tokenizer:
    patch, channels, strides, factorized = LAYOUTS[name]
    torch.manual_seed(0)
    encoder, decoder = [1, 0, 2][-len(channels) :], [2, 1, 1][-len(channels) :]
    tokenizer = Tokenizer(
        FSQ([8, 5, 5]), patch, channels, strides, encoder, decoder, factorized=factorized
    )
    for p in tokenizer.parameters():
        p.data.add_(0.05 * torch.randn_like(p))
    tokenizer.calibrate(torch.rand(2, 3, 5, 32, 32) * 2 - 1)
    return tokenizer.eval()


def cells(low: int, high: int, stride: int) -> int:
    """How many cells the interval of pixels reaches beyond the cell at 0."""
    return max(-(low // stride), high // stride)


def pixels_behind_a_token(tokenizer: Tokenizer) -> tuple[int, int]:
    """Follow the receptive field down: an output at i has inputs s i - p to s i - p + k - 1."""
    low = high = 0
    convolutions = [m for m in tokenizer.encoder.modules() if isinstance(m, CausalConv3d)]
    for layer in reversed(convolutions):
        kernel, stride = layer.kernel_size[2], layer.stride[2]
        low, high = low * stride - kernel // 2, high * stride - kernel // 2 + kernel - 1
    patch = tokenizer.encoder.stem.spatial
    return low * patch, high * patch + patch - 1


def pixels_before_a_token(tokenizer: Tokenizer) -> tuple[int, int]:
    """Follow what a token changes up: a kernel widens it, an upsampler stretches it."""
    low = high = 0
    decoder = tokenizer.decoder
    for block in [decoder.conv_in, *decoder.blocks, decoder.conv_out]:
        for layer in block.modules():
            if isinstance(layer, CausalConv3d):
                low, high = low - layer.kernel_size[2] // 2, high + layer.kernel_size[2] // 2
        if isinstance(block, Upsample):
            low, high = low * block.stride[1], high * block.stride[1] + block.stride[1] - 1
    patch = decoder.stem.spatial
    return low * patch, high * patch + patch - 1


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_reach_follows_from_the_kernels(name):
    tokenizer = build(name)
    stride = tokenizer.spatial_stride
    assert encoder_reach(tokenizer) == cells(*pixels_behind_a_token(tokenizer), stride)
    assert decoder_reach(tokenizer) == cells(*pixels_before_a_token(tokenizer), stride)


def test_the_reach_does_not_depend_on_weights():
    tokenizer = build("demo")
    before = encoder_reach(tokenizer), decoder_reach(tokenizer)
    for p in tokenizer.parameters():
        p.data.zero_()
    assert (encoder_reach(tokenizer), decoder_reach(tokenizer)) == before


@pytest.fixture(scope="module", params=["demo", "three levels"])
def tokenizer(request) -> Tokenizer:
    return build(request.param)


@pytest.fixture(scope="module")
def clip() -> torch.Tensor:
    return torch.rand(1, 3, 9, 104, 152, generator=torch.Generator().manual_seed(1)) * 2 - 1


def smallest(tokenizer: Tokenizer) -> int:
    reach = encoder_reach(tokenizer), decoder_reach(tokenizer)
    return (2 * max(r for r in reach if r) + 2) * tokenizer.spatial_stride


def test_tokens_of_tiles_are_those_of_whole_frames(tokenizer, clip):
    tiled = TiledTokenizer(tokenizer, smallest(tokenizer))
    assert len(list(tiled._tiles((13, 19), tiled.encode_margin))) >= 20
    flipped = tiled.encode(clip) != tokenizer.encode(clip)
    # Kernels round by shape: latents agree to 1e-6, of which one in 10,000 may cross a boundary.
    assert flipped.float().mean() < 1e-3


def test_pixels_of_tiles_are_those_of_whole_frames(tokenizer, clip):
    tokens = tokenizer.encode(clip)
    tiled = TiledTokenizer(tokenizer, smallest(tokenizer))
    assert not tiled.blend
    torch.testing.assert_close(tiled.decode(tokens), tokenizer.decode(tokens), atol=1e-5, rtol=0)


def test_a_cell_less_of_overlap_is_not_enough(clip):
    tokenizer = build("demo")
    tokens = tokenizer.encode(clip)
    reach = encoder_reach(tokenizer), decoder_reach(tokenizer)
    assert reach == (3, 4)
    less = TiledTokenizer(tokenizer, 80, overlap=16)
    assert (less.encode(clip) != tokens).float().mean() > 1e-3
    less = TiledTokenizer(tokenizer, 80, overlap=24)
    assert torch.equal(less.encode(clip), tokens)
    assert (less.decode(tokens) - tokenizer.decode(tokens)).abs().max() > 1e-3
    assert [TiledTokenizer(tokenizer, 80, pixels).blend for pixels in (24, 32)] == [True, False]


def test_a_given_overlap_asks_for_no_reach_of_the_encoder(monkeypatch):
    asked = []
    monkeypatch.setattr("tokenizer.tiling.encoder_reach", lambda one: asked.append(one) or 3)
    TiledTokenizer(build("demo"), 80, overlap=32)
    assert not asked
    TiledTokenizer(build("demo"), 80)
    assert len(asked) == 1


def test_a_stream_of_tiles_equals_whole_frames_at_once(tokenizer, clip):
    tiled = TiledTokenizer(tokenizer, smallest(tokenizer))
    tokens = torch.cat(list(tiled.stream_encode(clip.split([2, 3, 4], dim=2))), dim=1)
    assert (tokens != tokenizer.encode(clip)).float().mean() < 1e-3
    frames = torch.cat(list(tiled.stream_decode(tokens.split(1, dim=1))), dim=2)
    torch.testing.assert_close(frames, tokenizer.decode(tokens), atol=1e-5, rtol=0)


def test_a_frame_smaller_than_a_tile_is_one_tile(tokenizer, clip):
    tiled = TiledTokenizer(tokenizer, 160)
    assert torch.equal(tiled.encode(clip), tokenizer.encode(clip))


@pytest.mark.parametrize(("length", "tile", "margin"), [(19, 8, 3), (100, 20, 0), (7, 9, 4)])
def test_cores_cover_an_axis_once_and_no_tile_is_too_large(length, tile, margin):
    cores = [range(s.core_begin, s.core_end) for s in spans(length, tile, margin)]
    assert [cell for core in cores for cell in core] == list(range(length))
    for span in spans(length, tile, margin):
        assert span.end - span.begin <= tile
        assert span.core_begin - span.begin == min(margin, span.core_begin)
        assert span.end - span.core_end == min(margin, length - span.core_end)


def test_blended_weights_fall_over_a_seam_while_the_neighbours_rise():
    left, right = spans(20, 16, 3)
    falling, rising = left.weight(8, True)[-48:], right.weight(8, True)[:48]
    torch.testing.assert_close(falling + rising, torch.ones(48))
    torch.testing.assert_close(rising, (torch.arange(48) + 0.5) / 48)
    assert (left.weight(8, True)[:-48] == 1).all()


class WholeFrame(nn.Module):
    """Stands for attention over all positions of a frame."""

    def forward(self, x, cache=None):
        return x + x.mean(dim=(3, 4), keepdim=True)


def test_a_receptive_field_without_end_has_to_be_accepted(clip):
    tokenizer = build("demo")
    tokenizer.encoder.blocks.append(WholeFrame())
    tokenizer.decoder.blocks.insert(0, WholeFrame())
    assert encoder_reach(tokenizer) is None
    with pytest.raises(ValueError, match=r"whole frame at once.*give overlap"):
        TiledTokenizer(tokenizer, 64)
    tiled = TiledTokenizer(tokenizer, 64, overlap=16)
    assert tiled.blend
    tokens = tiled.encode(clip)
    assert (tokens == tokenizer.encode(clip)).float().mean() > 0.5
    error = (tiled.decode(tokens) - tokenizer.decode(tokens)).abs().mean()
    assert error < 0.1


@pytest.mark.parametrize(
    ("tile", "overlap", "words"),
    [
        (60, None, "multiple of the spatial stride 8; use 64"),
        (64, 3, "overlap is 3 pixels"),
        (-8, None, "tile is -8"),
        (24, None, "use at least"),
        (32, 16, "use at least 40"),
    ],
)
def test_a_tile_that_cannot_be_is_refused(tile, overlap, words):
    with pytest.raises(ValueError, match=words):
        TiledTokenizer(build("demo"), tile, overlap)


def test_a_frame_that_does_not_fit_is_refused(tokenizer, clip):
    tiled = TiledTokenizer(tokenizer, smallest(tokenizer))
    with pytest.raises(ValueError, match="spatial stride"):
        tiled.encode(clip[..., :150])
    with pytest.raises(ValueError, match="codebook"):
        tiled.decode(torch.full((1, 1, 13, 19), 200))
