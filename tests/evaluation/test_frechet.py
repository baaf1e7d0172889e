"""The Frechet distance against a closed form and torchmetrics' FID on the same features."""

import pytest
import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance

from evaluation.frechet import FrechetVideoDistance, RandomFeatures3D, frechet_distance
from evaluation.kernel import KernelVideoDistance


class Patches(nn.Module):
    """Six means over parts of the clip: features whose covariance has full rank."""

    extractor_id = "patches"
    num_features = 6

    def forward(self, clip):
        return clip.float().mean((1, 4)).flatten(1)[:, :6]


@pytest.fixture
def clips():
    generator = torch.Generator().manual_seed(0)
    real = torch.randint(256, (20, 3, 4, 4, 3), generator=generator)
    fake = torch.randint(200, (30, 3, 4, 4, 3), generator=generator)
    return real.to(torch.uint8), fake.to(torch.uint8)


def distance(extractor, real, fake, batch=7):
    metric = FrechetVideoDistance(extractor)
    for part in real.split(batch):
        metric.update(part, real=True)
    for part in fake.split(batch):
        metric.update(part, real=False)
    return metric.compute().item()


def random_covariance(size, seed):
    generator = torch.Generator().manual_seed(seed)
    factor = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return factor @ factor.T


def test_diagonal_gaussians_have_a_closed_form():
    means = torch.tensor([[0.0, 1, 2], [3, 1, 0]], dtype=torch.float64)
    deviations = torch.tensor([[1.0, 2, 3], [2, 0, 5]], dtype=torch.float64)
    expected = (means[0] - means[1]).square().sum()
    expected += (deviations[0] - deviations[1]).square().sum()
    first, second = (torch.diag(deviation**2) for deviation in deviations)
    assert frechet_distance(means[0], first, means[1], second).item() == pytest.approx(
        expected.item()
    )


def test_the_root_agrees_with_the_eigenvalues_of_the_product():
    first, second = random_covariance(8, 0), random_covariance(8, 1)
    zero = torch.zeros(8, dtype=torch.float64)
    expected = first.trace() + second.trace()
    expected -= 2 * torch.linalg.eigvals(first @ second).sqrt().real.sum()
    assert frechet_distance(zero, first, zero, second).item() == pytest.approx(expected.item())
    assert frechet_distance(zero, second, zero, first).item() == pytest.approx(expected.item())
    assert frechet_distance(zero, first, zero, first).item() == pytest.approx(0, abs=1e-9)


def test_it_equals_torchmetrics_fid_on_the_same_features(clips):
    # torchmetrics gives its result back in float32.
    oracle = FrechetInceptionDistance(feature=Patches()).set_dtype(torch.float64)
    oracle.update(clips[0], real=True)
    oracle.update(clips[1], real=False)
    assert distance(Patches(), *clips) == pytest.approx(oracle.compute().item(), rel=1e-6)


def test_batching_and_order_do_not_matter(clips):
    real, fake = clips
    assert distance(Patches(), real.flip(0), fake, batch=30) == pytest.approx(
        distance(Patches(), real, fake), rel=1e-10
    )


def test_few_clips_warn_and_fewer_are_an_error(clips):
    with pytest.warns(UserWarning, match=r"\(6, 30\) real and fake clips against 6 features"):
        distance(Patches(), clips[0][:6], clips[1])
    with pytest.raises(ValueError, match=r"\(1, 30\)"):
        distance(Patches(), clips[0][:1], clips[1])


def test_the_number_carries_the_name_of_its_extractor():
    assert FrechetVideoDistance(RandomFeatures3D()).name == "frechet_rand3d-seed0"
    with pytest.raises(ValueError, match="Linear has no extractor_id"):
        FrechetVideoDistance(nn.Linear(1, 1))


def test_random_features_are_a_function_of_the_seed_alone(clips):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, again, other = (RandomFeatures3D(seed)(clips[0]) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert first.shape == (20, 64)
    assert not any(parameter.requires_grad for parameter in RandomFeatures3D().parameters())
    with pytest.raises(ValueError, match="num_features is 7"):
        RandomFeatures3D(num_features=7)


def test_random_features_see_motion(clips):
    """Shuffled frames hold the same pictures, yet lie farther off than other clips do."""
    generator = torch.Generator().manual_seed(0)
    start = torch.rand(48, 1, 1, 1, 2, generator=generator)
    time, row, column = torch.meshgrid(*map(torch.arange, (8, 16, 16)), indexing="ij")
    waves = torch.sin(0.5 * (column + time)[None, ..., None] + 6.3 * start[..., :1])
    clip = (127.5 + 100 * waves).to(torch.uint8).expand(-1, -1, -1, -1, 3).contiguous()
    assert row.shape == clip.shape[1:4]
    extractor = RandomFeatures3D(num_features=8)
    shuffled = clip[:24][:, [3, 0, 6, 2, 7, 1, 5, 4]]
    near = distance(extractor, clip[:24], clip[24:])
    assert distance(extractor, clip[:24], shuffled) > 5 * near


@pytest.mark.parametrize("metric", [FrechetVideoDistance, KernelVideoDistance])
def test_features_that_are_not_finite_are_refused_with_the_clip(metric):
    class Broken(torch.nn.Module):
        extractor_id, num_features = "broken", 2

        def forward(self, clip):
            return 1 / clip.float().mean((1, 2, 3))[:, :2]

    clips = torch.full((3, 2, 4, 4, 3), 9).byte()
    metric(Broken()).update(clips, real=True)
    clips[1] = 0
    with pytest.raises(ValueError, match=r"broken gives features .* not finite for clips \[1\]"):
        metric(Broken()).update(clips, real=True)
