from collections import Counter

import pytest

from data.datamodule import Stage, StepSampler

STAGES = [Stage(1, 4, 0.5), Stage(5, 2, 0.5)]


def sampler(**changes):
    arguments = {"num_clips": 7, "stages": STAGES, "max_steps": 20, "seed": 3, **changes}
    return StepSampler(**arguments)


def test_a_run_that_starts_late_sees_what_the_whole_run_sees():
    assert list(sampler(first_step=13)) == list(sampler())[13:]


def test_every_epoch_shows_each_clip_once():
    seen = [window.index for windows in sampler() for window in windows]
    assert len(seen) == 10 * 4 + 10 * 2
    for start in range(0, 56, 7):
        assert Counter(seen[start : start + 7]) == Counter(range(7))
    assert seen[:7] != seen[7:14]


def test_ranks_divide_each_step_without_overlap():
    parts = [list(sampler(rank=rank, world_size=2)) for rank in range(2)]
    joined = [first + second for first, second in zip(*parts, strict=True)]
    assert joined == list(sampler())


def test_stages_follow_their_shares():
    lengths = [windows[0].num_frames for windows in sampler()]
    assert lengths == [1] * 10 + [5] * 10


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"stages": [Stage(1, 4, 0.5)]}, "sum to 1"), ({"world_size": 3}, "multiple of 3")],
)
def test_stages_that_do_not_fit_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        sampler(**changes)


def test_another_seed_is_another_run():
    first, second = (list(sampler(num_clips=1000, seed=seed)) for seed in (3, 4))
    assert {w.index for step in first[:5] for w in step} != {
        w.index for step in second[:5] for w in step
    }
    offsets = {window.offset for run in (first, second) for step in run for window in step}
    assert len(offsets) == 2 * 60
