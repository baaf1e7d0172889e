"""What is measured: a model, clips that some model made, or an answer that needs no model.

Each turns the units of a batch into clips of the protocol's length, by the stated rule of lengths
(`lengths.LENGTH_RULE`).
"""

import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, runtime_checkable

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from data.resizing import resize_and_crop
from evaluation import lengths
from evaluation.protocol import Protocol
from evaluation.reference import Unit

Clips = UInt8[Tensor, "B T H W 3"]


@runtime_checkable
class Model(typing.Protocol):
    """What can be measured: `pipeline.VideoPipeline`."""

    tokenizer: Any
    prior: Any
    decoder: Any
    text: Any
    classes: list[str]
    size: int
    fps: float
    generate: Callable[..., Any]

    @property
    def takes_actions(self) -> bool: ...

    def codec(self) -> Any: ...

    def encode(self, videos: Tensor, /) -> Tensor: ...

    def decode(self, tokens: Tensor, /) -> Tensor: ...


class ModelSystem:
    """A model folder.

    Args:
        model: The pipeline.
        protocol: What it is asked for.
        seed: Sample j of unit u draws from seed + u S + j, S being the samples a context.
        options: Options of `generate` beside what is asked for, such as temperature or decoder.

    Raises:
        ValueError: The protocol asks for something that the model cannot be told.
    """

    def __init__(
        self,
        model: Model,
        protocol: Protocol,
        seed: int,
        options: dict[str, float | int | str] | None = None,
    ) -> None:
        self.model, self.protocol, self.seed = model, protocol, seed
        self.options = options or {}
        self.given, self.stride = protocol.context_frames, model.tokenizer.temporal_stride
        if protocol.task != "reconstruct" and model.prior is None:
            raise ValueError(
                f"{protocol.name} needs a prior, but this folder holds a tokenizer alone; choose a "
                "reconstruction protocol"
            )
        self.condition = self._condition()

    def _condition(self) -> str:
        """Return what the model is told of a unit."""
        wanted = self.protocol.condition
        if wanted == "actions":
            if not self.model.takes_actions:
                raise ValueError(
                    f"{self.protocol.name} gives actions, but this model takes none; choose "
                    "the protocol without actions"
                )
            return "actions"
        if wanted == "class" and self.model.classes:
            return "classes"
        return "text" if wanted in ("caption", "class") and self.model.text is not None else "none"

    def __call__(self, units: Sequence[Unit], numbers: Sequence[int], sample: int) -> Clips:
        """Return sample number `sample` of each unit."""
        real = torch.stack([unit.real[0] for unit in units])
        if self.protocol.task == "reconstruct":
            return self.reconstruct(real)
        told: dict[str, Any] = dict(self.options)
        name = {"text": "prompts", "classes": "classes"}.get(self.condition)
        if name is not None:
            told[name] = [unit.caption for unit in units]
        told["seed"] = [self.seed + number * self.protocol.samples + sample for number in numbers]
        return self._predict(units, real, told) if self.given else self._fit(self._make(told))

    def _make(self, told: dict[str, Any]) -> Clips:
        """Generate clips without a context; where nothing tells their number, one at a time."""
        length = self.protocol.num_frames
        ask = lengths.next_length(length, self.stride)
        if self.condition != "none":
            return self.model.generate(num_frames=ask, **told)[:, :length]
        alone = [told | {"seed": [seed]} for seed in told["seed"]]
        return torch.cat([self.model.generate(num_frames=ask, **one) for one in alone])[:, :length]

    def _predict(self, units: Sequence[Unit], real: Clips, told: dict[str, Any]) -> Clips:
        """Go on from the last admissible context."""
        given, new = self.given, self.protocol.num_frames - self.given
        seen = lengths.last_length(given, self.stride)
        ask = lengths.next_length(seen + new, self.stride)
        if self.condition == "actions":
            told = told | {"actions": _actions(units, given - seen, ask)}
        clips = self.model.generate(context=real[:, given - seen : given], num_frames=ask, **told)
        clips = self._fit(clips[:, seen : seen + new])
        return torch.cat([real[:, :given], clips], dim=1)

    def reconstruct(self, real: Clips) -> Clips:
        """Pass clips through the tokenizer."""
        return self.model.decode(self.tokens(real))[:, : real.shape[1]]

    def tokens(self, real: Clips) -> Int[Tensor, "B t h w"] | Float[Tensor, "B D t h w"]:
        """Encode clips, lengthened by their last frame, to tokens or latents."""
        length = lengths.next_length(real.shape[1], self.stride)
        rest = real[:, -1:].expand(-1, length - real.shape[1], -1, -1, -1)
        return self.model.encode(torch.cat([real, rest], dim=1))

    def _fit(self, clips: Clips) -> UInt8[Tensor, "B T H2 W2 3"]:
        """Bring clips to the size at which they are compared."""
        size = self.protocol.size or self.model.size
        if clips.shape[2:4] == (size, size):
            return clips
        flat = resize_and_crop(rearrange(clips, "B T H W C -> (B T) H W C"), size)
        return rearrange(flat, "(B T) H W C -> B T H W C", B=len(clips))


class FileSystem:
    """Clips that any model made for the units of a protocol, in their order.

    Args:
        path: .npy with uint8 clips N S x T x H x W x 3, sample by sample for each unit.
        protocol: What they were made for.
        num_units: How many units there are.
        size: Side of the frames.

    Raises:
        ValueError: It is no such file, or holds other clips.
    """

    def __init__(self, path: Path, protocol: Protocol, num_units: int, size: int) -> None:
        if path.suffix.lower() != ".npy":
            raise ValueError(
                f"{path.name} is no .npy file; metrics are never computed from a lossy video file "
                "such as mp4 or gif, whose noise they see: save the uint8 clips as they were made"
            )
        if not path.is_file():
            raise ValueError(f"{path} is no file; give a model folder, or a .npy of uint8 clips")
        self.clips = np.load(path, allow_pickle=False, mmap_mode="r")
        self.samples = protocol.samples
        shape = (num_units * protocol.samples, protocol.num_frames, size, size, 3)
        if self.clips.dtype != np.uint8 or self.clips.shape != shape:
            raise ValueError(
                f"{path.name} is {self.clips.dtype} of shape {self.clips.shape}, but "
                f"{protocol.name} needs uint8 {' x '.join(map(str, shape))}"
            )

    def __call__(self, units: Sequence[Unit], numbers: Sequence[int], sample: int) -> Clips:
        rows = [number * self.samples + sample for number in numbers]
        return torch.from_numpy(np.stack([self.clips[row] for row in rows]))


class BaselineSystem:
    """An answer from the context alone; every sample is the same.

    Args:
        go_on: From a context and the number of new frames to the new frames.
        protocol: What it is asked for.
    """

    def __init__(self, go_on: Callable[[Clips, int], Clips], protocol: Protocol) -> None:
        self.go_on, self.given = go_on, protocol.context_frames
        self.num_new = protocol.num_frames - protocol.context_frames

    def __call__(self, units: Sequence[Unit], numbers: Sequence[int], sample: int) -> Clips:
        context = torch.stack([unit.real[0, : self.given] for unit in units])
        return torch.cat([context, self.go_on(context, self.num_new)], dim=1)


System = ModelSystem | FileSystem | BaselineSystem


def _actions(units: Sequence[Unit], first: int, count: int) -> Float[Tensor, "B T A"]:
    """Return the actions that lead to `count` frames from `first` on; behind the clip, its last."""
    actions = [unit.actions for unit in units if unit.actions is not None]
    if len(actions) < len(units):
        raise ValueError(
            "a video has no actions; give shards that have them, or .npz files with `frames` and "
            "`actions`"
        )
    rows = torch.stack(actions)[:, first : first + count]
    return torch.cat([rows, rows[:, -1:].expand(-1, count - rows.shape[1], -1)], dim=1)
