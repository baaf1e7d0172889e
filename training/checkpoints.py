"""Checkpoints that a training can be resumed from."""

import os
import sys
from itertools import count
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_info

from training.module import TrainedModule


class Checkpoints(Checkpoint):
    """Keeps the newest state of a run as `checkpoints/last.ckpt`; on Ctrl-C says how to go on.

    Lightning's ModelCheckpoint does not fit optimization by hand: it warns and looks for states of
    its own. The file is written to a temporary name and moved, so that a kill leaves the old one.

    Args:
        root: Folder of the run.
        every_n_steps: Steps from one checkpoint to the next.
    """

    def __init__(self, root: str | None = None, every_n_steps: int = 50) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps is {every_n_steps}, but must be at least 1")
        self.path = Path(root or "runs") / "checkpoints" / "last.ckpt"
        self.every_n_steps = every_n_steps
        self.saved_step: int | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the checkpoint of another run, if this one does not go on from it."""
        given = trainer.ckpt_path
        if _is_a_try(trainer):
            return
        if given is not None and Path(given).resolve() == self.path.resolve():
            assert isinstance(pl_module, TrainedModule)
            self.saved_step = pl_module.step  # Lightning has restored it before
        elif trainer.is_global_zero and self.path.is_file():
            kept = self._free_name()
            self.path.replace(kept)
            rank_zero_info(f"the last checkpoint of an earlier run is kept as {kept}")

    def _free_name(self) -> Path:
        """Return a name that no kept checkpoint has: that of a long run must outlive two starts."""
        kept, numbers = self.path.with_name("earlier.ckpt"), count(2)
        while kept.exists():
            kept = self.path.with_name(f"earlier-{next(numbers)}.ckpt")
        return kept

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        assert isinstance(pl_module, TrainedModule)
        if pl_module.step % self.every_n_steps == 0 or pl_module.step == pl_module.max_steps:
            self._save(trainer, pl_module.step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep what was reached where a limit of time or patience ended the run."""
        assert isinstance(pl_module, TrainedModule)
        if pl_module.step not in (0, self.saved_step):
            self._save(trainer, pl_module.step)

    def _save(self, trainer: Trainer, step: int) -> None:
        """Write beside the old checkpoint, to the disk, and only then over it."""
        if _is_a_try(trainer):
            return
        partial = self.path.with_suffix(".partial")
        trainer.save_checkpoint(partial, weights_only=False)
        if trainer.is_global_zero:
            with partial.open("rb") as stream:
                os.fsync(stream.fileno())
            partial.replace(self.path)
        self.saved_step = step

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Tell the user what is left of an interrupted run."""
        if not trainer.is_global_zero:
            return
        if self.saved_step is None:
            message = "stopped before a checkpoint was written"
        else:
            message = (
                f"stopped at step {pl_module.steps_done}; {self.path} holds step "
                f"{self.saved_step}: the same command with --ckpt_path last resumes there"
            )
        print(f"\n{message}", file=sys.stderr)


def _is_a_try(trainer: Trainer) -> bool:
    """Say whether the run is Lightning's `fast_dev_run`, which leaves nothing behind."""
    return bool(getattr(trainer, "fast_dev_run", False))
