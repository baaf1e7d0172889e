"""Parts of a network that are compiled in training steps, and there alone."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class Compilable:
    """Marks a module of which one method is most of a network's work, a graph without breaks."""

    compiled_method = "forward"


class Compiled:
    """The compiled methods of a network's parts.

    Validation and sampling call them with ever new shapes and caches, for each of which the
    compiler would start again; they stay with what is not compiled.

    Args:
        network: Its outermost `Compilable` parts are compiled, each where it is first called.
        enabled: Or nothing is.
    """

    def __init__(self, network: nn.Module, enabled: bool = True) -> None:
        parts = _parts(network) if enabled else ()
        self.methods = [
            (part, part.compiled_method, torch.compile(getattr(part, part.compiled_method)))
            for part in parts
        ]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Call the compiled methods within the block, the parts' own after it."""
        for part, name, compiled in self.methods:
            vars(part)[name] = compiled
        try:
            yield
        finally:
            for part, name, _ in self.methods:
                del vars(part)[name]


def _parts(network: nn.Module) -> Iterator[Compilable]:
    if isinstance(network, Compilable):
        yield network
    else:
        for child in network.children():
            yield from _parts(child)
