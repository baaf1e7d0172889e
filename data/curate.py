"""Scores of prepared clips: python -m data.curate SHARDS --keep "motion > 1 and cuts == 0".

Each shard gets a NAME.scores.jsonl beside it, a line a clip; nothing is removed. Training reads the
clips that a condition keeps: ShardFolder(path, keep="..."). --page FILE helps to choose one.

More is said by scorers that are named, each with the folder of its model after a colon:

    --scorer data.text_area.TextArea            how much of the picture is writing
    --scorer evaluation.clip.Alignment:FOLDER   how well captions fit, by CLIP
    --scorer data.captioner.Captioner:FOLDER    new captions: ShardFolder(path, caption="caption")
    --scorer your_module.YourClass:ARGUMENT     see data.plugin
"""

import argparse
import json
import os
import sys
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import Progress

from data.container import VideoError
from data.curate_page import page
from data.plugin import Said, Scorer, find, make
from data.shard_folder import ShardFolder
from data.shards import write_file
from data.workers import run

BASICS = "data.scores.Basics"


class ScoreTask(NamedTuple):
    """The clips of one shard, by their index in the folder, and what is to be said about them."""

    folder: str
    shard: str
    indices: list[int]
    scorers: tuple[str, ...]


def score_shard(task: ScoreTask, report: Callable[[str], None]) -> int:
    """Score one shard, in a process of its own; return how many clips are unreadable."""
    source, path = ShardFolder(task.folder, min_frames=1), _path(Path(task.folder), task.shard)
    known, lines, unreadable = _known(path), [], 0
    scorers = [make(spec) for spec in task.scorers]
    for index in task.indices:
        entry = source.stored(index).entry
        report(entry.key)
        row = known.get(entry.key, {})
        new = [scorer for scorer in scorers if not {*scorer.names} <= row.keys()]
        if new and "error" not in row:
            row = row | _said(source, index, new)
            unreadable += "error" in row
        lines.append(json.dumps({"key": entry.key, **row}) + "\n")
    partial = path.with_name(f".partial-{path.name}")
    write_file(partial, "".join(lines).encode())
    partial.replace(path)
    return unreadable


def _said(source: ShardFolder, index: int, scorers: list[Scorer]) -> dict[str, Said]:
    captions = source.stored(index).entry.meta.get("captions", [])
    try:
        clip = source.read(index, source.length(index)).frames
    except VideoError as error:
        return {"error": str(error)}
    return {name: value for scorer in scorers for name, value in scorer(clip, captions).items()}


def _path(folder: Path, shard: str) -> Path:
    return folder / shard.replace(".tar", ".scores.jsonl")


def _known(path: Path) -> dict[str, dict[str, Said]]:
    """Return what is written about the clips of a shard, by their keys."""
    if not path.is_file():
        return {}
    try:
        return {row.pop("key"): row for row in map(json.loads, path.read_text().splitlines())}
    except (AttributeError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is broken ({error!r}); delete it and run this again") from error


def _complete(path: Path, count: int, names: set[str]) -> bool:
    rows = _known(path).values()
    return len(rows) == count and all(names <= row.keys() or "error" in row for row in rows)


def curate(folder: Path, processes: int, scorers: tuple[str, ...] = ()) -> int:
    """Score what has not all scores yet; return how many clips were found unreadable."""
    source = ShardFolder(str(folder), min_frames=1)
    scorers = (BASICS, *scorers)
    names = {name for spec in scorers for name in find(spec).names}
    shards: dict[str, list[int]] = {}
    for index in range(len(source)):
        shards.setdefault(source.stored(index).shard, []).append(index)
    tasks = deque(
        ScoreTask(str(folder), shard, indices, scorers)
        for shard, indices in shards.items()
        if not _complete(_path(folder, shard), len(indices), names)
    )
    unreadable, deaths = 0, Counter[str]()
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("clips", total=sum(len(task.indices) for task in tasks))
        for event in run(score_shard, tasks, processes):
            if event.kind == "report":
                progress.advance(bar)
            elif event.kind == "done":
                unreadable += event.content
            else:
                deaths[event.task.shard] += 1
                if deaths[event.task.shard] == 2:
                    raise RuntimeError(f"scoring {event.task.shard} ended its process twice")
                tasks.append(event.task)
    return unreadable


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="data.curate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shards", type=Path, help="folder that data.prepare wrote")
    parser.add_argument("--scorer", action="append", default=[], help="package.module.Class[:ARG]")
    parser.add_argument("--keep", default="", help="condition to try, such as 'motion > 1.0'")
    parser.add_argument("--page", type=Path, help=".html of thumbnails and histograms to write")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    args = parser().parse_args(arguments)
    unreadable = curate(args.shards, args.processes, tuple(args.scorer))
    everything = len(ShardFolder(str(args.shards), min_frames=1))
    print(f"{everything} clips scored, {unreadable} of them newly found unreadable")
    if args.page:
        args.page.write_text(page(ShardFolder(str(args.shards), min_frames=1)), encoding="utf-8")
        print(f"look at {args.page}")
    if args.keep:
        kept = len(ShardFolder(str(args.shards), min_frames=1, keep=args.keep))
        print(f"{args.keep}: keeps {kept} of {everything}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, RuntimeError) as error:
        sys.exit(f"data.curate: {error}")
