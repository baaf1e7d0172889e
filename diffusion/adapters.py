"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) by the package peft: cheap finetuning."""

import copy
from typing import Any, TypeVar

from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def add_adapters(network: nn.Module, rank: int) -> None:
    """Freeze a network and give its layers adapters that start at zero.

    Raises:
        ValueError: The package peft is missing.
    """
    peft = _peft()
    names = [name for name, module in network.named_modules() if _is_adapted(module)]
    peft.inject_adapter_in_model(
        peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=names), network
    )


def merged(module: Module) -> Module:
    """Return a copy whose adapters are part of the weights: a module like any other."""
    layers = _peft().tuners.tuners_utils.BaseTunerLayer
    module = copy.deepcopy(module)
    adapted: list[tuple[str, Any]] = [
        (name, part) for name, part in module.named_modules() if isinstance(part, layers)
    ]
    for name, part in adapted:
        part.merge()
        place, _, last = name.rpartition(".")
        setattr(module.get_submodule(place), last, part.get_base_layer())
    return module


def _is_adapted(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv3d):
        return module.kernel_size != (1, 1, 1)  # which peft takes for two-dimensional
    return isinstance(module, nn.Linear)


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ValueError("adapters need the package peft; pip install 'reelm[adapters]'") from error
    return peft
