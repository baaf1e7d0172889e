"""Faults put into true clips move the figures in the right direction."""

import pytest
import torch

from data.shapes import Shapes
from evaluation.frechet import RandomFeatures3D, feature_distance
from evaluation.kernel import KernelDistance
from evaluation.measures import Measures
from evaluation.prompts import obedience

COUNT = 20


@pytest.fixture(scope="module")
def clips():
    """True clips, and other true clips."""
    source = Shapes(2 * COUNT, "val", difficulty="textured")
    frames = torch.stack([source.read(i, 17).frames for i in range(2 * COUNT)])
    return frames[:COUNT], frames[COUNT:]


def shuffled(clips):
    order = torch.randperm(17, generator=torch.Generator().manual_seed(0))
    return clips[:, order]


def frozen(clips):
    return clips[:, :1].expand_as(clips)


def tinted(clips):
    shift = torch.tensor([40, 0, -30])
    return (clips.short() + shift).clamp(0, 255).byte()


FAULTS = {"shuffled": shuffled, "frozen": frozen, "tinted": tinted}


@pytest.fixture(scope="module")
def figures(clips):
    """Every figure of some true clips and of the same with each fault."""
    measures = Measures(grey=False, paired=True)
    few = clips[0][:3]
    found = {}
    for name, fault in {"true": lambda x: x, **FAULTS}.items():
        rows = measures.read(fault(few), few, [""] * 3)
        ones = torch.ones(3, dtype=torch.float64)
        found[name] = {
            f.name: float(f.value(rows[f.rows][:, None], ones, best=False))
            for f in measures.figures
        }
    return found


@pytest.mark.parametrize("fault", FAULTS)
def test_sets_with_a_fault_lie_farther_than_other_true_clips(clips, fault):
    extractor = RandomFeatures3D(num_features=16)
    real, other, wrong = (extractor(x) for x in (*clips, FAULTS[fault](clips[1])))
    assert feature_distance(real, wrong) > 1.2 * feature_distance(real, other)
    ones = torch.ones(COUNT, dtype=torch.float64)
    assert KernelDistance(real, wrong)(ones, ones) > KernelDistance(real, other)(ones, ones)


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_costs_fidelity(figures, fault):
    for name in ("psnr_frame", "psnr_clip", "psnr_pooled", "ssim"):
        assert figures[fault][name] < figures["true"][name]


def test_shuffled_frames_are_unsteady(figures):
    for name, falls in (
        ("flicker", True),
        ("consistency_pixel", True),
        ("warping_error_block", False),
    ):
        assert (figures["shuffled"][name] < figures["true"][name]) == falls


def test_a_frozen_video_does_not_move(figures):
    assert figures["true"]["dynamic_degree_block"] == 1
    assert figures["frozen"]["dynamic_degree_block"] == 0
    assert figures["frozen"]["flicker"] == 1 > figures["true"]["flicker"]


def test_a_tint_changes_no_motion(figures):
    for name in ("dynamic_degree_block", "flicker"):
        assert figures["tinted"][name] == pytest.approx(figures["true"][name], abs=0.01)


def test_wrong_captions_are_noticed():
    source = Shapes(12, "val")
    drawn = [source.scene(i).combination for i in range(12)]
    clips = torch.stack([source.read(i, 17).frames for i in range(12)])
    assert obedience(clips, drawn)["all"] == 1
    assert obedience(clips, drawn[1:] + drawn[:1])["all"] < 0.3
