"""Clips to batches. What step k sees is a function of the seed and k alone.

So a resumed run starts at its step instead of replaying, and the order does not depend on workers.
"""

import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import lightning
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from data.source import ClipSource
from data.video import to_model_range


class Batch(NamedTuple):
    """Clips in [-1, 1] with their captions ("" where there is none)."""

    clip: Float[Tensor, "B 3 T H W"]
    captions: list[str]


@dataclass
class Stage:
    """A part of the run with its own clip length.

    Args:
        num_frames: Length of the clips.
        batch_size: Clips a step, over all processes.
        share: Share of the steps; the shares of all stages sum to 1.
    """

    num_frames: int
    batch_size: int
    share: float = 1.0


class Window(NamedTuple):
    """One clip that a step asks for: which video, how long, where it starts in [0, 1)."""

    index: int
    num_frames: int
    offset: float


class StepSampler(Sampler[list[Window]]):
    """Yield the windows of step `first_step`, `first_step` + 1, ... up to `max_steps`.

    Each epoch is a permutation of the collection drawn from (seed, epoch); rank r of w takes the
    r-th part of every batch.
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
    ) -> None:
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
        self.num_clips, self.stages, self.max_steps = num_clips, stages, max_steps
        self.seed, self.first_step = seed, first_step
        self.rank, self.world_size = rank, world_size
        ends = [round(max_steps * share) for share in accumulate(s.share for s in stages)]
        self.starts = [0, *ends]
        counts = [
            (end - start) * stage.batch_size
            for start, end, stage in zip(self.starts, ends, stages, strict=False)
        ]
        self.clips_before = [0, *accumulate(counts)]
        self._permutation = (-1, np.empty(0, dtype=np.int64))

    def __len__(self) -> int:
        return self.max_steps

    def __iter__(self) -> Iterator[list[Window]]:
        for step in range(self.first_step, self.max_steps):
            yield self.windows(step)

    def stage(self, step: int) -> tuple[int, Stage]:
        """Return the stage that a step belongs to, with its number."""
        number = min(bisect.bisect_right(self.starts, step) - 1, len(self.stages) - 1)
        return number, self.stages[number]

    def windows(self, step: int) -> list[Window]:
        """Return what this rank reads in one step."""
        number, stage = self.stage(step)
        first = self.clips_before[number] + (step - self.starts[number]) * stage.batch_size
        share = stage.batch_size // self.world_size
        offsets = np.random.default_rng((self.seed, 0, step)).random(stage.batch_size).tolist()
        return [
            Window(self._index(first + i), stage.num_frames, offsets[i])
            for i in range(self.rank * share, (self.rank + 1) * share)
        ]

    def _index(self, position: int) -> int:
        epoch, place = divmod(position, self.num_clips)
        if self._permutation[0] != epoch:
            # Not torch's generator: its CPU seed has 32 bits, no room for a pair.
            order = np.random.default_rng((self.seed, 1, epoch)).permutation(self.num_clips)
            self._permutation = (epoch, order)
        return int(self._permutation[1][place])


class WindowDataset(Dataset[Batch]):
    """Read windows of a source."""

    def __init__(self, source: ClipSource) -> None:
        self.source = source

    def __getitem__(self, window: Window) -> tuple[Tensor, str]:
        sample = self.source.read(window.index, window.num_frames, window.offset)
        return to_model_range(sample.frames), sample.caption


def collate(samples: list[tuple[Tensor, str]]) -> Batch:
    """Stack clips; captions stay a list."""
    clips, captions = zip(*samples, strict=True)
    return Batch(torch.stack(clips), list(captions))


class VideoDataModule(lightning.LightningDataModule):
    """Training and validation batches of two sources.

    Args:
        train: Clips to train on.
        val: Held-out clips.
        stages: Clip length and batch size over the run, in order.
        max_steps: Steps of the run; `train.py` takes it from the model.
        val_clips: How many held-out clips a validation looks at.
        val_batch_size: Clips a validation batch.
        seed: Decides the order and the windows.
        num_workers: Processes that read; 0 reads in the training process, which is right where
            decoding is cheap and cores are few.
    """

    def __init__(
        self,
        train: ClipSource,
        val: ClipSource,
        stages: list[Stage],
        max_steps: int,
        val_clips: int = 64,
        val_batch_size: int = 16,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.train, self.val, self.stages, self.max_steps = train, val, stages, max_steps
        self.val_clips, self.val_batch_size = val_clips, val_batch_size
        self.seed, self.num_workers = seed, num_workers

    def train_dataloader(self) -> DataLoader[Batch]:
        assert self.trainer is not None
        sampler = StepSampler(
            len(self.train),
            self.stages,
            self.max_steps,
            seed=self.seed,
            first_step=int(getattr(self.trainer.lightning_module, "steps_done", 0)),
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
        )
        return self._loader(self.train, sampler)

    def val_dataloader(self) -> DataLoader[Batch]:
        count = min(self.val_clips, len(self.val))
        windows = [Window(i, self.stages[-1].num_frames, 0.0) for i in range(count)]
        size = self.val_batch_size
        batches = [windows[start : start + size] for start in range(0, count, size)]
        if self.trainer is not None:
            batches = batches[self.trainer.global_rank :: self.trainer.world_size]
        return self._loader(self.val, batches)

    def _loader(
        self, source: ClipSource, batches: Sampler[list[Window]] | list[list[Window]]
    ) -> DataLoader[Batch]:
        return DataLoader(
            WindowDataset(source),
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=self.num_workers,
            generator=torch.Generator(),  # or it would draw from, and shift, the global one
        )
