"""The Inception score against closed forms and torchmetrics."""

import pytest
import torch
from torch import nn
from torchmetrics.image.inception import InceptionScore

from evaluation.inception_score import VideoInceptionScore, inception_score


class Classifier(nn.Module):
    extractor_id = "corner"
    num_features = 5

    def forward(self, clip):
        return clip[:, 0, 0, :5, 0].float() / 50


@pytest.fixture
def clips():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (30, 2, 6, 6, 3), generator=generator).byte()


def test_sure_and_even_classes_score_their_number():
    logits = 1000 * torch.eye(4).repeat(3, 1)
    assert inception_score(logits).item() == pytest.approx(4)
    assert inception_score(torch.zeros(8, 4)).item() == pytest.approx(1)


@pytest.mark.filterwarnings("ignore:std")  # of one split
@pytest.mark.filterwarnings("ignore:Metric `InceptionScore` will save all extracted features")
def test_it_equals_torchmetrics_with_one_split(clips):
    metric, oracle = VideoInceptionScore(Classifier()), InceptionScore(Classifier(), splits=1)
    for part in clips.split(7):
        metric.update(part)
    oracle.update(clips)
    expected = oracle.compute()[0].item()
    assert metric.compute().item() == pytest.approx(expected, rel=1e-6)
    assert inception_score(Classifier()(clips)).item() == pytest.approx(expected, rel=1e-6)
    assert metric.name == "inception_score_corner"


def test_a_weight_says_how_often_a_clip_counts(clips):
    logits, weights = Classifier()(clips), torch.tensor([2.0, 0, 1] * 10, dtype=torch.float64)
    expected = inception_score(logits.repeat_interleave(weights.long(), 0))
    assert inception_score(logits, weights).item() == pytest.approx(expected.item())
