"""Figures of a whole run against the same figures by hand."""

import pytest
import torch

from evaluation.frechet import RandomFeatures3D, feature_distance
from evaluation.kernel import KernelDistance
from evaluation.measures import ALONE, PAIRED, Measures, TokenFacts
from evaluation.motion import FLOW
from evaluation.pixel import frame_mse, psnr
from evaluation.protocol import Protocol
from evaluation.run import REAL, Extractors, kept_units
from evaluation.summary import Summary

BASE = {"name": "p", "data": "", "size": 16, "num_frames": 5, "num_clips": 6}


@pytest.fixture
def mse():
    """Errors of six units, three samples each, four predicted frames."""
    return torch.rand(6, 12, generator=torch.Generator().manual_seed(0)).double() / 10


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(1)
    return {
        REAL: torch.randn(6, 2 * 8, generator=generator),
        "model": torch.randn(6, 3 * 8, generator=generator) + 0.5,
    }


def summarise(mse, features, motion=None, **fields):
    protocol = Protocol(
        **{**BASE, "task": "predict", "context_frames": 1, "windows": 2, "samples": 3, **fields}
    )
    rows = {("model", "mse"): mse}
    rows |= {(name, "video"): values for name, values in features.items()}
    rows |= {} if motion is None else {("model", "motion"): motion}
    measures = Measures(
        grey=False, paired=True, context_frames=1, token_facts=TokenFacts(2, 16, 16)
    )
    extractors = Extractors(RandomFeatures3D(num_features=8))
    return Summary(protocol, measures, extractors, rows, num_replicates=20).system("model")


def test_samples_are_averaged_or_the_best_is_taken(mse, features):
    values = psnr(mse.reshape(6, 3, 4)).mean(-1)
    mean = summarise(mse, features)["figures"]["psnr_frame"]
    best = summarise(mse, features, frames="best")["figures"]["psnr_frame"]
    assert mean["value"] == pytest.approx(values.mean().item())
    assert best["value"] == pytest.approx(values.max(1).values.mean().item())
    assert mean["low"] < mean["value"] < mean["high"]


def test_only_what_is_beside_a_truth_has_a_best_sample(mse, features):
    """One moving sample of three makes a third of the motion, whatever the protocol."""
    moving = torch.tensor([1.0, 0.0, 0.0])[None].repeat(6, 1)
    motion = torch.stack([moving, moving], dim=-1).flatten(1).double()
    name = f"dynamic_degree_{FLOW}"
    for frames in ("mean", "best"):
        found = summarise(mse, features, motion=motion, frames=frames)["figures"][name]
        assert found["value"] == pytest.approx(1 / 3)


def test_the_best_sample_has_the_lowest_error_for_the_pooled_figure(mse, features):
    error = mse.reshape(6, 3, 4).mean(-1).min(1).values.mean()
    best = summarise(mse, features, frames="best")["figures"]["psnr_pooled"]["value"]
    assert best == pytest.approx(psnr(error).item())


def test_curves_average_over_clips_and_samples(mse, features):
    curve = summarise(mse, features)["curves"]["psnr_frame"]
    assert curve["value"] == pytest.approx(psnr(mse.reshape(18, 4)).mean(0).tolist())
    assert len(curve["low"]) == len(curve["high"]) == 4


@pytest.mark.filterwarnings("ignore")
def test_sets_are_pooled_or_compared_trial_by_trial(mse, features):
    real = features[REAL].reshape(12, 8)
    fake = features["model"].reshape(6, 3, 8)
    name = "frechet_rand3d-seed0-8"
    pooled = summarise(mse, features, covariance="unbiased")["figures"][name]["value"]
    assert pooled == pytest.approx(feature_distance(real, fake.reshape(18, 8)).item())
    trials = summarise(mse, features, covariance="unbiased", sets="per_trial")["figures"][name]
    expected = torch.stack([feature_distance(real, fake[:, j]) for j in range(3)]).mean()
    assert trials["value"] == pytest.approx(expected.item())


def test_bits_count_the_latent_frames_behind_the_context(features):
    """5 frames at stride 2 are 3 latent frames; with 3 given, only the last is predicted."""
    bits = torch.tensor([[9.0, 4, 8]] * 6, dtype=torch.float64)
    protocol = Protocol(**{**BASE, "task": "predict", "context_frames": 3})
    rows = {
        ("model", "bits"): bits,
        (REAL, "video"): features[REAL],
        ("model", "video"): features[REAL],
    }
    measures = Measures(
        grey=False, paired=True, context_frames=3, token_facts=TokenFacts(2, 16, 16)
    )
    found = Summary(
        protocol, measures, Extractors(RandomFeatures3D(num_features=16)), rows, num_replicates=0
    ).system("model")["figures"]
    assert found["bits_per_token"]["value"] == pytest.approx(8 / 16)
    assert found["bits_per_pixel"]["value"] == pytest.approx(8 / (2 * 16 * 16))


def test_kept_units_are_evenly_spaced():
    assert kept_units(5) == [0, 1, 2, 3, 4]
    assert len({*kept_units(1000)}) == 64
    assert kept_units(128) == list(range(0, 128, 2))


def test_only_predicted_frames_count_and_how_they_join_the_context():
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(256, (2, 5, 16, 16, 3), generator=generator).byte()
    wrong = truth.clone()
    wrong[:, :2] = 0
    rows = Measures(grey=False, paired=True, context_frames=2).read(wrong, truth, ["", ""])
    assert (rows["mse"] == 0).all()
    assert rows["mse"].shape == (2, 3)
    assert rows["flicker"].shape == (2, 3)
    assert rows["flicker"][:, 0].max() < rows["flicker"][:, 1:].min()  # frame 1 is black
    assert torch.equal(
        Measures(grey=False, paired=True).read(wrong, truth, ["", ""])["mse"],
        frame_mse(wrong, truth),
    )


def test_each_figure_knows_its_direction():
    directions = {figure.name: figure.higher_is_better for figure in [*PAIRED, *ALONE]}
    assert not directions["warping_error_block"]
    assert all(up for name, up in directions.items() if name != "warping_error_block")


def test_the_kernel_distance_sees_all_units_however_many_samples_each_has(monkeypatch, mse):
    """A perfect model: what a context gives and noise. Samples of few contexts look far off."""
    monkeypatch.setattr("evaluation.summary.MAX_KERNEL_CLIPS", 64)
    generator = torch.Generator().manual_seed(0)
    contexts = torch.randn(64, 1, 8, generator=generator)
    drawn = {
        name: (contexts + 0.1 * torch.randn(64, count, 8, generator=generator)).flatten(1)
        for name, count in ((REAL, 2), ("model", 16))
    }
    found = summarise(torch.rand(64, 64).double(), drawn, samples=16)["figures"]
    assert found["kernel_rand3d-seed0-8"]["value"] < 0.05
    few = KernelDistance(drawn[REAL].view(-1, 8)[:64], drawn["model"].view(-1, 8)[:64])
    assert few(*torch.ones(2, 64).double()) > 0.2


def test_frames_of_a_trial_are_compared_together(mse, features):
    generator = torch.Generator().manual_seed(2)
    rows = {
        (REAL, "frames"): torch.randn(6, 2 * 5 * 4, generator=generator),
        ("model", "frames"): torch.randn(6, 3 * 5 * 4, generator=generator),
        ("model", "mse"): mse,
    }
    rows |= {(name, "video"): values for name, values in features.items()}
    fields = {"task": "predict", "context_frames": 1, "windows": 2, "samples": 3}
    protocol = Protocol(**{**BASE, **fields, "sets": "per_trial", "covariance": "unbiased"})
    measures = Measures(
        grey=False, paired=True, context_frames=1, token_facts=TokenFacts(2, 16, 16)
    )
    frames = RandomFeatures3D(num_features=4)
    extractors = Extractors(RandomFeatures3D(num_features=8), frames)
    found = Summary(protocol, measures, extractors, rows, num_replicates=0).system("model")
    real = rows[REAL, "frames"].reshape(60, 4)
    fake = rows["model", "frames"].reshape(6, 3, 5, 4)
    trials = [feature_distance(real, fake[:, j].reshape(30, 4)) for j in range(3)]
    value = found["figures"][f"frechet_frame_{frames.extractor_id}"]["value"]
    assert value == pytest.approx(torch.stack(trials).mean().item())
