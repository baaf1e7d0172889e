"""What each step of a run reads: a function of the seed and the step's number alone."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler


@dataclass
class Stage:
    """A part of the run with its own clips.

    Args:
        num_frames: Length of the clips; 1 for images.
        batch_size: Clips a step, over all processes.
        share: Share of the steps; the shares of all stages sum to 1.
        strides: Every how many frames a clip takes; one is drawn for each clip. A video that is
            too short for it lends its widest stride.
        size: Side of the frames, at most that of the source; none keeps the source's.
        mixed: Spread the steps evenly at random among those of the stage before, instead of
            following it: images among videos, one size among others.
    """

    num_frames: int
    batch_size: int
    share: float = 1.0
    strides: list[int] = field(default_factory=lambda: [1])
    size: int | None = None
    mixed: bool = False


class Window(NamedTuple):
    """One clip that a step asks for: which video, how long, where it starts in [0, 1).

    `image` says that `index` counts the images where these are a collection of their own.
    """

    index: int
    num_frames: int
    offset: float
    stride: int = 1
    size: int | None = None
    image: bool = False


class StepSampler(Sampler[list[Window]]):
    """Yield the windows of step `first_step`, `first_step` + 1, ... up to `max_steps`.

    Each epoch is a permutation of the collection drawn from (seed, epoch); rank r of w takes the
    r-th part of every batch. With `num_images`, stages of single frames read those images, in
    epochs of their own.
    """

    def __init__(
        self,
        num_clips: int,
        stages: list[Stage],
        max_steps: int,
        *,
        seed: int,
        first_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
        num_images: int = 0,
    ) -> None:
        _check(stages, world_size)
        self.stages, self.max_steps, self.seed = stages, max_steps, seed
        self.num_clips, self.num_images = num_clips, num_images
        self.first_step, self.rank, self.world_size = first_step, rank, world_size
        self.stage_numbers = _plan(stages, max_steps, seed)
        sizes = np.array([stage.batch_size for stage in stages])[self.stage_numbers]
        images = np.array([self._reads_images(stage) for stage in stages])[self.stage_numbers]
        self.clips_before = {
            image: np.cumsum(np.where(images == image, sizes, 0)) - sizes for image in (False, True)
        }
        self._permutations: dict[bool, tuple[int, np.ndarray]] = {}

    def __len__(self) -> int:
        return self.max_steps

    def __iter__(self) -> Iterator[list[Window]]:
        for step in range(self.first_step, self.max_steps):
            yield self.windows(step)

    def windows(self, step: int) -> list[Window]:
        """Return what this rank reads in one step."""
        stage = self.stages[self.stage_numbers[step]]
        image = self._reads_images(stage)
        first = int(self.clips_before[image][step])
        rng = np.random.default_rng((self.seed, 0, step))
        offsets = rng.random(stage.batch_size).tolist()
        strides = rng.choice(stage.strides, stage.batch_size).tolist()
        share = stage.batch_size // self.world_size
        return [
            Window(
                self._index(first + i, image),
                stage.num_frames,
                offsets[i],
                strides[i],
                stage.size,
                image,
            )
            for i in range(self.rank * share, (self.rank + 1) * share)
        ]

    def _reads_images(self, stage: Stage) -> bool:
        return stage.num_frames == 1 and self.num_images > 0

    def _index(self, position: int, image: bool) -> int:
        count = self.num_images if image else self.num_clips
        epoch, place = divmod(position, count)
        if image not in self._permutations or self._permutations[image][0] != epoch:
            # Not torch's generator: its CPU seed has 32 bits, no room for a pair.
            key = (self.seed, 3 if image else 1, epoch)
            order = np.random.default_rng(key).permutation(count)
            self._permutations[image] = (epoch, order)
        return int(self._permutations[image][1][place])


def _plan(stages: list[Stage], max_steps: int, seed: int) -> np.ndarray:
    """Give each step the number of its stage; mixed stages are shuffled together."""
    ends = [round(max_steps * share) for share in accumulate(stage.share for stage in stages)]
    counts = np.diff([0, *ends])
    starts = [number for number, stage in enumerate(stages) if number == 0 or not stage.mixed]
    phases = []
    for begin, end in pairwise([*starts, len(stages)]):
        steps = np.repeat(np.arange(begin, end), counts[begin:end])
        phases.append(np.random.default_rng((seed, 2, begin)).permutation(steps))
    return np.concatenate(phases)


def _check(stages: list[Stage], world_size: int) -> None:
    if stages and stages[0].mixed:
        raise ValueError("the first stage is mixed, but has none before it; set mixed to false")
    if abs(sum(stage.share for stage in stages) - 1) > 1e-6:
        raise ValueError(
            f"the shares of the stages sum to {sum(stage.share for stage in stages):g}; "
            "they must sum to 1"
        )
    for stage in stages:
        if stage.batch_size % world_size:
            raise ValueError(
                f"batch_size is {stage.batch_size}, but {world_size} processes share it; "
                f"use a multiple of {world_size}"
            )
        if not stage.strides or min(stage.strides) < 1:
            raise ValueError(f"strides are {stage.strides}, but must be one or more numbers from 1")
