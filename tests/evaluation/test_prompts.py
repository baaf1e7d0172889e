"""Prompt figures against models whose obedience is known."""

import pytest
import torch

from data.shapes import ALL_COMBINATIONS, COLORS, DIRECTIONS, SHAPES, Shapes, render
from evaluation.prompts import (
    obedience,
    obeyed_from_one_frame,
    prompted,
    spread_of_starts,
    true_clips,
)

BY_CAPTION = {c.caption: c for c in ALL_COMBINATIONS}
SOURCE = Shapes(200, "val")


def perfect(prompts, num_frames=17, seed=0, context=None):
    """Draw what is asked for, each seed another scene; continue a context in the same way."""
    source = Shapes(1000, "val", seed=9)
    clips = []
    for i, prompt in enumerate(prompts):
        scene = source.scene(seed + i, BY_CAPTION[prompt])
        if context is not None:
            start = next(s.start for s in centred() if torch.equal(first(s), context[i, 0]))
            scene = scene.__class__(**{**scene.__dict__, "start": start})
        clips.append(render(scene, num_frames).frames)
    return torch.stack(clips)


def centred():
    return [
        s.__class__(**{**s.__dict__, "start": (32.0, 32.0)}) for s in map(SOURCE.scene, range(12))
    ]


def first(scene):
    return render(scene, 1).frames[0]


def stubborn(prompts, num_frames=17, seed=0, context=None):
    """Show the same clip whatever is asked for."""
    return perfect([ALL_COMBINATIONS[0].caption], num_frames, 0).expand(
        len(prompts), -1, -1, -1, -1
    )


def test_a_perfect_model_obeys_and_shuffled_captions_are_chance():
    figures = obedience(prompted(perfect, ALL_COMBINATIONS, 0), ALL_COMBINATIONS)
    chance = figures.pop("shuffled_all")
    assert min(figures.values()) >= 0.99
    assert chance <= 0.05


def test_a_model_that_never_listens_is_at_chance():
    figures = obedience(prompted(stubborn, ALL_COMBINATIONS, 0), ALL_COMBINATIONS)
    assert figures["color"] == pytest.approx(1 / len(COLORS))
    assert figures["shape"] == pytest.approx(1 / len(SHAPES))
    assert figures["direction"] == pytest.approx(1 / len(DIRECTIONS))
    assert figures["all"] == pytest.approx(1 / len(ALL_COMBINATIONS))


def test_only_the_direction_is_wrong_in_a_clip_played_backwards():
    clips = true_clips(SOURCE, ALL_COMBINATIONS, num_frames=6).flip(1)
    figures = obedience(clips, ALL_COMBINATIONS)
    assert figures["direction"] == 0
    assert min(figures["color"], figures["shape"]) >= 0.99


def test_each_clip_draws_from_its_own_seed():
    whole = prompted(perfect, ALL_COMBINATIONS, 5)
    assert torch.equal(whole[40:41], perfect([ALL_COMBINATIONS[40].caption], seed=45))


def test_starts_spread_like_the_truth_or_not_at_all():
    assert spread_of_starts(perfect, ALL_COMBINATIONS[5], SOURCE, 64) == pytest.approx(1, abs=0.2)
    assert spread_of_starts(stubborn, ALL_COMBINATIONS[5], SOURCE) == 0


def test_one_frame_leaves_the_direction_to_the_prompt():
    assert obeyed_from_one_frame(perfect, SOURCE) >= 0.97
    assert obeyed_from_one_frame(stubborn, SOURCE) == 1 / 4
