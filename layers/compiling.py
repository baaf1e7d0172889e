"""Parts of a network whose forward is compiled in training steps, and there alone."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class Compilable:
    """Marks a module whose forward is most of a network's work, and a graph without breaks."""


class Compiled:
    """The compiled forwards of a network's parts.

    Validation and sampling call them with ever new shapes and caches, for each of which the
    compiler would start again; they stay with what is not compiled.

    Args:
        network: Its outermost `Compilable` parts are compiled, each where it is first called.
        enabled: Or nothing is.
    """

    def __init__(self, network: nn.Module, enabled: bool = True) -> None:
        parts = _parts(network) if enabled else ()
        self.forwards = [(part, torch.compile(part.forward)) for part in parts]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Call the compiled forwards within the block, the parts' own after it."""
        for part, forward in self.forwards:
            part.__dict__["forward"] = forward
        try:
            yield
        finally:
            for part, _ in self.forwards:
                del part.__dict__["forward"]


def _parts(network: nn.Module) -> Iterator[nn.Module]:
    if isinstance(network, Compilable):
        yield network
    else:
        for child in network.children():
            yield from _parts(child)
