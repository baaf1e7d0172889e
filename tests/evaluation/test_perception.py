"""Perceptual distance by a file, and consistency of frames, against numpy."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from evaluation.perception import PerceptualDistance, consistency, pixel_features

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")


class Distance(nn.Module):
    def forward(self, x, y):
        return (x - y).abs().mean((1, 2, 3))


@pytest.fixture
def clips():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (2, 3, 4, 8, 8, 3), generator=generator).byte()


def test_a_file_measures_frames_in_minus_one_to_one(clips, tmp_path):
    torch.jit.script(Distance()).save(tmp_path / "alex.pt")
    metric = PerceptualDistance(tmp_path / "alex.pt")
    expected = (clips[0].double() - clips[1].double()).abs().mean((2, 3, 4)) / 127.5
    torch.testing.assert_close(metric(clips[0], clips[1]), expected, rtol=1e-5, atol=0)
    assert metric.name == f"lpips_alex-{metric.sha256[:8]}"


def test_consistency_is_the_cosine_of_neighbours(clips):
    features = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    x = features.double().numpy()
    norm = np.linalg.norm
    expected = [[a @ b / norm(a) / norm(b) for a, b in pairwise(clip)] for clip in x]
    np.testing.assert_allclose(consistency(features).numpy(), expected)


def test_a_still_clip_is_consistent_and_noise_is_not(clips):
    still = clips[0][:, :1].expand(-1, 4, -1, -1, -1)
    assert consistency(pixel_features(still)).mean() == pytest.approx(1)
    assert abs(consistency(pixel_features(clips[0])).mean()) < 0.2
