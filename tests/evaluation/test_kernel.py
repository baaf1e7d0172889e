"""The kernel distance against torchmetrics' KID and a sum over pairs."""

import pytest
import torch
from torch import nn
from torchmetrics.image.kid import KernelInceptionDistance

from evaluation.kernel import KernelDistance, KernelVideoDistance, polynomial_kernel


class Patches(nn.Module):
    extractor_id = "patches"
    num_features = 6

    def forward(self, clip):
        return clip.float().mean((1, 4)).flatten(1)[:, :6] / 64


@pytest.fixture
def clips():
    generator = torch.Generator().manual_seed(0)
    real = torch.randint(256, (20, 3, 4, 4, 3), generator=generator)
    fake = torch.randint(200, (20, 3, 4, 4, 3), generator=generator)
    return real.byte(), fake.byte()


def test_the_kernel_is_scikit_learns():
    from sklearn.metrics import pairwise

    x, y = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.from_numpy(pairwise.polynomial_kernel(x.numpy(), y.numpy()))
    torch.testing.assert_close(polynomial_kernel(x, y), expected)


@pytest.mark.filterwarnings(
    "ignore:Metric `Kernel Inception Distance` will save all extracted features"
)
def test_it_equals_torchmetrics_kid_on_the_same_features(clips):
    metric = KernelVideoDistance(Patches())
    oracle = KernelInceptionDistance(feature=Patches(), subsets=1, subset_size=20)
    for metric_or_oracle in (metric, oracle):
        metric_or_oracle.update(clips[0][:13], real=True)
        metric_or_oracle.update(clips[0][13:], real=True)
        metric_or_oracle.update(clips[1], real=False)
    assert metric.name == "kernel_patches"
    assert metric.compute().item() == pytest.approx(oracle.compute()[0].item(), rel=1e-6)


def test_weights_count_pairs_of_different_clips():
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    u = torch.tensor([1.0, 2, 0, 1], dtype=torch.float64)
    k = polynomial_kernel

    def within(z):
        pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
        total = sum(u[i] * u[j] * k(z[i : i + 1], z[j : j + 1]).item() for i, j in pairs)
        return total / sum(u[i] * u[j] for i, j in pairs)

    cross = sum(
        u[i] * u[j] * k(x[i : i + 1], y[j : j + 1]).item() for i in range(4) for j in range(4)
    )
    expected = within(x) + within(y) - 2 * cross / 16
    assert KernelDistance(x, y)(u, u).item() == pytest.approx(expected.item())


def test_the_distance_of_equal_distributions_is_unbiased():
    generator = torch.Generator().manual_seed(2)
    ones = torch.ones(20, dtype=torch.float64)
    draws = torch.randn(300, 2, 20, 4, generator=generator, dtype=torch.float64)
    values = torch.stack([KernelDistance(x, y)(ones, ones) for x, y in draws])
    assert abs(values.mean()) < 3 * values.std() / 300**0.5
    with pytest.raises(ValueError, match=r"\(20, 1\) real and fake"):
        KernelDistance(draws[0, 0], draws[0, 1, :1])
