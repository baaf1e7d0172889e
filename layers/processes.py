"""Where a process works, and what several that train together agree on; nothing with one."""

import os
from argparse import ArgumentTypeError
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, distributed


def local_device() -> str:
    """Return the name of the GPU of this process, or "cpu" where there is none."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


def device(name: str) -> torch.device:
    """Return a device by its name.

    Raises:
        ArgumentTypeError: There is no such device here; a command line then shows why.
    """
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ArgumentTypeError(f"{error}; use cpu, or cuda where there is a GPU") from error


def all_rows(x: Shaped[Tensor, "N *D"]) -> Shaped[Tensor, "M *D"]:
    """Return the rows of every process, rank by rank, without a gradient.

    Each process must hold equally many.
    """
    if _alone():
        return x
    rows = [torch.empty_like(x) for _ in range(distributed.get_world_size())]
    distributed.all_gather(rows, x.detach().contiguous())
    return torch.cat(rows)


def mean_of_processes(x: Float[Tensor, "*D"]) -> Float[Tensor, "*D"]:
    """Average over the processes; the gradient is that of the average, as DDP averages again."""
    return x if _alone() else _Mean.apply(x)


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        mean = x.detach().clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(mean)
        return mean / distributed.get_world_size()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Mean.forward(ctx, gradients[0])


def _alone() -> bool:
    return not distributed.is_initialized() or distributed.get_world_size() == 1
