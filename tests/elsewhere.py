"""A second device that is not there: shows, without a GPU, where tensors of two devices meet.

A pytest plugin: under `pytest -p tests.elsewhere`, every model folder and every training is there.
"""

from collections.abc import Iterator
from functools import wraps
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

NAME = "elsewhere"
aten: Any = torch.ops.aten
MOVES = (aten._to_copy.default, aten.copy_.default)
INDEXING = (aten.index.Tensor, aten.index_put_.default)
"""Which torch allows with indices on the CPU."""


class Away(Tensor):
    """A tensor that says it is elsewhere, and keeps its numbers on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "Away":
        away = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
        )
        away.held = held
        return away

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"Away({self.held!r})"

    def new_tensor(self, data: Any) -> Tensor:
        return torch.tensor(data, dtype=self.dtype, device=self.device)

    def tolist(self) -> Any:
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


class Elsewhere(TorchDispatchMode):
    """Inside it there is a device of this name, on which everything works apart from the CPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Do an operation on the CPU, unless its tensors are on two devices."""
    tensors = [x for x in tree_iter((args, kwargs)) if isinstance(x, Tensor)]
    away = any(isinstance(x, Away) for x in tensors)
    homes = {isinstance(x, Away) for x in tensors if x.ndim > 0}
    if len(homes) > 1 and func not in (*MOVES, *INDEXING):
        raise RuntimeError(f"{func} has tensors on two devices: {[x.device for x in tensors]}")
    if func is aten.copy_.default:
        away = isinstance(args[0], Away)
    if kwargs.get("device") is not None:
        away = torch.device(kwargs["device"]).type == NAME
        kwargs = {**kwargs, "device": torch.device("cpu")}
    same = {id(x.held): x for x in tensors if isinstance(x, Away)}
    held = lambda x: x.held if isinstance(x, Away) else x
    out = func(*tree_map(held, args), **tree_map(held, kwargs))
    if not away:
        return out
    return tree_map(lambda x: same.get(id(x), Away(x)) if isinstance(x, Tensor) else x, out)


def register() -> None:
    """Make the device known, for the rest of the process."""
    module = SimpleNamespace(
        is_available=lambda: True,
        current_device=lambda: 0,
        manual_seed_all=lambda seed: None,
        _is_in_bad_fork=lambda: False,
        get_amp_supported_dtype=lambda: [torch.bfloat16],
    )
    backend_registration._setup_privateuseone_for_python_backend(NAME, module)
    made = torch.tensor  # which asks no mode where its numbers are to be
    torch.tensor = lambda data, *, device=None, **options: made(data, **options).to(device)
    torch.inference_mode = torch.no_grad  # views of tensors from outside are not for subclasses
    torch.__future__.set_overwrite_module_params_on_conversion(True)


register()


def _strategy() -> Any:
    """Return how Lightning trains on one such device."""
    from lightning.pytorch.accelerators import CPUAccelerator
    from lightning.pytorch.strategies import SingleDeviceStrategy

    class There(CPUAccelerator):
        def setup_device(self, device: torch.device) -> None:
            assert device.type == NAME

    return SingleDeviceStrategy(torch.device(NAME, 0), accelerator=There())


@pytest.fixture(autouse=True)
def everything_elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Build models and train elsewhere."""
    from lightning.pytorch import Trainer

    import encode
    import evaluate
    import sample_options
    from model_folder import ModelFolder

    build, start = ModelFolder.__init__, Trainer.__init__

    @wraps(build)
    def built(self: ModelFolder, *args: Any, **kwargs: Any) -> None:
        build(self, *args, **kwargs)
        self.to(NAME)

    @wraps(start)
    def started(self: Trainer, **kwargs: Any) -> None:
        start(self, **{**kwargs, "accelerator": "auto", "strategy": _strategy()})

    for command in (encode, evaluate, sample_options):
        monkeypatch.setattr(command, "local_device", lambda: NAME)
    monkeypatch.setattr(ModelFolder, "__init__", built)
    monkeypatch.setattr(Trainer, "__init__", started)
    with Elsewhere():
        yield
