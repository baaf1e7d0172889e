"""Arrays to shards: frames with actions and captions that never were a video file."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from data.manifest import Manifest, begin, locked
from data.shards import FORMAT, write_shard
from data.video import VideoWriter


class Episode(NamedTuple):
    """One clip; row k of `actions` is the action that leads to frame k, row 0 is zero.

    So is row k of `rewards`; they are stored as `rewards.npy`.
    """

    name: str
    frames: UInt8[np.ndarray, "T H W 3"]
    actions: Float32[np.ndarray, "T A"] | None = None
    captions: tuple[str, ...] = ()
    rewards: Float32[np.ndarray, " T"] | None = None


def delayed(actions: Float32[np.ndarray, "T A"]) -> Float32[np.ndarray, "T A"]:
    """Turn "the action taken at frame k" into "the action that leads to frame k"."""
    return np.concatenate([np.zeros_like(actions[:1]), actions[:-1]])


def write_episodes(
    out: Path,
    episodes: Callable[[int, int], Iterator[Episode]],
    count: int,
    *,
    fps: float,
    kind: str,
    shard_episodes: int = 256,
) -> Manifest:
    """Write lossless clips; a run that was stopped goes on with the shards that are missing.

    Args:
        out: The folder to write.
        episodes: Gives episodes `first` to `last` - 1, the same at every call.
        count: How many episodes there are.
        fps: Frames a second.
        kind: What they are, for dataset.json.
        shard_episodes: Episodes a shard.
    """
    out.mkdir(parents=True, exist_ok=True)
    firsts = range(0, count, shard_episodes)
    settings = {"format": FORMAT, "shards": len(firsts), "kind": kind, "videos": count, "fps": fps}
    with locked(out):
        scratch = out / ".partial-episodes"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        begin(out, settings | {"shard_episodes": shard_episodes}, scratch)
        manifest = Manifest(out)
        for number, first in enumerate(firsts):
            name = f"shard-{number:06d}.tar"
            if name not in manifest.records:
                last = min(first + shard_episodes, count)
                samples = _samples(islice(episodes(first, last), last - first), first, fps, scratch)
                manifest.add(write_shard(out, name, samples, scratch, {}))
        shutil.rmtree(scratch)
        manifest.sort()
    return manifest


def _samples(
    episodes: Iterator[Episode], first: int, fps: float, scratch: Path
) -> Iterator[tuple[str, dict[str, bytes]]]:
    for number, episode in enumerate(episodes, first):
        path = scratch / "clip.mp4"
        with VideoWriter(path, fps, lossless=True, gop=8) as writer:
            writer.write(torch.from_numpy(episode.frames))
        meta = {"num_frames": len(episode.frames), "fps": fps, "captions": episode.captions}
        digest = hashlib.sha256(episode.frames.tobytes()).hexdigest()
        meta |= {"source": episode.name, "source_frame": 0, "source_sha256": digest}
        files = {"mp4": path.read_bytes(), "json": json.dumps(meta, sort_keys=True).encode()}
        files |= _arrays(episode)
        yield f"{number:08d}-00000", files


def _arrays(episode: Episode) -> dict[str, bytes]:
    """Return what goes with the frames, a row a frame, as .npy."""
    files = {}
    for name in ("actions", "rewards"):
        rows = getattr(episode, name)
        if rows is None:
            continue
        if len(rows) != len(episode.frames):
            raise ValueError(
                f"{episode.name} has {len(episode.frames)} frames and {len(rows)} {name}; give one "
                "row a frame"
            )
        stream = BytesIO()
        np.save(stream, rows, allow_pickle=False)
        files[f"{name}.npy"] = stream.getvalue()
    return files
