"""Pictures of clips in the training log."""

from collections.abc import Sequence

from einops import rearrange
from jaxtyping import UInt8
from lightning.fabric.loggers.logger import Logger
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor


def log_clips(
    loggers: Sequence[Logger], tag: str, rows: UInt8[Tensor, "R T H W 3"], step: int
) -> None:
    """Write a picture to every TensorBoard log: a row a clip, every second frame of it."""
    picture = rearrange(rows[:, ::2], "r t h w c -> c (r h) (t w)")
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(tag, picture, step)
