"""The second player of an adversarial training: what is trained against the network, in turns.

Its parameters take a gradient in its own turn only. So the network's loss passes through it and
leaves nothing behind, and DDP, which looks before the first turn, leaves it out: its gradients are
averaged over the processes here.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from layers.processes import mean_of_processes

BETAS = (0.5, 0.9)  # short memories: the opponent is another one at every step


def adversary_optimizer(adversary: nn.Module, learning_rate: float) -> torch.optim.AdamW:
    """Return the optimizer of an adversary: AdamW alone, Muon's large steps would let it win."""
    group = {"params": list(adversary.parameters()), "base_lr": learning_rate}
    return torch.optim.AdamW([group], learning_rate, betas=BETAS, weight_decay=0.0)


@contextmanager
def turn_of(adversary: nn.Module) -> Iterator[None]:
    """Let the parameters take gradients within the block."""
    adversary.requires_grad_(True)
    try:
        yield
    finally:
        adversary.requires_grad_(False)


def average_gradients(adversary: nn.Module) -> None:
    """Average the gradients over all processes."""
    for p in adversary.parameters():
        if p.grad is not None:
            p.grad = mean_of_processes(p.grad)
