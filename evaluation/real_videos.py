"""The videos that a protocol draws from, whatever holds them.

Drawn data sets, shards, the files of a benchmark as its authors gave them out, or any folder of
videos or arrays: each becomes a list of videos of known length, before a clip of them is decoded.
"""

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image

from data import benchmark_sets
from data.benchmark_sets import Episodes
from data.digits import Digits
from data.folder import SUFFIXES, read_caption
from data.shapes import Shapes
from data.shard_folder import ShardFolder
from data.source import ClipSource, Place, Sample
from data.video import iterate_frames, probe, resize_and_crop
from evaluation import protocols

ARRAYS = (".npy", ".npz")
BUILT_IN: dict[str, Callable[..., ClipSource]] = {"shapes": Shapes, "digits": Digits}


@runtime_checkable
class RealVideo(Protocol):
    """One video that clips are cut from."""

    @property
    def name(self) -> str: ...

    @property
    def num_frames(self) -> int: ...

    def read(self, end: int, size: int) -> Sample:
        """Decode the first `end` frames, with the caption or class."""
        ...


class SourceVideo(NamedTuple):
    """A clip of a collection that training can read, too."""

    source: ClipSource
    index: int
    num_frames: int

    @property
    def name(self) -> str:
        return self.source.place(self.index, 1).key

    def read(self, end: int, size: int) -> Sample:
        sample = self.source.read(self.index, end)
        return sample._replace(frames=resize_and_crop(sample.frames, size))


class EpisodeVideo(NamedTuple):
    """A trajectory of a benchmark's arrays, with its actions."""

    episodes: Episodes
    index: int
    num_frames: int

    @property
    def name(self) -> str:
        return f"trajectory {self.index}"

    def read(self, end: int, size: int) -> Sample:
        (episode,) = self.episodes(self.index, self.index + 1)
        frames = resize_and_crop(torch.from_numpy(episode.frames[:end].copy()), size)
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

    def read(self, end: int, size: int) -> Sample:
        caption = read_caption(self.path) if self.caption is None else self.caption
        place = Place(self.path.name, 0, 1)
        if self.path.suffix.lower() in ARRAYS:
            frames, actions = _array(self.path)
            clip = resize_and_crop(torch.from_numpy(frames[:end].copy()), size)
            rows = None if actions is None else torch.from_numpy(actions[:end]).float()
            return Sample(clip, caption, place, rows)
        pictures = list(islice(iterate_frames(self.path, size), end))
        return Sample(torch.from_numpy(np.stack(pictures)), caption, place)


class Opened(NamedTuple):
    """Videos, how they were found ("drawn", "shards", "as given out", "folder"), what is wrong."""

    kind: str
    videos: list[RealVideo]
    notes: tuple[str, ...] = ()


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

    def read(self, end: int, size: int) -> Sample:
        pictures = [np.array(Image.open(file).convert("RGB")) for file in self.files[:end]]
        frames = resize_and_crop(torch.from_numpy(np.stack(pictures)), size)
        return Sample(frames, "", Place(self.name, 0, 1))


def open_videos(
    protocol: protocols.Protocol, data: Path | None, size: int, count: int | None
) -> Opened:
    """List the videos of a protocol.

    Args:
        protocol: What they must be.
        data: Where they are; None for a built-in data set.
        size: Side of the frames.
        count: How many are drawn, of a built-in data set.

    Raises:
        ValueError: There is nothing that can serve.
    """
    if data is None and protocol.built_in:
        count = count or protocol.num_clips or 1
        return Opened("drawn", drawn(protocol, count, "val", size))
    if data is not None and (data / "dataset.json").is_file():
        source = ShardFolder(str(data), size=size, min_frames=1)
        lengths = map(source.length, range(len(source)))
        videos = [SourceVideo(source, i, length) for i, length in enumerate(lengths)]
        return Opened("shards", [*videos])
    read = ORIGINAL.get(protocol.layout)
    if read is not None and data is not None and (found := read(data)).videos:
        return found
    return Opened("folder", _folder(data, protocol))


def drawn(protocol: protocols.Protocol, count: int, split: str, size: int) -> list[RealVideo]:
    """Return clips of a built-in data set."""
    source = BUILT_IN[protocol.built_in](count, split, size=size)
    return [SourceVideo(source, i, protocol.span) for i in range(count)]


def _bair(data: Path) -> Opened:
    """[[softmotion30_44k/]test/]*.tfrecords."""
    for folder in (data / "softmotion30_44k" / "test", data / "test", data):
        if any(folder.glob("*.tfrecords")):
            return _episodes(*benchmark_sets.bair(folder, "aux1"))
    return _given_out([])


def _moving_mnist(data: Path) -> Opened:
    """mnist_test_seq.npy, or the folder it lies in."""
    file = data / "mnist_test_seq.npy" if data.is_dir() else data
    return _episodes(*benchmark_sets.moving_mnist(file)) if file.is_file() else _given_out([])


def _episodes(episodes: Episodes, count: int) -> Opened:
    """All trajectories are taken to be as long as the first; one that is not is named when read."""
    length = len(next(episodes(0, 1)).frames)
    return _given_out([EpisodeVideo(episodes, i, length) for i in range(count)])


def _kinetics600(data: Path) -> Opened:
    """annotations/val.csv and val/[label/]ID_START_END.mp4; how many are no longer there is noted.

    Videos vanish from the site that they were taken from, so everybody's copy is another.
    """
    lists = sorted(data.rglob("val*.csv"))
    folder = data / "val" if (data / "val").is_dir() else data
    rows = benchmark_sets.kinetics600(folder, lists[0]) if lists else []
    there = [row for row in rows if (folder / row[0]).is_file()]
    missing = len(rows) - len(there)
    notes = (
        [f"{missing} of the {len(rows)} videos of {lists[0].name} are missing"] if missing else []
    )
    return _listed(folder, there, *notes)


def _ucf101_train(data: Path) -> Opened:
    """UCF-101/CLASS/*.avi and ucfTrainTestlist/trainlist01.txt."""
    lists = sorted(data.rglob("trainlist01.txt"))
    folder = data / "UCF-101" if (data / "UCF-101").is_dir() else data
    return _listed(folder, benchmark_sets.ucf101(lists[0]) if lists else [])


def _kth(data: Path) -> Opened:
    """[ACTION/]personNN_ACTION_dN_uncomp.avi of the persons of the test set."""
    return _listed(data, benchmark_sets.kth(data, "test"))


def _davis(data: Path) -> Opened:
    """[DAVIS/]JPEGImages/480p/SEQUENCE/*.jpg."""
    folders = sorted(data.glob("**/JPEGImages/480p/*/"))
    pictures = [(folder, tuple(sorted(folder.glob("*.jpg")))) for folder in folders]
    return _given_out([PictureVideo(folder, files) for folder, files in pictures if files])


def _listed(folder: Path, rows: list[tuple[str, str]], *notes: str) -> Opened:
    videos = [(folder / path, label) for path, label in rows]
    return _given_out([FileVideo(p, probe(p).num_frames, label) for p, label in videos], *notes)


def _given_out(videos: Sequence[RealVideo], *notes: str) -> Opened:
    return Opened("as given out", [*videos], notes)


ORIGINAL: dict[str, Callable[[Path], Opened]] = {
    "bair": _bair,
    "davis": _davis,
    "kinetics600": _kinetics600,
    "kth": _kth,
    "moving-mnist": _moving_mnist,
    "ucf101-train": _ucf101_train,
}
"""Readers of benchmarks as they were given out; each returns nothing where it finds others."""


def _folder(data: Path | None, protocol: protocols.Protocol) -> list[RealVideo]:
    if data is None or not data.is_dir():
        raise ValueError(
            f"{data} is no folder; {protocol.name} needs one with {protocol.data}: as they were "
            "given out, as shards, as videos or as uint8 arrays"
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
    labelled = protocol.condition == "class"
    return [FileVideo(file, _count(file), file.parent.name if labelled else None) for file in files]


def _count(file: Path) -> int:
    if file.suffix.lower() in ARRAYS:
        return len(_array(file)[0])
    return probe(file).num_frames


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
