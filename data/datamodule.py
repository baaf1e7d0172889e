"""Clips to batches. What step k sees is a function of the seed and k alone.

So a resumed run starts at its step instead of replaying, and the order does not depend on workers.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import lightning
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from data.container import VideoError
from data.resizing import resize_and_crop
from data.schedule import Stage, StepSampler, Window
from data.source import ClipSource, Place, Sample
from data.video import to_model_range

MAX_TYPICAL_CLIPS = 16
_TRIES = 16  # so many unreadable clips in a row mean that the collection is at fault, not a clip


class Batch(NamedTuple):
    """Clips in [-1, 1] with their captions ("" where there is none).

    `places` says where each clip was cut, `skipped` which clips could not be read, and why. Row k
    of `actions` is the action that leads to frame k, row k of `features` says something of latent
    frame k; None where the clips have none.
    """

    clip: Float[Tensor, "B 3 T H W"]
    captions: list[str]
    places: tuple[Place, ...] = ()
    skipped: tuple[str, ...] = ()
    actions: Float[Tensor, "B T A"] | None = None
    features: Float[Tensor, "B t F"] | None = None

    def first(self, count: int) -> "Batch":
        """Return the first clips."""
        actions, features = (
            None if rows is None else rows[:count] for rows in (self.actions, self.features)
        )
        return Batch(self.clip[:count], self.captions[:count], actions=actions, features=features)

    def start(self, num_frames: int, num_latent_frames: int) -> "Batch":
        """Return the first frames of the clips."""
        return self._replace(
            clip=self.clip[:, :, :num_frames],
            actions=None if self.actions is None else self.actions[:, :num_frames],
            features=None if self.features is None else self.features[:, :num_latent_frames],
        )


class _Reading(NamedTuple):
    sample: Sample
    skipped: list[str]


class WindowDataset(Dataset[_Reading]):
    """Read windows of a source, single frames of `images` where the window says so.

    A clip that cannot be read is named, and the next of the collection takes its place, so that a
    batch still depends on the step alone.
    """

    def __init__(self, source: ClipSource, images: ClipSource | None = None) -> None:
        self.source, self.images = source, images

    def __getitem__(self, window: Window) -> _Reading:
        skipped = []
        for tried in range(_TRIES):
            try:
                return _Reading(self._read(window, tried), skipped)
            except VideoError as error:
                skipped.append(str(error))
        raise VideoError(
            f"{_TRIES} clips in a row cannot be read; look at the data. The last: {skipped[-1]}"
        )

    def _read(self, window: Window, tried: int) -> Sample:
        source = self.images if window.image and self.images is not None else self.source
        index = (window.index + tried) % len(source)
        sample = source.read(index, window.num_frames, window.offset, window.stride)
        side, size = min(sample.frames.shape[1:3]), window.size
        if size is None:
            return sample
        if side < size:
            raise ValueError(
                f"a stage asks for frames of {size} pixels, but {sample.place.key} has {side}; "
                "let the source give larger ones, or lower the stage's size"
            )
        return sample._replace(frames=resize_and_crop(sample.frames, size))


def first_frame(source: ClipSource, size: int | None = None) -> UInt8[Tensor, "1 H W 3"]:
    """Return a frame of the first clip that can be read."""
    reading = WindowDataset(source)[Window(0, 1, 0.0, size=size)]
    return reading.sample.frames


def collate(readings: list[_Reading]) -> Batch:
    """Stack clips; the rest stays lists."""
    skipped = tuple(reason for reading in readings for reason in reading.skipped)
    samples = [reading.sample for reading in readings]
    return Batch(
        torch.stack([to_model_range(sample.frames) for sample in samples]),
        [sample.caption for sample in samples],
        tuple(sample.place for sample in samples),
        skipped,
        _stacked("actions", [sample.actions for sample in samples]),
        _stacked("features", [sample.features for sample in samples]),
    )


def _stacked(name: str, parts: list[Tensor | None]) -> Tensor | None:
    given = [part for part in parts if part is not None]
    if given and len(given) < len(parts):
        raise ValueError(
            f"{len(given)} of {len(parts)} clips of a batch have {name}; "
            "train on clips that all have them, or that all have none"
        )
    return torch.stack(given) if given else None


def batches_of(
    dataset: Dataset,
    batches: Sampler[list[Window]] | list[list[Window]],
    collate_fn: Callable[[list[Any]], Any],
    num_workers: int,
) -> DataLoader:
    """Return a loader of the batches that are named; it draws nothing from the global generator."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate_fn,
        num_workers=num_workers,
        generator=torch.Generator(),
    )


def divide(count: int, batch_size: int, rank: int = 0, world_size: int = 1) -> list[range]:
    """Deal 0 .. `count` - 1 into batches, as many to each rank, each number once.

    Batches of nearly equal size need no padding, and no metric needs a mask.
    """
    num_batches = world_size * -(-count // (world_size * batch_size))
    if count < num_batches:
        raise ValueError(
            f"{count} validation clips cannot be dealt to {world_size} processes in equal numbers "
            f"of batches of at most {batch_size}; use a multiple of {world_size} as val_clips"
        )
    return [
        range(count * k // num_batches, count * (k + 1) // num_batches)
        for k in range(rank, num_batches, world_size)
    ]


class VideoDataModule(lightning.LightningDataModule):
    """Training and validation batches of two sources.

    A clip that cannot be read is passed over, counted and named in `skipped` and in a warning.

    Args:
        train: Clips to train on.
        val: Held-out clips.
        stages: What clips a step has over the run, in order. Validation takes those of the last
            stage that is not mixed into another.
        max_steps: Steps of the run; `train.py` takes it from the model.
        val_clips: How many held-out clips a validation looks at.
        val_batch_size: Clips a validation batch.
        seed: Decides the order and the windows.
        num_workers: Processes that read; 0 reads in the training process, which is right where
            decoding is cheap and cores are few.
        images: Where stages of single frames read; without it, in `train`.
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
        images: ClipSource | None = None,
    ) -> None:
        super().__init__()
        self.train, self.val, self.images = train, val, images
        self.stages, self.max_steps = stages, max_steps
        self.val_clips, self.val_batch_size = val_clips, val_batch_size
        self.seed, self.num_workers = seed, num_workers
        self.skipped: set[str] = set()

    @property
    def _last(self) -> Stage:
        return next(stage for stage in reversed(self.stages) if not stage.mixed)

    @property
    def size(self) -> int:
        """Height and width of the frames at the end of training."""
        return self.side(self._last)

    @property
    def num_frames(self) -> int:
        """Length of the longest clips in training."""
        return max(stage.num_frames for stage in self.stages)

    def side(self, stage: Stage) -> int:
        """Height and width of the frames of a stage, from the first clip that can be read."""
        return first_frame(self._source(stage), stage.size).shape[1]

    def _source(self, stage: Stage) -> ClipSource:
        return self.train if self.images is None or stage.num_frames > 1 else self.images

    def setup(self, stage: str) -> None:
        """Compare the stages with the clips, before the first step."""
        for source, stages in ((self.train, self.stages), (self.val, [self._last])):
            clips = [one for one in stages if self._source(one) is self.train]
            asked = max((one.num_frames for one in clips), default=1)
            if source.shortest is not None and source.shortest < asked:
                raise ValueError(
                    f"a stage asks for {asked} frames, but the shortest clip has "
                    f"{source.shortest}; set min_frames of the source to {asked}, or ask for fewer"
                )

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        first_step = int(getattr(self.trainer.lightning_module, "steps_done", 0))
        sampler = self._sampler(first_step, self.trainer.global_rank, self.trainer.world_size)
        dataset = WindowDataset(self.train, self.images)
        return batches_of(dataset, sampler, collate, self.num_workers)

    def val_dataloader(self) -> DataLoader:
        count = min(self.val_clips, len(self.val))
        stage = self._last
        ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        batches = [
            [Window(i, stage.num_frames, 0.0, size=stage.size) for i in numbers]
            for numbers in divide(count, self.val_batch_size, *ranks)
        ]
        return batches_of(WindowDataset(self.val), batches, collate, self.num_workers)

    def typical_clips(self) -> Float[Tensor, "B 3 T H W"]:
        """Return clips from all over the training videos, as the end of the run reads them.

        The same in every process, to fit something to the data before the first step.
        """
        stage, windows = self._last, WindowDataset(self.train)
        count = min(len(self.train), max(2, stage.batch_size), MAX_TYPICAL_CLIPS)
        indices = [k * len(self.train) // count for k in range(count)]
        readings = [windows[Window(i, stage.num_frames, 0.5, size=stage.size)] for i in indices]
        return collate(readings).clip

    def places(self, step: int) -> list[Place]:
        """List what the processes together read in a training step, without decoding it."""
        return [
            (self.images if window.image and self.images is not None else self.train).place(
                window.index, window.num_frames, window.offset, window.stride
            )
            for window in self._sampler(step, 0, 1).windows(step)
        ]

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Name each clip that could not be read, once."""
        for reason in batch.skipped:
            if reason not in self.skipped:
                self.skipped.add(reason)
                warnings.warn(f"clip skipped, {len(self.skipped)} so far: {reason}", stacklevel=2)
        return batch

    def _sampler(self, first_step: int, rank: int, world_size: int) -> StepSampler:
        return StepSampler(
            len(self.train),
            self.stages,
            self.max_steps,
            seed=self.seed,
            first_step=first_step,
            rank=rank,
            world_size=world_size,
            num_images=len(self.images) if self.images is not None else 0,
        )
