"""Clips out of shards, by shard and offset: any order, any number of workers, nothing unpacked."""

import hashlib
import io
import json
import zlib
from collections import Counter
from itertools import islice
from typing import Any, Literal, NamedTuple

import fsspec
import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from data.container import VideoError, frames_from
from data.shards import FORMAT, Entry, Member, Record, ShardError, parse_index, parse_manifest
from data.source import ClipSource, Place, Sample, fit_window
from data.video import pictures


class _Clip(NamedTuple):
    shard: str
    key: str
    files: dict[str, Member]
    num_frames: int
    fps: float
    captions: tuple[str, ...]
    source: str


class ShardFolder(ClipSource):
    """The clips of a folder of shards that `data.prepare` wrote.

    The index is read once; a clip is one read of its bytes out of its shard, checked against their
    checksum. A shard of another length or content than the manifest says is an error that names it.

    Args:
        path: The folder, or an address that fsspec knows, such as s3://bucket/folder.
        split: "all", or "train" and "val": a tenth of the source videos, whole, is held out.
        size: Side of the square frames; the default keeps them as stored.
        min_frames: Shorter clips are left out; `too_short` counts them.
        seed: Chooses the videos held out.
        verify: Hash every shard before the first clip is read.
    """

    def __init__(
        self,
        path: str,
        split: Literal["all", "train", "val"] = "all",
        size: int | None = None,
        min_frames: int = 17,
        seed: int = 0,
        verify: bool = False,
    ) -> None:
        if split not in ("all", "train", "val"):
            raise ValueError(f"split is {split!r}, but must be 'all', 'train' or 'val'")
        if str(path).startswith("pipe:"):
            raise ValueError(f"path is {path!r}, but commands are never run; copy the shards first")
        self.path, self.split, self.size = str(path), split, size
        self._files, self._root = fsspec.url_to_fs(self.path)
        self.settings = self._settings()
        clips = [clip for record in self._records() for clip in self._open(record, verify)]
        long = [clip for clip in clips if clip.num_frames >= min_frames]
        self.too_short = len(clips) - len(long)
        if not long:
            raise ShardError(
                f"{path} holds no clip of {min_frames} frames or more; lower min_frames or "
                "prepare longer clips"
            )
        self._clips = long if split == "all" else _held_out(long, split, seed)

    @property
    def fps(self) -> float:
        """The most common rate, where the clips kept the rates of their videos."""
        return Counter(clip.fps for clip in self._clips).most_common(1)[0][0]

    @property
    def captions(self) -> list[str]:
        """The distinct captions of this split, sorted."""
        return sorted({caption for clip in self._clips for caption in clip.captions} - {""})

    def __len__(self) -> int:
        return len(self._clips)

    def length(self, index: int) -> int:
        """Return how many frames a clip has."""
        return self._clips[index].num_frames

    def video(self, index: int) -> bytes:
        """Return the whole video of a clip as it lies in its shard."""
        return self._bytes(self._clips[index], "mp4")

    def place(self, index: int, num_frames: int, offset: float = 0.0, stride: int = 1) -> Place:
        clip = self._clips[index]
        if not 1 <= num_frames <= clip.num_frames:
            raise ValueError(
                f"num_frames is {num_frames}, but clip {clip.key} has {clip.num_frames}; "
                "set min_frames to the length you read"
            )
        return Place(clip.key, *fit_window(clip.num_frames, num_frames, offset, stride))

    def read(self, index: int, num_frames: int, offset: float = 0.0, stride: int = 1) -> Sample:
        """Cut one clip; of several captions, the digits of `offset` choose one."""
        clip, place = self._clips[index], self.place(index, num_frames, offset, stride)
        name = f"clip {clip.key} of {clip.shard}"
        decoded = frames_from(self._bytes(clip, "mp4"), place.start, clip.fps)
        chosen = islice(pictures(decoded, self.size), 0, None, place.stride)
        try:
            frames = list(islice(chosen, num_frames))
        except VideoError as error:
            raise VideoError(f"{name}: {error}") from error
        if len(frames) < num_frames:
            raise VideoError(f"{name} ends after {place.start + len(frames)} frames; replace it")
        caption = clip.captions[int(offset * 2**20) % len(clip.captions)]
        actions = self._actions(clip, place, num_frames)
        return Sample(torch.from_numpy(np.stack(frames)), caption, place, actions)

    def _actions(self, clip: _Clip, place: Place, num_frames: int) -> Float32[Tensor, "T A"] | None:
        if "actions.npy" not in clip.files:
            return None
        if place.stride > 1:
            raise ValueError(
                f"stride is {place.stride}, but clip {clip.key} has an action for every "
                "frame; use strides [1]"
            )
        rows = read_array(self._bytes(clip, "actions.npy"), f"clip {clip.key} of {clip.shard}")
        return torch.from_numpy(rows[place.start : place.start + num_frames].astype(np.float32))

    def _bytes(self, clip: _Clip, suffix: str) -> bytes:
        if suffix not in clip.files:
            raise VideoError(f"clip {clip.key} of {clip.shard} has no .{suffix}")
        member = clip.files[suffix]
        end = member.offset + member.size
        content = self._cat(clip.shard, start=member.offset, end=end)
        if len(content) != member.size or zlib.crc32(content) != member.crc32:
            raise ShardError(
                f"shard {self._root}/{clip.shard} was altered or cut off near byte {member.offset} "
                f"(clip {clip.key}); copy or make it again"
            )
        return content

    def _cat(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        try:
            return self._files.cat_file(f"{self._root}/{name}", start=start, end=end)
        except OSError as error:
            raise ShardError(f"{self._root}/{name} cannot be read: {error}") from error

    def _settings(self) -> dict[str, Any]:
        content = self._cat("dataset.json")
        try:
            settings = dict(json.loads(content))
        except (TypeError, ValueError) as error:
            raise ShardError(f"{self._root}/dataset.json is broken: {error}") from error
        if settings.get("format") != FORMAT:
            raise ShardError(f"{self._root} is of format {settings.get('format')}, not {FORMAT}")
        return settings

    def _records(self) -> list[Record]:
        records = parse_manifest(self._cat("manifest.jsonl"), f"{self._root}/manifest.jsonl")
        if len(records) != self.settings["shards"]:
            raise ShardError(
                f"{self._root} is unfinished: {len(records)} of {self.settings['shards']} shards "
                "are there; run data.prepare again, it goes on where it stopped"
            )
        return [record for record in records if record.samples]

    def _open(self, record: Record, verify: bool) -> list[_Clip]:
        name = f"shard {self._root}/{record.shard}"
        size = self._size(record.shard)
        if size != record.bytes:
            raise ShardError(
                f"{name} has {size} bytes, but the manifest says {record.bytes}; it was cut off or "
                "altered: copy or make it again"
            )
        if verify and hashlib.sha256(self._cat(record.shard)).hexdigest() != record.sha256:
            raise ShardError(f"{name} was altered: its sha256 is not the manifest's")
        content = self._cat(record.shard.removesuffix(".tar") + ".jsonl")
        if hashlib.sha256(content).hexdigest() != record.index_sha256:
            raise ShardError(f"the index of {name} was altered; copy or make both again")
        entries = parse_index(content, name)
        if len(entries) != record.samples:
            raise ShardError(f"{name} has {len(entries)} samples, the manifest {record.samples}")
        return [_clip(record.shard, entry) for entry in entries]

    def _size(self, name: str) -> int:
        try:
            return int(self._files.size(f"{self._root}/{name}"))
        except OSError as error:
            raise ShardError(f"shard {self._root}/{name} is missing: {error}") from error


def read_array(content: bytes, name: str) -> np.ndarray:
    """Read an .npy; one that holds pickled objects is refused."""
    try:
        return np.load(io.BytesIO(content), allow_pickle=False)
    except (EOFError, ValueError) as error:
        raise ShardError(f"{name} holds an array that cannot be read: {error}") from error


def _clip(shard: str, entry: Entry) -> _Clip:
    meta = entry.meta
    try:
        captions = tuple(map(str, meta.get("captions", ()))) or ("",)
        num_frames, fps = int(meta["num_frames"]), float(meta["fps"])
    except (KeyError, TypeError, ValueError) as error:
        raise ShardError(
            f"clip {entry.key} of {shard} does not say its num_frames and fps ({error!r}); "
            "make the shard with data.prepare"
        ) from error
    source = str(meta.get("source", entry.key))
    return _Clip(shard, entry.key, entry.files, num_frames, fps, captions, source)


def _held_out(clips: list[_Clip], split: str, seed: int) -> list[_Clip]:
    """Hold out whole source videos: clips of one video are too alike to be on both sides."""
    sources = sorted({clip.source for clip in clips})
    draw = lambda source: hashlib.sha256(f"{seed} {source}".encode()).digest()
    held = set(sorted(sources, key=draw)[: max(1, len(sources) // 10)])
    chosen = [clip for clip in clips if (clip.source in held) == (split == "val")]
    if not chosen:
        raise ValueError(
            f"all clips are of one video, which is held out; prepare validation videos "
            f"on their own and read both with split 'all', not {split!r}"
        )
    return chosen
