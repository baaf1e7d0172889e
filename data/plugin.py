"""Scorers and captioners of one's own, for data.curate: a class, named by its dotted path."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar, Protocol, runtime_checkable

from jaxtyping import UInt8
from torch import Tensor

Said = int | float | str


@runtime_checkable
class Scorer(Protocol):
    """Says more about a clip.

    `names` are what it says: numbers, which a condition can ask for, or words, such as a caption
    that training then reads (`ShardFolder`, `caption`).
    """

    names: ClassVar[tuple[str, ...]]

    def __call__(
        self, clip: UInt8[Tensor, "T H W 3"], captions: Sequence[str]
    ) -> Mapping[str, Said]:
        """Look at a whole clip and what is said about it so far."""
        ...


def find(spec: str) -> type[Any]:
    """Return the class of `package.module.Class` or `package.module.Class:ARGUMENT`.

    Raises:
        ValueError: There is no such class, or it does not say what it gives.
    """
    module, _, name = spec.partition(":")[0].rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (AttributeError, ImportError, ValueError) as error:
        raise ValueError(
            f"{spec!r} names no scorer ({error}); give package.module.Class, and the folder of its "
            "model after a colon where it has one"
        ) from error
    if not isinstance(getattr(found, "names", None), tuple):
        raise ValueError(f"{spec!r} has no `names`; list there what it says about a clip")
    return found


def make(spec: str) -> Scorer:
    """Make a scorer, which may load a model; the ARGUMENT goes to its constructor."""
    _, colon, argument = spec.partition(":")
    return find(spec)(*([argument] if colon else []))
