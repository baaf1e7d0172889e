"""Batches of cached tokens. What step k sees is a function of the seed and k alone."""

from typing import NamedTuple

import lightning
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import DataLoader

from data.datamodule import batches_of, divide
from data.schedule import Stage, StepSampler, Window
from data.source import Place
from data.tokens import TokenFolder, TokenSample


class TokenBatch(NamedTuple):
    """Tokens with their captions ("" where there is none)."""

    tokens: Int[Tensor, "B t h w"]
    captions: list[str]
    places: tuple[Place, ...]

    def first(self, count: int) -> "TokenBatch":
        """Return the first clips."""
        return TokenBatch(self.tokens[:count], self.captions[:count], self.places[:count])

    def start(self, num_frames: int, num_latent_frames: int) -> "TokenBatch":
        """Return the first frames of the clips, by their tokens."""
        return self._replace(tokens=self.tokens[:, :num_latent_frames])


def collate(samples: list[TokenSample]) -> TokenBatch:
    """Stack tokens; captions stay a list."""
    tokens, captions, places = zip(*samples, strict=True)
    return TokenBatch(torch.stack(tokens), list(captions), places)


class TokenDataModule(lightning.LightningDataModule):
    """Training and validation batches of cached tokens; step k depends on (seed, k) alone.

    Args:
        train: Tokens to train on.
        val: Held-out tokens, of the same tokenizer.
        batch_size: Clips a step, over all processes.
        max_steps: Steps of the run; `train.py` takes it from the model.
        val_clips: How many held-out clips a validation looks at.
        val_batch_size: Clips a validation batch.
        seed: Decides the order.
        num_workers: Processes that read.
    """

    def __init__(
        self,
        train: TokenFolder,
        val: TokenFolder,
        batch_size: int,
        max_steps: int,
        val_clips: int = 64,
        val_batch_size: int = 16,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        val.require(train.fingerprint)
        self.train, self.val, self.batch_size, self.max_steps = train, val, batch_size, max_steps
        self.val_clips, self.val_batch_size = val_clips, val_batch_size
        self.seed, self.num_workers = seed, num_workers

    @property
    def size(self) -> int:
        """Height and width of the frames that the tokens were made of."""
        return self.train.size

    @property
    def num_frames(self) -> int:
        """Length of the clips that the tokens were made of."""
        return self.train.num_frames

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        sampler = StepSampler(
            len(self.train),
            [Stage(self.train.num_frames, self.batch_size)],
            self.max_steps,
            seed=self.seed,
            first_step=int(getattr(self.trainer.lightning_module, "steps_done", 0)),
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
        )
        return batches_of(self.train, sampler, collate, self.num_workers)

    def val_dataloader(self) -> DataLoader:
        ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        count = min(self.val_clips, len(self.val))
        batches = [
            [Window(index, self.val.num_frames, 0.0) for index in numbers]
            for numbers in divide(count, self.val_batch_size, *ranks)
        ]
        return batches_of(self.val, batches, collate, self.num_workers)
