"""Frames per second out of shards against bare PyAV: python -m benchmarks.loader --json FILE.

Both decode the same clips to RGB on one thread, turn by turn, and the median of their ratios
counts. Both round colours to the nearest level; PyAV's default conversion, which is faster and
makes every picture a level darker, is measured beside them. Further: windows a second, and what
memory does over many clips.
"""

import argparse
import io
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from data import prepare
from data.datamodule import WindowDataset, collate
from data.schedule import Stage, StepSampler
from data.shard_folder import ShardFolder
from data.video import SCALING

PATTERNS = ("testsrc2", "mandelbrot", "life", "gradients")  # FFmpeg's own pictures, still to wild


class Report(NamedTuple):
    """Frames and clips a second; resident memory in MB after a tenth of the clips and after all."""

    clips: int
    frames_per_clip: int
    size: int
    raw_frames_per_second: float
    raw_dark_frames_per_second: float
    loader_frames_per_second: float
    ratio: float
    windows_per_second: float
    clips_read: int
    megabytes_early: float
    megabytes_late: float


def make_videos(folder: Path, num_videos: int, num_frames: int, size: int) -> None:
    """Write videos of FFmpeg's own patterns."""
    for number in range(num_videos):
        pattern = PATTERNS[number % len(PATTERNS)]
        source = f"{pattern}=size={2 * size}x{2 * size}:rate=8"
        with (
            av.open(source, format="lavfi") as pictures,
            av.open(str(folder / f"{number:04d}.mp4"), "w") as out,
        ):
            stream = out.add_stream("libx264", rate=8)
            stream.width = stream.height = 2 * size
            for count, frame in enumerate(pictures.decode(video=0)):
                if count == num_frames:
                    break
                out.mux(stream.encode(frame.reformat(format="yuv420p")))
            out.mux(stream.encode(None))


def raw(contents: list[bytes], interpolation: int | None = SCALING) -> int:
    """Decode clips with nothing but PyAV; return the number of frames."""
    count = 0
    for content in contents:
        reformatter = VideoReformatter()
        with av.open(io.BytesIO(content), "r") as container:
            container.streams.video[0].thread_type = "NONE"
            frames = [
                reformatter.reformat(
                    frame, format="rgb24", interpolation=interpolation, threads=1
                ).to_ndarray()
                for frame in container.decode(video=0)
            ]
        count += len(np.stack(frames))
    return count


def ours(source: ShardFolder) -> int:
    """Decode the same clips out of their shards; return the number of frames."""
    lengths = [source.length(index) for index in range(len(source))]
    return sum(len(source.read(index, length).frames) for index, length in enumerate(lengths))


def rate(work: Callable[[], int]) -> float:
    """Return what a piece of work does in a second of one core, whatever else the machine does."""
    start = time.process_time()
    count = work()
    return count / (time.process_time() - start)


def read_windows(source: ShardFolder, num_clips: int, num_frames: int) -> tuple[float, list[float]]:
    """Read batches as a training does; return clips a CPU second, and MB resident after each."""
    sampler = StepSampler(len(source), [Stage(num_frames, 16)], -(-num_clips // 16), seed=0)
    dataset, resident = WindowDataset(source), []
    start = time.process_time()
    for windows in sampler:
        collate([dataset[window] for window in windows])
        resident.append(_resident())
    return 16 * len(resident) / (time.process_time() - start), resident


def _resident() -> float:
    status = Path("/proc/self/statm")
    if not status.is_file():  # no Linux: the peak instead
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return int(status.read_text().split()[1]) * resource.getpagesize() / 2**20


def measure(folder: Path, rounds: int, num_clips: int, num_frames: int) -> Report:
    """Compare on the shards of a folder."""
    source = ShardFolder(str(folder), min_frames=num_frames)
    contents = [source.video(index) for index in range(len(source))]
    contestants = (
        lambda: raw(contents),
        lambda: raw(contents, None),
        lambda: ours(source),
    )
    rates = np.array([[rate(work) for work in contestants] for _ in range(rounds + 1)])[1:]
    raw_rate, dark_rate, own_rate = np.median(rates, axis=0).tolist()  # the first is a warm-up
    windows, resident = read_windows(source, num_clips, num_frames)
    frames = source.read(0, num_frames).frames
    return Report(
        len(source),
        source.length(0),
        frames.shape[1],
        raw_rate,
        dark_rate,
        own_rate,
        float(np.median(rates[:, 2] / rates[:, 0])),
        windows,
        16 * len(resident),
        resident[len(resident) // 10],
        resident[-1],
    )


def main(arguments: list[str] | None = None) -> Report:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Compare reading shards with bare PyAV.")
    parser.add_argument("--json", type=Path, help="file to write the figures into")
    parser.add_argument("--shards", type=Path, help="shards to read instead of made ones")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--videos", type=int, default=16)
    parser.add_argument("--frames", type=int, default=128, help="of a video")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clips", type=int, default=10_000, help="to read while memory is watched")
    parser.add_argument("--window", type=int, default=17, help="frames of a training clip")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        shards = args.shards or Path(temporary) / "shards"
        if args.shards is None:
            (Path(temporary) / "videos").mkdir()
            make_videos(Path(temporary) / "videos", args.videos, args.frames, args.size)
            prepare.main([f"{temporary}/videos", str(shards), f"--size={args.size}"])
        report = measure(shards, args.rounds, args.clips, args.window)
    if args.json:
        args.json.write_text(json.dumps(report._asdict(), indent=1))
    print("\n".join(f"{name:26} {value:10.4g}" for name, value in report._asdict().items()))
    return report


if __name__ == "__main__":
    main()
