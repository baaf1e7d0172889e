"""What several processes that train together have to agree on; nothing with one process."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_gather, all_reduce


def all_rows(x: Shaped[Tensor, "N *D"]) -> Shaped[Tensor, "M *D"]:
    """Return the rows of every process, rank by rank; each process must hold equally many."""
    return x if _alone() else torch.cat(all_gather(x.contiguous()))


def mean_of_processes(x: Float[Tensor, "*D"]) -> Float[Tensor, "*D"]:
    """Average over the processes; the gradient is that of the average, as DDP averages again."""
    return x if _alone() else all_reduce(x) / distributed.get_world_size()


def _alone() -> bool:
    return not distributed.is_initialized() or distributed.get_world_size() == 1
