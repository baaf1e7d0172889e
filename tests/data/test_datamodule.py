"""What a step reads, how ranks share it, and what happens to clips that cannot be read."""

from collections import Counter
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data.container import VideoError
from data.datamodule import VideoDataModule, WindowDataset, divide
from data.schedule import Stage, StepSampler, Window
from data.shapes import Shapes
from data.source import ClipSource, Place, Sample, fit_window

STAGES = [Stage(1, 4, 0.5), Stage(5, 2, 0.5)]
JOINT = [
    Stage(5, 2, 0.5, strides=[1, 2, 4]),
    Stage(1, 6, 0.25, mixed=True),
    Stage(5, 4, 0.25, size=4, mixed=True),
]


class Counted(ClipSource):
    """Frame k of clip i is grey level 20 i + k; clips in `broken` cannot be read."""

    def __init__(self, num_clips=7, length=20, broken=()):
        self.num_clips, self.length, self.broken = num_clips, length, broken

    @property
    def fps(self):
        return 8.0

    @property
    def captions(self):
        return [str(index) for index in range(self.num_clips)]

    def __len__(self):
        return self.num_clips

    def place(self, index, num_frames, offset=0.0, stride=1):
        return Place(str(index), *fit_window(self.length, num_frames, offset, stride))

    def read(self, index, num_frames, offset=0.0, stride=1):
        if index in self.broken:
            raise VideoError(f"{index} is broken")
        place = self.place(index, num_frames, offset, stride)
        levels = 20 * index + place.start + place.stride * torch.arange(num_frames)
        frames = levels.to(torch.uint8)[:, None, None, None].expand(-1, 8, 8, 3).contiguous()
        return Sample(frames, str(index), place)


def sampler(**changes):
    arguments = {"num_clips": 7, "stages": STAGES, "max_steps": 20, "seed": 3, **changes}
    return StepSampler(**arguments)


def datamodule(train=None, stages=JOINT, **changes):
    arguments = {"val": Counted(), "max_steps": 40, "seed": 3, **changes}
    return VideoDataModule(train or Counted(), stages=stages, **arguments)


def attach(module, steps_done=0, rank=0, world_size=1):
    module.trainer = SimpleNamespace(
        lightning_module=SimpleNamespace(steps_done=steps_done),
        global_rank=rank,
        world_size=world_size,
    )
    return module


@pytest.mark.parametrize("stages", [STAGES, JOINT])
def test_a_run_that_starts_late_sees_what_the_whole_run_sees(stages):
    assert list(sampler(stages=stages, first_step=13)) == list(sampler(stages=stages))[13:]


def test_every_epoch_shows_each_clip_once():
    seen = [window.index for windows in sampler() for window in windows]
    assert len(seen) == 10 * 4 + 10 * 2
    for start in range(0, 56, 7):
        assert Counter(seen[start : start + 7]) == Counter(range(7))
    assert seen[:7] != seen[7:14]


@pytest.mark.parametrize("stages", [STAGES, JOINT])
def test_ranks_divide_each_step_without_overlap(stages):
    parts = [list(sampler(stages=stages, rank=rank, world_size=2)) for rank in range(2)]
    joined = [first + second for first, second in zip(*parts, strict=True)]
    assert joined == list(sampler(stages=stages))


def test_stages_follow_their_shares():
    lengths = [windows[0].num_frames for windows in sampler()]
    assert lengths == [1] * 10 + [5] * 10


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stages": [Stage(1, 4, 0.5)]}, "sum to 1"),
        ({"world_size": 3}, "multiple of 3"),
        ({"stages": [Stage(1, 4, strides=[])]}, "strides are"),
        ({"stages": [Stage(1, 4, mixed=True)]}, "first stage is mixed"),
    ],
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


def test_mixed_stages_lie_among_each_other_in_exactly_their_shares():
    kinds = [(w[0].num_frames, w[0].size) for w in sampler(stages=JOINT, max_steps=400)]
    assert Counter(kinds) == {(5, None): 200, (1, None): 100, (5, 4): 100}
    changes = sum(a != b for a, b in pairwise(kinds))
    assert abs(changes - 399 * (1 - 0.25 - 2 * 0.0625)) < 40  # drawn independently: 249 of 399
    assert kinds != [
        (w[0].num_frames, w[0].size) for w in sampler(stages=JOINT, max_steps=400, seed=4)
    ]


def test_images_have_epochs_of_their_own_beside_the_videos():
    steps = list(sampler(stages=JOINT, max_steps=40, num_images=5))
    for image, count in ((False, 7), (True, 5)):
        seen = [w.index for windows in steps for w in windows if w.image == image]
        assert len(seen) > 3 * count
        for start in range(0, len(seen) - count, count):
            assert Counter(seen[start : start + count]) == Counter(range(count))
    assert all(w.image == (w.num_frames == 1) for windows in steps for w in windows)


def test_strides_are_drawn_evenly():
    windows = [
        w for step in sampler(stages=[Stage(5, 10, strides=[1, 2, 4])], max_steps=300) for w in step
    ]
    counts = Counter(window.stride for window in windows)
    assert counts.keys() == {1, 2, 4}
    assert min(counts.values()) > 1000 - 6 * np.sqrt(3000 * 2 / 9)


@pytest.mark.parametrize("stride", [1, 2, 3, 9])
@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_a_window_visits_every_admissible_start_and_none_else(stride, num_frames):
    laid = {fit_window(11, num_frames, k / 1000, stride) for k in range(1000)}
    used = (
        max(s for s in range(1, stride + 1) if (num_frames - 1) * s < 11) if num_frames > 1 else 1
    )
    assert laid == {(start, used) for start in range(11 - (num_frames - 1) * used)}


def test_the_list_of_places_is_what_a_step_reads():
    module = attach(datamodule(images=Counted(5)), steps_done=7)
    for step, batch in enumerate(module.train_dataloader(), start=7):
        assert list(batch.places) == module.places(step)
        for clip, place in zip(batch.clip, batch.places, strict=True):
            levels = ((clip[0, :, 0, 0] + 1) * 127.5).round().long()
            steps = place.start + place.stride * torch.arange(clip.shape[1])
            assert torch.equal(levels, 20 * int(place.key) + steps)
    assert step == 39


def test_a_stage_of_a_size_gives_frames_of_that_size_and_never_enlarges():
    shapes = {batch.clip.shape[1:] for batch in attach(datamodule()).train_dataloader()}
    assert shapes == {(3, 5, 8, 8), (3, 1, 8, 8), (3, 5, 4, 4)}
    with pytest.raises(ValueError, match="frames of 9 pixels, but 2 has 8"):
        WindowDataset(Counted())[Window(2, 5, 0.0, size=9)]


def test_each_stage_says_the_size_of_its_frames():
    assert [datamodule().side(stage) for stage in JOINT] == [8, 8, 4]
    assert [datamodule(images=Shapes()).side(stage) for stage in JOINT] == [8, 64, 4]


def test_a_clip_that_cannot_be_read_is_replaced_and_named_whatever_the_workers():
    stages = [Stage(5, 7)]
    epochs = []
    for workers in (0, 2):
        module = attach(datamodule(Counted(broken=(3,)), stages, max_steps=2, num_workers=workers))
        batches = list(module.train_dataloader())
        epochs.append([[place.key for place in batch.places] for batch in batches])
        assert all(batch.skipped == ("3 is broken",) for batch in batches)
        with pytest.warns(UserWarning, match="1 so far: 3 is broken"):
            module.on_before_batch_transfer(batches[0], 0)
        module.on_before_batch_transfer(batches[1], 0)  # a second warning would be an error
        assert module.skipped == {"3 is broken"}
    assert epochs[0] == epochs[1]
    assert all(Counter(keys) == Counter("0124456") for keys in epochs[0])


def test_a_collection_of_broken_clips_ends_the_run():
    with pytest.raises(VideoError, match=r"16 clips in a row.*broken"):
        WindowDataset(Counted(broken=range(7)))[Window(0, 5, 0.0)]


def test_a_broken_held_out_clip_is_replaced_even_alone_in_its_batch():
    module = datamodule(val=Counted(broken=(4,)), val_batch_size=1)
    batches = list(module.val_dataloader())
    assert [place.key for batch in batches for place in batch.places] == list("0123556")
    assert [len(batch.skipped) for batch in batches] == [0, 0, 0, 0, 1, 0, 0]


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_validation_deals_each_clip_once_and_equal_steps(batch_size, world_size):
    for count in range(60):
        try:
            dealt = [divide(count, batch_size, rank, world_size) for rank in range(world_size)]
        except ValueError:
            assert batch_size == 1 or count < world_size  # no way to deal without an empty batch
            continue
        assert sorted(k for rank in dealt for batch in rank for k in batch) == list(range(count))
        sizes = [len(batch) for rank in dealt for batch in rank]
        assert len({len(rank) for rank in dealt}) == 1
        assert not sizes or (1 <= min(sizes) <= max(sizes) <= min(batch_size, min(sizes) + 1))


def test_a_yaml_can_mix_images_sizes_and_strides(fit, small, tmp_path):
    stages = "[{num_frames: 5, batch_size: 2, share: 0.4, strides: [1, 2]}, "
    stages += "{num_frames: 1, batch_size: 4, share: 0.4, mixed: true}, "
    stages += "{num_frames: 5, batch_size: 2, share: 0.2, size: 32, mixed: true}]"
    images = "--data.images={class_path: Shapes, init_args: {num_clips: 10}}"
    options = ["--export=null", f"--trainer.default_root_dir={tmp_path}", images]
    options += [*small, f"--data.stages={stages}", "--model.init_args.max_steps=5"]
    fit("demo_tokenizer", *options)
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["state_dict"]["steps_done"] == 5
