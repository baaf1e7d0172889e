"""Patches in a basis where all directions weigh alike."""

import numpy as np
import torch
from sklearn.decomposition import PCA

from diffusion.condition import fold
from diffusion.whitening import LEVEL, Whitening


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
