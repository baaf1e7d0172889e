"""Patches in a basis where all directions weigh alike, and noise of a size for each place."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from diffusion import DiffusionDecoder, UNet3D
from diffusion.condition import fold
from diffusion.whitening import LEVEL, LocalScale, Whitening


def coarse(count=6):
    """Clips that vary much over long ways, little over short ones, and less still in blue."""
    generator = torch.Generator().manual_seed(0)
    x = 0.1 * torch.randn(count, 3, 5, 4, 4, generator=generator)
    x = torch.nn.functional.interpolate(x, size=(5, 32, 32), mode="trilinear")
    x = x + 0.02 * torch.randn(x.shape, generator=generator)
    x[:, 2] *= 0.01
    return x


def test_outward_undoes_inward():
    whitening, x = Whitening(4), coarse()
    assert torch.equal(whitening.inward(x), x)  # before it is fitted
    whitening.fit(x)
    torch.testing.assert_close(whitening.outward(whitening.inward(x)), x, atol=1e-5, rtol=1e-5)


def test_components_have_deviation_1_unless_they_are_below_a_level():
    whitening, x = Whitening(4), coarse()
    whitening.fit(x)
    rows = fold(whitening.inward(x), 4).movedim(1, 0).flatten(1).double()
    products = rows @ rows.mT / rows.shape[1]
    found = products.diagonal()
    clipped = whitening.deviations <= 1.001 * LEVEL
    assert 10 < clipped.sum() < 40  # blue, and little else
    torch.testing.assert_close(found[~clipped], torch.ones_like(found[~clipped]), atol=1e-3, rtol=0)
    assert found[clipped].max() <= 1.001
    off = products - found.diag()
    assert off.abs().max() < 1e-3


def test_deviations_are_those_of_a_principal_component_analysis():
    whitening, x = Whitening(4), coarse()
    whitening.fit(x)
    rows = fold(x, 4).movedim(1, -1).flatten(0, -2).numpy()
    rows = np.concatenate([rows, -rows])  # about zero, as the decoder's differences are
    expected = PCA().fit(rows.astype(np.float64)).explained_variance_[::-1] ** 0.5
    torch.testing.assert_close(
        whitening.deviations, torch.from_numpy(expected.clip(LEVEL)).float(), atol=1e-5, rtol=1e-3
    )


def rough(count=4):
    """A CNN's clips, whose patches vary by any deviation up to 0.5, and what they lack: twice that.

    No patch is like its neighbours.
    """
    generator = torch.Generator().manual_seed(0)
    deviation = 0.5 * torch.rand(count, 1, 3, 16, 16, generator=generator)
    deviation = deviation.repeat_interleave(4, 3).repeat_interleave(4, 4)
    grey = (torch.arange(64)[:, None] + torch.arange(64)) % 2 * 2.0 - 1  # deviation 1 in a patch
    base = (deviation * grey).expand(-1, 3, -1, -1, -1)
    return base, 2 * deviation * torch.randn(base.shape, generator=generator)


def test_a_place_is_scaled_by_how_far_clips_lie_where_the_cnn_varies_as_much():
    base, lacking = rough()
    local = LocalScale(4)
    assert torch.equal(local(torch.zeros_like(base)), torch.ones_like(base[:, :1]))  # not fitted
    local.fit(lacking, base)
    expected = 2 * base[:, :1].abs()
    inner = (expected > 0.05) & (expected < 0.95)  # beyond the outermost groups nothing is known
    found = local(base)
    assert inner.float().mean() > 0.8
    torch.testing.assert_close(found[inner], expected[inner], atol=0.03, rtol=0.05)
    assert (lacking / found).std().item() == pytest.approx(1, abs=0.02)
    assert local(base + 0.3).sub(found).abs().max() < 1e-4  # brightness alone is no variation


def test_a_place_where_nothing_is_lacking_is_not_made_louder_than_a_level():
    base, lacking = rough()
    local = LocalScale(4)
    local.fit(torch.zeros_like(lacking), base)
    assert torch.equal(local(base), torch.full_like(base[:, :1], LEVEL))


def test_what_is_lacking_is_read_off_the_cnns_clip_alone():
    with pytest.raises(ValueError, match="local_scale is of what use: refine samples"):
        DiffusionDecoder(UNet3D([32], [1]), 200, [4, 8], use="none", local_scale=True)
