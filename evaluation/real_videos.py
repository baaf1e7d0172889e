"""The kinds of video that real clips are cut from, each of known length before it is decoded."""

from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from data.benchmark_sets import Episodes
from data.folder import read_caption
from data.resizing import resize_and_crop
from data.source import ClipSource, Place, Sample
from data.video import iterate_frames, probe

ARRAYS = (".npy", ".npz")


@runtime_checkable
class RealVideo(Protocol):
    """One video that clips are cut from."""

    @property
    def name(self) -> str: ...

    @property
    def num_frames(self) -> int: ...

    def read(self, end: int, size: int | None) -> Sample:
        """Decode the first `end` frames, with the caption or class.

        Their short side is resized to `size`, their long one cut; None leaves them as stored.
        """
        ...


class SourceVideo(NamedTuple):
    """A clip of a collection that training can read, too."""

    source: ClipSource
    index: int
    num_frames: int

    @property
    def name(self) -> str:
        return self.source.place(self.index, 1).key

    def read(self, end: int, size: int | None) -> Sample:
        sample = self.source.read(self.index, end)
        return sample._replace(frames=_cropped(sample.frames, size))


class EpisodeVideo(NamedTuple):
    """A trajectory of a benchmark's arrays, with its actions."""

    episodes: Episodes
    index: int
    num_frames: int

    @property
    def name(self) -> str:
        return f"trajectory {self.index}"

    def read(self, end: int, size: int | None) -> Sample:
        (episode,) = self.episodes(self.index, self.index + 1)
        frames = _cropped(torch.from_numpy(episode.frames[:end].copy()), size)
        actions = None if episode.actions is None else torch.from_numpy(episode.actions[:end])
        return Sample(frames, "", Place(episode.name, 0, 1), actions)


class FileVideo(NamedTuple):
    """A video file or an array; `caption` None means what is written beside it."""

    path: Path
    num_frames: int
    caption: str | None = None

    @property
    def name(self) -> str:
        return self.path.name

    def read(self, end: int, size: int | None) -> Sample:
        caption = read_caption(self.path) if self.caption is None else self.caption
        place = Place(self.path.name, 0, 1)
        if self.path.suffix.lower() in ARRAYS:
            frames, actions = _array(self.path)
            clip = _cropped(torch.from_numpy(frames[:end].copy()), size)
            rows = None if actions is None else torch.from_numpy(actions[:end]).float()
            return Sample(clip, caption, place, rows)
        pictures = list(islice(iterate_frames(self.path, size), end))
        return Sample(torch.from_numpy(np.stack(pictures)), caption, place)


class PictureVideo(NamedTuple):
    """A video as a folder of pictures."""

    folder: Path
    files: tuple[Path, ...]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def num_frames(self) -> int:
        return len(self.files)

    def read(self, end: int, size: int | None) -> Sample:
        pictures = [np.array(Image.open(file).convert("RGB")) for file in self.files[:end]]
        frames = _cropped(torch.from_numpy(np.stack(pictures)), size)
        return Sample(frames, "", Place(self.name, 0, 1))


def length_of(file: Path) -> int:
    """Return how many frames a video file or an array has."""
    if file.suffix.lower() in ARRAYS:
        return len(_array(file)[0])
    return probe(file).num_frames


def _cropped(frames: UInt8[Tensor, "T H W 3"], size: int | None) -> UInt8[Tensor, "T H2 W2 3"]:
    return frames if size is None else resize_and_crop(frames, size)


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
