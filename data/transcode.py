"""One video to clips of a target size and rate that are quick to reach and quick to decode."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from av.error import FFmpegError
from jaxtyping import UInt8

from data.container import VideoError, sampled_rate
from data.listing import Listed
from data.video import VideoWriter, iterate_frames


@dataclass(frozen=True)
class Settings:
    """What clips are made: side, frames a second (None keeps each video's), length, key frames."""

    size: int = 64
    fps: float | None = 8.0
    lossless: bool = False
    max_frames: int = 128
    gop: int = 8

    def __post_init__(self) -> None:
        if self.size < 2 or (self.size % 2 and not self.lossless):
            raise ValueError(
                f"size is {self.size}, but H.264 stores half its colours in each direction; "
                "use an even number from 2, or lossless"
            )
        if self.fps is not None and not 0.01 <= self.fps <= 1000:
            raise ValueError(f"fps is {self.fps}, but must be between 0.01 and 1000")


class StoredClip(NamedTuple):
    """A clip on its way into a shard; its video still lies in a scratch file."""

    key: str
    path: Path
    meta: dict[str, Any]
    actions: np.ndarray | None

    def files(self) -> tuple[str, dict[str, bytes]]:
        """Return the key and the files of the sample; the scratch file goes."""
        files = {"mp4": self.path.read_bytes()}
        files["json"] = json.dumps(self.meta, sort_keys=True).encode()
        if self.actions is not None:
            stream = BytesIO()
            np.save(stream, self.actions, allow_pickle=False)
            files["actions.npy"] = stream.getvalue()
        self.path.unlink()
        return self.key, files


def transcode(video: Listed, key: str, settings: Settings, scratch: Path) -> list[StoredClip]:
    """Divide a video into clips of at most `max_frames`, each a file of its own in `scratch`.

    Raises:
        VideoError: The video, or the .actions.npy beside it, is not whole; nothing of it is kept.
    """
    rate = _rate(video, settings)
    frames = _decoded(video, settings)
    clips: list[StoredClip] = []
    begin = 0
    for piece in _pieces(frames, settings.max_frames):
        path = scratch / f"{len(clips)}.mp4"
        count = _write(path, piece, float(rate), settings)
        meta = {"num_frames": count, "fps": float(rate), "captions": video.captions}
        meta |= {"source": video.name, "source_frame": begin, "size": settings.size}
        clips.append(StoredClip(f"{key}-{len(clips):05d}", path, meta, None))
        begin += count
    if not clips:
        raise VideoError(f"{video.name} holds no video frame")
    with Path(video.path).open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    rows = _actions(video, begin)
    return [_complete(clip, digest, rows) for clip in clips]


def _complete(clip: StoredClip, digest: str, rows: np.ndarray | None) -> StoredClip:
    begin = clip.meta["source_frame"]
    own = None if rows is None else rows[begin : begin + clip.meta["num_frames"]]
    return clip._replace(meta=clip.meta | {"source_sha256": digest}, actions=own)


def _rate(video: Listed, settings: Settings) -> Fraction:
    rate = Fraction(sampled_rate(video.path, settings.fps)).limit_denominator(1001)
    if not 0 < rate <= 1000:
        raise VideoError(f"{video.name} has {float(rate):g} frames a second; give it a sound rate")
    return rate


def _decoded(video: Listed, settings: Settings) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    try:
        yield from iterate_frames(video.path, settings.size, fps=settings.fps)
    except VideoError:
        raise
    except (ArithmeticError, FFmpegError, MemoryError, ValueError) as error:
        raise VideoError(f"{video.name} cannot be decoded: {error!r}") from error


def _write(path: Path, frames: Iterator[np.ndarray], fps: float, settings: Settings) -> int:
    count = 0
    with VideoWriter(path, fps, settings.lossless, settings.gop) as writer:
        for frame in frames:
            writer.write(torch.from_numpy(frame)[None])
            count += 1
    return count


def _pieces(frames: Iterator[np.ndarray], length: int) -> Iterator[Iterator[np.ndarray]]:
    for first in frames:
        yield chain([first], islice(frames, length - 1))


def _actions(video: Listed, num_frames: int) -> np.ndarray | None:
    """Read NAME.actions.npy, a row for every frame that is kept."""
    path = Path(video.path).with_suffix(".actions.npy")
    if not path.is_file():
        return None
    try:
        rows = np.asarray(np.load(path, allow_pickle=False), dtype=np.float32)
    except (EOFError, OSError, TypeError, ValueError) as error:
        raise VideoError(f"the actions beside {video.name} cannot be read: {error}") from error
    if rows.ndim != 2 or len(rows) != num_frames:
        raise VideoError(
            f"the actions beside {video.name} are {rows.shape}, but the video gives {num_frames} "
            "frames; give one row a frame, and --every-frame"
        )
    return rows
