"""Every layer of the CNN sees the present and the past, never the future."""

import pytest
import torch

from layers.norms import ChannelLayerNorm
from tokenizer.blocks import CausalConv3d, Downsample, PatchStem, ResidualBlock, Upsample

# Layer, and how many input frames an output frame stands for (above 1) or is made from (below).
LAYERS = {
    "conv": (CausalConv3d(8, 8, (3, 3)), 1),
    "conv in time": (CausalConv3d(8, 8, (3, 1)), 1),
    "strided conv": (CausalConv3d(8, 8, (3, 3), (2, 2)), 2),
    "residual": (ResidualBlock(8, factorized=False), 1),
    "factorised residual": (ResidualBlock(8, factorized=True), 1),
    "downsample": (Downsample(8, 16, (2, 2)), 2),
    "downsample in space": (Downsample(8, 16, (1, 2)), 1),
    "Haar": (PatchStem(2, 2, channels=8), 2),
    "unshuffle": (PatchStem(2, 2, wavelet=False, channels=8), 2),
    "norm": (ChannelLayerNorm(8), 1),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("frame", [1, 2, 5, 8])
@pytest.mark.parametrize("name", LAYERS)
def test_what_comes_later_changes_nothing_before(name, frame, training):
    layer, stride = LAYERS[name]
    layer.train(training)
    torch.manual_seed(0)
    for p in layer.parameters():
        p.data = torch.randn_like(p)
    x = torch.randn(2, 8, 9, 4, 4)
    changed = x.clone()
    changed[:, :, frame:] += 1 + torch.rand_like(changed[:, :, frame:])
    first = -(-frame // stride)
    before, after = layer(x), layer(changed)
    assert torch.equal(before[:, :, :first], after[:, :, :first])
    assert not torch.equal(before[:, :, first], after[:, :, first])


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("frame", [1, 2, 4])
def test_an_upsampler_never_looks_ahead(frame, training):
    torch.manual_seed(0)
    layer = Upsample(16, 8, (2, 2)).train(training)
    x = torch.randn(2, 16, 5, 4, 4)
    changed = x.clone()
    changed[:, :, frame:] += 1
    before, after = layer(x), layer(changed)
    assert torch.equal(before[:, :, : 2 * frame - 1], after[:, :, : 2 * frame - 1])
    assert not torch.equal(before[:, :, 2 * frame - 1], after[:, :, 2 * frame - 1])


@pytest.mark.parametrize("wavelet", [False, True])
def test_the_stem_is_inverted(wavelet):
    stem, x = PatchStem(4, 4, wavelet=wavelet), torch.randn(2, 3, 9, 8, 8)
    torch.testing.assert_close(stem.inverse(stem(x)), x)


def test_the_haar_stem_keeps_the_mean_in_its_first_band():
    x = torch.randn(2, 3, 9, 8, 8)
    low = PatchStem(2, 4)(x)[:, :3, 1:]
    mean = x[:, :, 1:].unflatten(2, (-1, 2)).mean(3)
    mean = mean.unflatten(3, (-1, 4)).unflatten(5, (-1, 4)).mean((4, 6))
    torch.testing.assert_close(low, mean)


def test_without_wavelets_the_stem_unshuffles_pixels():
    x = torch.randn(2, 3, 1, 8, 8)
    ours = PatchStem(1, 4, wavelet=False)(x)[:, :, 0]
    theirs = torch.nn.functional.pixel_unshuffle(x[:, :, 0], 4)  # channels before pixels
    theirs = theirs.unflatten(1, (3, 16)).transpose(1, 2).flatten(1, 2)
    assert torch.equal(ours, theirs)
