"""Which videos a protocol draws from, whatever holds them.

Drawn data sets, shards, the files of a benchmark as its authors gave them out, or any folder of
videos or arrays: each becomes a list of videos of known length, before a clip of them is decoded.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data import benchmark_sets
from data.benchmark_sets import FPS, Episodes
from data.digits import Digits, Split
from data.folder import FEW_VIDEOS, SUFFIXES
from data.shapes import Shapes
from data.shard_folder import ShardFolder
from data.source import ClipSource
from data.split import held_out, of_split
from data.stochastic_mnist import FILES, StochasticMNIST
from data.video import probe
from evaluation.protocol import Protocol
from evaluation.real_videos import (
    ARRAYS,
    EpisodeVideo,
    FileVideo,
    PictureVideo,
    RealVideo,
    SourceVideo,
    length_of,
)

BUILT_IN: dict[str, Callable[..., ClipSource]] = {"shapes": Shapes, "digits": Digits}
SHARDS_OF = {"bair": "bair aux1", "moving-mnist": "moving-mnist"}
"""What `data.benchmark_sets` calls the shards of a benchmark."""

DRAWN_CLIPS, DRAWN_FRAMES = 1000, 15  # of what is drawn from the pictures of a benchmark
DAVIS_FPS = 24.0
UNKNOWN_FPS = 8.0  # of arrays, which do not say it


class Opened(NamedTuple):
    """Videos and how they were found.

    Args:
        kind: "drawn", "shards", "as given out" or "folder".
        videos: In their order.
        fps: Frames a second, of the first where they differ.
        notes: What a reader of the result should know.
        deviations: Why they are not those of the protocol.
    """

    kind: str
    videos: list[RealVideo]
    fps: float
    notes: tuple[str, ...] = ()
    deviations: tuple[str, ...] = ()


def open_videos(
    protocol: Protocol,
    data: Path | None,
    size: int,
    count: int | None,
    *,
    training: bool = False,
) -> Opened:
    """List the videos of a protocol.

    Args:
        protocol: What they must be.
        data: The benchmark as it was given out (`ORIGINAL`), shards of `data.prepare`,
            `data.record` or `data.benchmark_sets`, or a folder of videos (avi, gif, mkv, mov, mp4,
            webm) or of uint8 arrays T x H x W x 3 (.npy, or .npz with `frames` and perhaps
            `actions`, a row for the action that leads to each frame); None for a built-in data
            set. In a folder, `name.txt` or the "caption" of `name.json` beside a video is its
            caption, and the folder it lies in is its class.
        size: Side of the frames.
        count: How many are drawn, of a built-in data set.
        training: Those that a model learns from instead: of a benchmark as it was given out its
            training files; of other videos those that are not held out, where the protocol takes
            those that are, else all.

    Raises:
        ValueError: There is nothing that can serve.
    """
    if data is None and protocol.built_in:
        count = count or protocol.num_clips or 1
        return drawn(protocol, count, "train" if training else "val", size)
    split = "train" if training and protocol.split == "val" else protocol.split
    if data is not None and (data / "dataset.json").is_file():
        return _shards(protocol, data, size, split)
    read = ORIGINAL.get(protocol.layout)
    if read is not None and data is not None:
        if (found := read(data, training)).videos:
            return found
        if training and read(data, False).videos:
            raise ValueError(
                f"{data} holds the videos that {protocol.name} measures, and none to learn from; "
                "give those that the model learnt from"
            )
    return _folder(data, protocol, split)


def drawn(protocol: Protocol, count: int, split: str, size: int) -> Opened:
    """Return clips of a built-in data set."""
    source = BUILT_IN[protocol.built_in](count, split, size=size)
    videos = [SourceVideo(source, i, protocol.span) for i in range(count)]
    return Opened("drawn", [*videos], source.fps)


def _shards(protocol: Protocol, data: Path, size: int, split: Any) -> Opened:
    fitted = size if protocol.fit == "crop" else None
    source = ShardFolder(str(data), split, fitted, min_frames=1)
    videos = [SourceVideo(source, i, source.length(i)) for i in range(len(source))]
    expected, kind = SHARDS_OF.get(protocol.layout), str(source.reader.settings.get("kind"))
    other = expected is not None and not kind.startswith(expected)
    deviations = [f"the shards are of {kind}, not of {expected}"] if other else []
    return Opened("shards", [*videos], source.fps, _notes(protocol), tuple(deviations))


def _notes(protocol: Protocol) -> tuple[str, ...]:
    """Say of videos that have no official split whether training may have seen them."""
    if protocol.split == "val":
        return ("the tenth of the videos that training with split: train holds out",)
    if not protocol.is_open:
        return ()
    return ("all of the videos, also those that training saw; --split val takes what it holds out",)


def _bair(data: Path, training: bool) -> Opened:
    """[[softmotion30_44k/]test/]*.tfrecords."""
    part = "train" if training else "test"
    for folder in (data / "softmotion30_44k" / part, data / part, data):
        if any(folder.glob("*.tfrecords")):
            return _episodes(*benchmark_sets.bair(folder, "aux1"))
    return _given_out([])


def _moving_mnist(data: Path, training: bool) -> Opened:
    """mnist_test_seq.npy, or the folder it lies in; nobody gave out training sequences."""
    file = data / "mnist_test_seq.npy" if data.is_dir() else data
    if training or not file.is_file():
        return _given_out([])
    return _episodes(*benchmark_sets.moving_mnist(file))


def _mnist(data: Path, training: bool) -> Opened:
    """[MNIST/raw/]t10k-images-idx3-ubyte[.gz], from which the clips are drawn."""
    split: Split = "train" if training else "val"
    if not any(data.rglob(FILES[split])):
        return _given_out([])
    source = StochasticMNIST(data, split, DRAWN_CLIPS)
    videos = [SourceVideo(source, i, DRAWN_FRAMES) for i in range(DRAWN_CLIPS)]
    return _given_out(videos, source.fps)


def _episodes(episodes: Episodes, count: int) -> Opened:
    """All trajectories are taken to be as long as the first; one that is not is named when read."""
    length = len(next(episodes(0, 1)).frames)
    return _given_out([EpisodeVideo(episodes, i, length) for i in range(count)], FPS)


def _kinetics600(data: Path, training: bool) -> Opened:
    """annotations/val.csv and val/[label/]ID_START_END.mp4; how many are no longer there is noted.

    Videos vanish from the site that they were taken from, so everybody's copy is another.
    """
    part = "train" if training else "val"
    lists = sorted(data.rglob(f"{part}*.csv"))
    folder = data / part if (data / part).is_dir() else data
    rows = benchmark_sets.kinetics600(folder, lists[0]) if lists else []
    there = [row for row in rows if (folder / row[0]).is_file()]
    missing = len(rows) - len(there)
    notes = (
        [f"{missing} of the {len(rows)} videos of {lists[0].name} are missing"] if missing else []
    )
    return _listed(folder, there, *notes)


def _ucf101_train(data: Path, training: bool) -> Opened:
    """UCF-101/CLASS/*.avi and ucfTrainTestlist/trainlist01.txt, to learn from and to measure."""
    lists = sorted(data.rglob("trainlist01.txt"))
    folder = data / "UCF-101" if (data / "UCF-101").is_dir() else data
    return _listed(folder, benchmark_sets.ucf101(lists[0]) if lists else [])


def _kth(data: Path, training: bool) -> Opened:
    """[ACTION/]personNN_ACTION_dN_uncomp.avi of the persons of the test set."""
    return _listed(data, benchmark_sets.kth(data, "train" if training else "test"))


def _davis(data: Path, training: bool) -> Opened:
    """[DAVIS/]JPEGImages/480p/SEQUENCE/*.jpg."""
    folders = sorted(data.glob("**/JPEGImages/480p/*/"))
    pictures = [(folder, tuple(sorted(folder.glob("*.jpg")))) for folder in folders]
    videos = [PictureVideo(folder, files) for folder, files in pictures if files]
    return _given_out(videos, DAVIS_FPS)


def _listed(folder: Path, rows: list[tuple[str, str]], *notes: str) -> Opened:
    videos = [FileVideo(folder / p, probe(folder / p).num_frames, label) for p, label in rows]
    return _given_out(videos, _rate([video.path for video in videos]), *notes)


def _rate(files: Sequence[Path]) -> float:
    """Return the frames a second of the first video file."""
    return next((probe(f).fps for f in files if f.suffix.lower() in SUFFIXES), UNKNOWN_FPS)


def _given_out(videos: Sequence[RealVideo], fps: float = UNKNOWN_FPS, *notes: str) -> Opened:
    return Opened("as given out", [*videos], fps, notes)


ORIGINAL: dict[str, Callable[[Path, bool], Opened]] = {
    "bair": _bair,
    "davis": _davis,
    "kinetics600": _kinetics600,
    "kth": _kth,
    "mnist": _mnist,
    "moving-mnist": _moving_mnist,
    "ucf101-train": _ucf101_train,
}
"""Readers of benchmarks as they were given out, test or training files; each returns nothing where
it finds others."""


def _folder(data: Path | None, protocol: Protocol, split: str) -> Opened:
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
    if split != "all":
        files = _of_split(files, data, split)
    labelled = protocol.condition == "class"
    videos = [
        FileVideo(file, length_of(file), file.parent.name if labelled else None) for file in files
    ]
    return Opened("folder", [*videos], _rate(files), _notes(protocol))


def _of_split(files: list[Path], data: Path, split: str) -> list[Path]:
    """Choose what `data.folder.VideoFolder` holds out whole, or the rest."""
    if len(files) < FEW_VIDEOS:
        raise ValueError(
            f"{data} has {len(files)} videos, of which training holds out the ends, not some "
            f"whole; give others by --split all, or {FEW_VIDEOS} and more"
        )
    names = [file.relative_to(data).as_posix() for file in files]
    held = held_out(names, seed=0)
    return of_split(files, [name in held for name in names], split)
