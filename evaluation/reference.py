"""The real clips of a protocol: which video, from which frame, in which order.

Everything is decided before the first frame is decoded, so that a folder that cannot serve is
refused at once.
"""

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from data.folder import SUFFIXES
from data.shapes import Shapes
from data.video import iterate_frames, probe, resize_and_crop
from evaluation.protocols import Protocol

ARRAYS = (".npy", ".npz")


class Unit(NamedTuple):
    """What one context stands for: its real clips, and what is said about them."""

    real: UInt8[Tensor, "W T H W2 3"]
    caption: str
    actions: Float[Tensor, "T A"] | None


class _Video(NamedTuple):
    path: Path
    num_frames: int


class Reference:
    """The units of a protocol.

    Args:
        protocol: Says which clips.
        data: Folder of videos (avi, gif, mkv, mov, mp4, webm) or of uint8 arrays T x H x W x 3
            (.npy, or .npz with `frames` and perhaps `actions`), or None for a built-in data set.
            `name.txt` or the "caption" of `name.json` beside a video is its caption; the folder it
            lies in is its class.
        size: Side of the frames.
        num_clips: Fewer units than the protocol says, or None.
        seed: Draws videos and windows.
    """

    def __init__(
        self, protocol: Protocol, data: Path | None, size: int, num_clips: int | None, seed: int
    ) -> None:
        self.protocol, self.size = protocol, size
        self.shapes = None
        if protocol.built_in == "digits" and data is None:
            raise ValueError(
                "moving digits cannot be drawn yet; give a folder of them, made beforehand"
            )
        if protocol.built_in == "shapes" and data is None:
            count = num_clips or protocol.num_clips or 1
            self.shapes = Shapes(count, "val", size=size)
            self.videos = [_Video(Path(f"shape {i}"), protocol.span) for i in range(count)]
        else:
            self.videos = _long_enough(_list(data, protocol), protocol)
        wanted = num_clips or protocol.num_clips or len(self.videos)
        self.order, self.offsets = _draw(protocol, self.videos, wanted, seed)

    def __len__(self) -> int:
        return len(self.order)

    def read(self, unit: int) -> Unit:
        """Decode the clips of a unit."""
        video = self.videos[self.order[unit]]
        if self.shapes is not None:
            sample = self.shapes.read(self.order[unit], self.protocol.num_frames)
            return Unit(sample.frames[None], sample.caption, None)
        starts = _starts(self.protocol, video.num_frames, self.offsets[unit])
        frames, actions = _decode(video.path, self.size, starts[-1] + self.protocol.span)
        stride, length = self.protocol.frame_stride, self.protocol.span
        clips = torch.stack([frames[start : start + length : stride] for start in starts])
        if self.protocol.grey:
            grey = clips.float().mean(-1, keepdim=True).round().to(torch.uint8)
            clips = grey.expand(-1, -1, -1, -1, 3).contiguous()
        if actions is not None:
            actions = actions[starts[0] : starts[0] + length : stride]
        return Unit(clips, self._words(video.path), actions)

    def _words(self, path: Path) -> str:
        if self.protocol.condition == "class":
            return path.parent.name
        text, table = path.with_suffix(".txt"), path.with_suffix(".json")
        if text.is_file():
            return " ".join(text.read_text(encoding="utf-8").split())
        return str(json.loads(table.read_text()).get("caption", "")) if table.is_file() else ""


def _list(data: Path | None, protocol: Protocol) -> list[_Video]:
    if data is None or not data.is_dir():
        raise ValueError(
            f"{data} is no folder; {protocol.name} needs one with {protocol.data}, as videos or "
            "uint8 arrays"
        )
    files = sorted(
        file
        for file in data.rglob("*")
        if file.suffix.lower() in SUFFIXES + ARRAYS and not file.name.startswith(".")
    )
    if not files:
        raise ValueError(
            f"{data} holds no video and no array; accepted are {', '.join(SUFFIXES + ARRAYS)}"
        )
    return [_Video(file, _count(file)) for file in files]


def _count(file: Path) -> int:
    if file.suffix.lower() in ARRAYS:
        return len(_array(file)[0])
    return probe(file).num_frames


def _long_enough(videos: list[_Video], protocol: Protocol) -> list[_Video]:
    needed = protocol.span + protocol.windows - 1
    short = [video for video in videos if video.num_frames < needed]
    if short:
        names = ", ".join(f"{video.path.name} ({video.num_frames})" for video in short[:5])
        raise ValueError(
            f"{len(short)} of {len(videos)} videos have fewer than the {needed} frames that "
            f"{protocol.name} needs: {names}; replace them or take them out"
        )
    return videos


def _draw(
    protocol: Protocol, videos: Sequence[_Video], wanted: int, seed: int
) -> tuple[list[int], list[float]]:
    """Choose the video of each unit, and where in it the clip begins, in [0, 1)."""
    if protocol.draw != "repeat" and len(videos) < wanted:
        raise ValueError(
            f"{protocol.name} needs {wanted} videos, but there are {len(videos)}; give the whole "
            f"split, or --clips {len(videos)}, whose numbers stand beside no published ones"
        )
    rng = np.random.default_rng((seed, 7))
    if protocol.draw == "each":
        order = np.arange(wanted)
    elif protocol.draw == "sample":
        order = rng.permutation(len(videos))[:wanted]
    else:
        order = rng.integers(len(videos), size=wanted)
    offsets = rng.random(wanted) if protocol.start == "random" else np.zeros(wanted)
    return order.tolist(), offsets.tolist()


def _starts(protocol: Protocol, num_frames: int, offset: float) -> list[int]:
    room = num_frames - protocol.span
    if protocol.windows == 1:
        return [int(offset * (room + 1))]
    return [round(i * room / (protocol.windows - 1)) for i in range(protocol.windows)]


def _decode(
    path: Path, size: int, end: int
) -> tuple[UInt8[Tensor, "T H W 3"], Float[Tensor, "T A"] | None]:
    if path.suffix.lower() in ARRAYS:
        frames, actions = _array(path)
        clip = resize_and_crop(torch.from_numpy(frames[:end].copy()), size)
        return clip, None if actions is None else torch.from_numpy(actions[:end]).float()
    pictures = list(islice(iterate_frames(path, size), end))
    if len(pictures) < end:
        raise ValueError(
            f"{path} says it has at least {end} frames, but {len(pictures)} came out; replace it"
        )
    return torch.from_numpy(np.stack(pictures)), None


def _array(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        stored = np.load(path, allow_pickle=False, mmap_mode="r")
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} is no array of numbers ({error}); save it again") from error
    several = isinstance(stored, np.lib.npyio.NpzFile)
    if several and "frames" not in stored:
        raise ValueError(f"{path} has no `frames` but {sorted(stored)}; save it under that name")
    frames = stored["frames"] if several else stored
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(
            f"{path} is {frames.dtype} of shape {frames.shape}, but a clip is uint8 T x H x W x 3"
        )
    return frames, stored["actions"] if several and "actions" in stored else None
