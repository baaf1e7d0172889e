"""Where a process works, and what several that train together agree on; nothing with one."""

import os
from argparse import ArgumentTypeError

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_gather, all_reduce


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
    """Return the rows of every process, rank by rank; each process must hold equally many."""
    return x if _alone() else torch.cat(all_gather(x.contiguous()))


def mean_of_processes(x: Float[Tensor, "*D"]) -> Float[Tensor, "*D"]:
    """Average over the processes; the gradient is that of the average, as DDP averages again."""
    return x if _alone() else all_reduce(x) / distributed.get_world_size()


def _alone() -> bool:
    return not distributed.is_initialized() or distributed.get_world_size() == 1
