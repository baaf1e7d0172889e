"""The field's data sets from their original files: python -m data.benchmark_sets bair SRC OUT.

Arrays (BAIR robot pushing, Moving MNIST, moving digits) become shards at once, lossless. Video
folders with official splits (UCF-101, Kinetics-600, KTH) become a list for data.prepare.
"""

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from data.container import VideoError
from data.digits import Digits, Split
from data.episodes import Episode, delayed, write_episodes
from data.tfrecord import find_records, read_example, read_records

Episodes = Callable[[int, int], Iterator[Episode]]

FPS = 10.0
"""Frames a second of the arrays, which do not say it themselves."""

_KTH_TRAIN = range(1, 21)  # persons, as SVG and MCVD divide them


def bair(src: Path, camera: str) -> tuple[Episodes, int]:
    """BAIR robot pushing (Ebert et al. 2017): 30 frames of 64 x 64 at 10 a second, 4 actions.

    `src` is the folder of .tfrecords files of a split, or an .npz with `image_main`, `image_aux1`
    and `action` of one trajectory; `camera` is "main" or "aux1".
    """
    if src.suffix == ".npz":
        return lambda first, last: iter([_bair_npz(src, camera)]), 1
    files = sorted(src.glob("*.tfrecords"))
    if not files:
        raise VideoError(
            f"{src} holds no .tfrecords; give the folder train or test of the data set"
        )
    counts = [len(find_records(file)) for file in files]
    return partial(_bair_range, files, counts, camera), sum(counts)


def _bair_npz(src: Path, camera: str) -> Episode:
    with np.load(src, allow_pickle=False) as arrays:
        frames, actions = arrays[f"image_{camera}"], arrays["action"].astype(np.float32)
    return Episode(src.name, frames, delayed(actions))


def _bair_range(
    files: list[Path], counts: list[int], camera: str, first: int, last: int
) -> Iterator[Episode]:
    before = 0
    for file, count in zip(files, counts, strict=True):
        if before + count > first and before < last:
            begin, end = max(0, first - before), min(count, last - before)
            for number, message in enumerate(islice(read_records(file), begin, end), begin):
                yield _bair_episode(f"{file.name}#{number}", message, camera)
        before += count


def _bair_episode(name: str, message: bytes, camera: str) -> Episode:
    features = read_example(message)
    frames, actions = [], []
    while (key := f"{len(frames)}/image_{camera}/encoded") in features:
        (picture,) = features[key]
        actions.append(features[f"{len(frames)}/action"])
        frames.append(np.frombuffer(picture, np.uint8).reshape(64, 64, 3))
    if not frames:
        raise VideoError(f"{name} has no image_{camera}; give a folder of BAIR robot pushing")
    return Episode(name, np.stack(frames), delayed(np.stack(actions).astype(np.float32)))


def moving_mnist(src: Path) -> tuple[Episodes, int]:
    """Moving MNIST (Srivastava et al. 2015): mnist_test_seq.npy, uint8 20 x 10,000 x 64 x 64."""
    frames = np.load(src, mmap_mode="r", allow_pickle=False)
    if frames.ndim != 4 or frames.dtype != np.uint8:
        raise VideoError(f"{src} is {frames.dtype} {frames.shape}; give mnist_test_seq.npy")

    def episodes(first: int, last: int) -> Iterator[Episode]:
        for index in range(first, last):
            yield Episode(f"{src.name}#{index}", _gray(np.array(frames[:, index])))

    return episodes, frames.shape[1]


def moving_digits(count: int, num_frames: int, split: Split) -> tuple[Episodes, int]:
    """Moving digits as shards: the clips of `data.digits.Digits`."""
    source = Digits(count, split)

    def episodes(first: int, last: int) -> Iterator[Episode]:
        for index in range(first, last):
            sample = source.read(index, num_frames)
            yield Episode(sample.place.key, sample.frames.numpy())

    return episodes, count


def _gray(frames: UInt8[np.ndarray, "T H W"]) -> UInt8[np.ndarray, "T H W 3"]:
    return np.repeat(frames[..., None], 3, axis=-1)


def ucf101(split_file: Path) -> list[tuple[str, str]]:
    """UCF-101 (Soomro et al. 2012): paths and classes out of trainlist01.txt or its like."""
    lines = split_file.read_text().split("\n")
    return [(line.split()[0], line.split("/")[0]) for line in lines if line.strip()]


def kinetics600(src: Path, split_file: Path) -> list[tuple[str, str]]:
    """Kinetics-600 (Carreira et al. 2018): a csv of label, youtube_id, time_start and time_end.

    The files are `src`/[label/]ID_START_END.mp4 with times of six digits; those that are not there
    are left for data.prepare to name.
    """
    rows = []
    with split_file.open(newline="") as file:
        for row in csv.DictReader(file):
            times = f"{int(row['time_start']):06d}_{int(row['time_end']):06d}"
            name, label = f"{row['youtube_id']}_{times}.mp4", row["label"]
            rows.append((name if (src / name).is_file() else f"{label}/{name}", label))
    return rows


def kth(src: Path, split: str) -> list[tuple[str, str]]:
    """KTH actions (Schuldt et al. 2004): [action/]personNN_action_dN_uncomp.avi; 1 to 20 train."""
    rows = []
    for file in sorted(src.rglob("person*_uncomp.avi")):
        person, action = file.name.split("_")[:2]
        if (int(person.removeprefix("person")) in _KTH_TRAIN) == (split == "train"):
            rows.append((file.relative_to(src).as_posix(), action))
    return rows


def write_list(src: Path, rows: list[tuple[str, str]], out: Path) -> None:
    """Write the list of a split for data.prepare: a path and, as caption, a class a line."""
    if not rows:
        raise VideoError(f"{src} has no video of this split; check the folder and the split file")
    lines = [json.dumps({"video": str((src / path).absolute()), "caption": c}) for path, c in rows]
    out.write_text("\n".join(lines) + "\n")
    print(f"{len(rows)} videos; go on with: python -m data.prepare {out} OUT")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="data.benchmark_sets", description="Read known data sets."
    )
    arrays, lists = ("bair", "moving-mnist", "moving-digits"), ("ucf101", "kinetics600", "kth")
    parser.add_argument("kind", choices=[*arrays, *lists])
    parser.add_argument("src", type=Path, help="folder or file; any word for moving-digits")
    parser.add_argument("out", type=Path, help="folder of shards, or .jsonl list to write")
    cameras = ["aux1", "main"]  # papers report the first
    parser.add_argument("--camera", default=cameras[0], choices=cameras, help="of bair")
    parser.add_argument("--split", default="train", choices=["train", "test"], help="kth, digits")
    parser.add_argument("--split-file", type=Path, help="trainlist01.txt, or Kinetics' csv")
    parser.add_argument("--count", type=int, default=10_000, help="of moving-digits")
    args = parser.parse_args(arguments)
    if args.kind in ("ucf101", "kinetics600"):
        if args.split_file is None:
            raise ValueError(f"{args.kind} has official splits; give one by --split-file")
        own = args.kind == "ucf101"
        rows = ucf101(args.split_file) if own else kinetics600(args.src, args.split_file)
        return write_list(args.src, rows, args.out)
    if args.kind == "kth":
        return write_list(args.src, kth(args.src, args.split), args.out)
    kind = args.kind
    if args.kind == "bair":
        kind, (episodes, count) = f"bair {args.camera}", bair(args.src, args.camera)
    elif args.kind == "moving-mnist":
        episodes, count = moving_mnist(args.src)
    else:
        split: Split = "train" if args.split == "train" else "val"
        kind, (episodes, count) = f"{kind} {split}", moving_digits(args.count, 20, split)
    manifest = write_episodes(args.out, episodes, count, fps=FPS, kind=kind)
    return print(f"{count} clips in {len(manifest.records)} shards")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"data.benchmark_sets: {error}")
