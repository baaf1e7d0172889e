"""Exponential moving average of weights, kept as a module so that checkpoints carry it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA(nn.Module):
    """Shadow copies of a model's parameters.

    Args:
        model: Whose trainable parameters are averaged; its buffers are not.
        decay: Limit of the decay; at step k it is min(decay, (1 + k) / (10 + k)), so that a short
            run does not average in its first steps.
    """

    def __init__(self, model: nn.Module, decay: float = 0.999) -> None:
        super().__init__()
        self.decay = decay
        self.names = [name for name, p in model.named_parameters() if p.requires_grad]
        for name, p in model.named_parameters():
            if p.requires_grad:
                self.register_buffer(_key(name), p.detach().clone())

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the averages towards the weights after step `step` (counted from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        parameters = dict(model.named_parameters())
        averages = [self.get_buffer(_key(name)) for name in self.names]
        for name, average in zip(self.names, averages, strict=True):
            average.lerp_(parameters[name].data, 1 - decay)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Swap the averages into the model within the block, the weights back after it."""
        self._swap(model)
        try:
            yield
        finally:
            self._swap(model)

    @torch.no_grad()
    def _swap(self, model: nn.Module) -> None:
        parameters: dict[str, Tensor] = dict(model.named_parameters())
        for name in self.names:
            average, weight = self.get_buffer(_key(name)), parameters[name].data
            held = weight.clone()
            weight.copy_(average)
            average.copy_(held)


def _key(name: str) -> str:
    return name.replace(".", "/")
