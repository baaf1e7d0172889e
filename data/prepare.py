"""Videos to shards: python -m data.prepare SRC OUT --size 64 --fps 8.

Each shard is a function of its videos and the settings alone. A run that was killed goes on with
the shards that are not in the manifest, and ends with the same bytes as one that never was.
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Task as ProgressTask
from rich.text import Text

from data.container import VideoError
from data.listing import Listed, Listing, list_videos
from data.manifest import Manifest, begin, locked
from data.shards import FORMAT, Record, write_shard
from data.transcode import Settings, transcode
from data.workers import run

_SHARD_BYTES = 2**28  # of source files: few long videos, or many short ones, to a shard
_NAMED = 10
_DEATHS = 2  # of the process that reads a video, until the video is passed over


@dataclass
class ShardTask:
    """The videos of one shard; `deadly` are those that ended the process that read them."""

    name: str
    first: int
    videos: list[Listed]
    settings: Settings
    out: str
    deadly: dict[str, str] = field(default_factory=dict)


def plan(videos: list[Listed], settings: Settings, out: Path, shard_videos: int) -> list[ShardTask]:
    """Deal the videos to shards, in order, by number and by size of their files."""
    tasks: list[ShardTask] = []
    room = 0
    for index, video in enumerate(videos):
        if not tasks or len(tasks[-1].videos) == shard_videos or video.size > room:
            name = f"shard-{len(tasks):06d}.tar"
            tasks.append(ShardTask(name, index, [], settings, str(out)))
            room = _SHARD_BYTES
        tasks[-1].videos.append(video)
        room -= video.size
    return tasks


def make_shard(task: ShardTask, report: Callable[[str], None]) -> Record:
    """Transcode the videos of one shard and write it; runs in a process of its own."""
    out = Path(task.out)
    scratch = out / f".partial-{os.getpid()}"
    scratch.mkdir(exist_ok=True)
    skipped: dict[str, str] = {}

    def samples() -> Iterator[tuple[str, dict[str, bytes]]]:
        for number, video in enumerate(task.videos):
            report(video.name)
            try:
                if video.name in task.deadly:
                    raise VideoError(task.deadly[video.name])
                clips = transcode(video, f"{task.first + number:08d}", task.settings, scratch)
            except VideoError as error:
                skipped[video.name] = str(error).replace(video.path, video.name)
                continue
            yield from (clip.files() for clip in clips)

    record = write_shard(out, task.name, samples(), scratch, skipped)
    shutil.rmtree(scratch)
    return record


def prepare(
    listing: Listing, out: Path, settings: Settings, *, shard_videos: int, processes: int
) -> Manifest:
    """Write all shards that are not written yet.

    Raises:
        ValueError: `out` was begun from other videos or with other settings, is no folder of
            shards, or another process writes there.
    """
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        for left in out.glob(".partial-*"):  # by a run that was killed
            shutil.rmtree(left)
        tasks = plan(listing.videos, settings, out, shard_videos)
        scratch = out / ".partial-settings"
        scratch.mkdir()
        begin(out, _settings(listing, settings, tasks), scratch)
        scratch.rmdir()
        manifest = Manifest(out)
        _work(tasks, manifest, processes)
        manifest.sort()
    return manifest


def _work(tasks: list[ShardTask], manifest: Manifest, processes: int) -> None:
    total = sum(len(task.videos) for task in tasks)
    todo = deque(task for task in tasks if task.name not in manifest.records)
    done = total - sum(len(task.videos) for task in todo)
    begun: dict[str, list[str]] = {}  # by shard, the videos that its process has begun
    deaths: Counter[str] = Counter()
    with _progress() as progress:
        bar = progress.add_task("videos", total=total, completed=done)
        for event in run(make_shard, todo, processes):
            task: ShardTask = event.task
            if event.kind == "report":
                begun.setdefault(task.name, []).append(event.content)
            elif event.kind == "done":
                manifest.add(event.content)
                done += len(task.videos)
                begun.pop(task.name, None)
            else:
                _mourn(task, begun.pop(task.name, []), event.content, deaths)
                todo.append(task)
            under_way = sum(len(names) - 1 for names in begun.values())
            progress.update(bar, completed=done + under_way)


def _mourn(task: ShardTask, begun: list[str], code: int, deaths: Counter[str]) -> None:
    """A process has died: what it read last is suspect, and passed over the second time."""
    if not begun:
        raise RuntimeError(f"a process for {task.name} ended with code {code} before it began")
    deaths[begun[-1]] += 1
    if deaths[begun[-1]] == _DEATHS:
        task.deadly[begun[-1]] = f"reading it ended the process {_DEATHS} times (code {code})"


def _settings(listing: Listing, settings: Settings, tasks: list[ShardTask]) -> dict[str, Any]:
    videos = [(video.name, video.size, video.captions) for video in listing.videos]
    digest = hashlib.sha256(json.dumps(videos).encode()).hexdigest()
    counts = {"format": FORMAT, "shards": len(tasks), "videos": len(videos), "list": digest}
    return counts | asdict(settings) | {"rejected": listing.rejected}


class _Rate(ProgressColumn):
    def render(self, task: ProgressTask) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:.1f}/s")


def _progress() -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    return Progress(TextColumn("{task.description}"), *columns, console=Console(stderr=True))


def summary(listing: Listing, manifest: Manifest) -> str:
    """Say how many clips there are, and what was skipped and why."""
    records = manifest.records.values()
    skipped = {name: why for record in records for name, why in record.skipped.items()}
    skipped = listing.rejected | skipped
    lines = [
        f"{sum(record.samples for record in records)} clips of "
        f"{len(listing.videos) + len(listing.rejected) - len(skipped)} videos in "
        f"{sum(record.samples > 0 for record in records)} shards; {len(skipped)} skipped"
    ]
    lines += [f"  {name}: {reason}" for name, reason in list(skipped.items())[:_NAMED]]
    if len(skipped) > _NAMED:
        lines.append(f"  and {len(skipped) - _NAMED} more, in {manifest.path} and dataset.json")
    return "\n".join(lines).encode(errors="backslashreplace").decode()


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(prog="data.prepare", description="Turn videos into shards.")
    parser.add_argument("src", type=Path, help="folder, or .txt, .csv, .tsv or .jsonl list")
    parser.add_argument("out", type=Path, help="folder to write; run again to go on")
    parser.add_argument("--size", type=int, default=64, help="side of the square frames")
    parser.add_argument("--fps", type=float, default=8.0, help="slower videos keep their rate")
    parser.add_argument("--every-frame", action="store_true", help="keep the rate of each video")
    parser.add_argument("--lossless", action="store_true", help="keep every pixel exactly")
    parser.add_argument("--max-frames", type=int, default=128, help="longer videos are divided")
    parser.add_argument("--gop", type=int, default=8, help="frames between key frames")
    parser.add_argument("--shard-videos", type=int, default=64, help="most videos of a shard")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--video-column", default="video", help="of a table: where the paths are")
    parser.add_argument("--caption-columns", nargs="*", default=["caption"], metavar="COLUMN")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    args = parser().parse_args(arguments)
    for name in ("max_frames", "gop", "shard_videos", "processes"):
        if getattr(args, name) < 1:
            raise ValueError(f"{name} is {getattr(args, name)}, but must be at least 1")
    fps = None if args.every_frame else args.fps
    settings = Settings(args.size, fps, args.lossless, args.max_frames, args.gop)
    listing = list_videos(args.src, args.video_column, args.caption_columns)
    options = {"shard_videos": args.shard_videos, "processes": args.processes}
    manifest = prepare(listing, args.out, settings, **options)
    print(summary(listing, manifest))


if __name__ == "__main__":
    try:
        main()
    except (ValueError, RuntimeError) as error:
        sys.exit(f"data.prepare: {error}")
    except KeyboardInterrupt:
        sys.exit("data.prepare: stopped; the same command goes on from here")
