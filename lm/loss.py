"""Cross-entropy without the table of all logits."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from layers.linear import linear

# Logits held at a time: 64 MiB in float32.
_LOGITS = 2**24


def cross_entropy(
    states: Float[Tensor, "N D"],
    table: Float[Tensor, "V D"],
    targets: Int[Tensor, "N"],
    label_smoothing: float = 0.0,
    max_logits: int = _LOGITS,
) -> Float[Tensor, "N"]:
    """Return -log softmax(table state)[target] of each state in nats, in float32.

    Sequence times vocabulary never stands in memory: logits are made for some states at a time, and
    made again for the gradient.

    Args:
        states: What the network returns.
        table: A vector for each class.
        targets: The class of each state.
        label_smoothing: Share of the target that is spread over all classes.
        max_logits: Largest number of logits at a time.
    """
    rows = max(1, max_logits // len(table))
    if len(states) <= rows:
        return _part(states, table, targets, label_smoothing)
    parts = zip(states.split(rows), targets.split(rows), strict=True)
    return torch.cat(
        [
            checkpoint(_part, some, table, target, label_smoothing, use_reentrant=False)
            for some, target in parts
        ]
    )


def _part(states: Tensor, table: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    logits = linear(states, table).float()
    return F.cross_entropy(logits, targets, reduction="none", label_smoothing=label_smoothing)
