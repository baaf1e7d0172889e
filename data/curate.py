"""Scores of prepared clips: python -m data.curate SHARDS --keep "motion > 1 and cuts == 0".

Each shard gets a NAME.scores.jsonl beside it, a line a clip; nothing is removed. Training reads the
clips that a condition keeps: ShardFolder(path, keep="..."). --page FILE helps to choose one.
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
from data.scores import score
from data.shard_folder import ShardFolder
from data.shards import write_file
from data.workers import run


class ScoreTask(NamedTuple):
    """The clips of one shard, by their index in the folder."""

    folder: str
    shard: str
    indices: list[int]


def score_shard(task: ScoreTask, report: Callable[[str], None]) -> int:
    """Score one shard, in a process of its own; return how many clips are unreadable."""
    source, lines, unreadable = ShardFolder(task.folder, min_frames=1), [], 0
    for index in task.indices:
        key = source.stored(index).entry.key
        report(key)
        try:
            scores = score(source.read(index, source.length(index)).frames)._asdict()
        except VideoError as error:
            scores, unreadable = {"error": str(error)}, unreadable + 1
        lines.append(json.dumps({"key": key, **scores}) + "\n")
    path = Path(task.folder) / task.shard.replace(".tar", ".scores.jsonl")
    partial = path.with_name(f".partial-{path.name}")
    write_file(partial, "".join(lines).encode())
    partial.replace(path)
    return unreadable


def curate(folder: Path, processes: int) -> int:
    """Score the shards that have no scores yet; return how many of their clips are unreadable."""
    source = ShardFolder(str(folder), min_frames=1)
    shards: dict[str, list[int]] = {}
    for index in range(len(source)):
        shards.setdefault(source.stored(index).shard, []).append(index)
    tasks = deque(
        ScoreTask(str(folder), shard, indices)
        for shard, indices in shards.items()
        if not (folder / shard.replace(".tar", ".scores.jsonl")).is_file()
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
    parser = argparse.ArgumentParser(prog="data.curate", description="Score prepared clips.")
    parser.add_argument("shards", type=Path, help="folder that data.prepare wrote")
    parser.add_argument("--keep", default="", help="condition to try, such as 'motion > 1.0'")
    parser.add_argument("--page", type=Path, help=".html of thumbnails and histograms to write")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    args = parser().parse_args(arguments)
    unreadable = curate(args.shards, args.processes)
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
