"""Clips out of shards, by shard and offset: any order, any number of workers, nothing unpacked."""

from collections import Counter
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from data.container import VideoError, frames_from
from data.keep import Keep
from data.scores import duplicates
from data.shard_reader import ShardReader, Stored
from data.shards import FORMAT, ShardError
from data.source import ClipSource, Place, Sample, fit_window
from data.split import held_out, of_split
from data.video import pictures


class _Clip(NamedTuple):
    stored: Stored
    key: str
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
        min_frames: Shorter clips are left out; `too_short` counts them, and `unused_sources` names
            the videos of which no clip is left.
        seed: Chooses the videos held out.
        verify: Hash every shard before the first clip is read.
        keep: Condition on the scores that `data.curate` wrote, such as "motion > 1 and
            duplicate == 0"; `duplicate` says that an earlier clip looks the same.
        caption: Name of what a captioner wrote by `data.curate`, to be read instead of the captions
            that came with the videos.
    """

    def __init__(
        self,
        path: str,
        split: Literal["all", "train", "val"] = "all",
        size: int | None = None,
        min_frames: int = 17,
        seed: int = 0,
        verify: bool = False,
        keep: str = "",
        caption: str = "",
    ) -> None:
        self.path, self.split, self.size = str(path), split, size
        self.reader = ShardReader(self.path, FORMAT, verify)
        kept = self._kept(Keep(keep)) if keep else self.reader.samples
        clips = [_clip(stored) for stored in kept]
        if caption:
            clips = self._recaptioned(clips, caption)
        long = [clip for clip in clips if clip.num_frames >= min_frames]
        self.too_short = len(clips) - len(long)
        if not long:
            raise ShardError(
                f"{path} holds no clip of {min_frames} frames or more"
                f"{f' that {keep!r} keeps' if keep else ''}; lower min_frames or "
                "prepare longer clips"
            )
        sources = set(map(_source, self.reader.samples))
        self.unused_sources = sources - {clip.source for clip in long}
        held = held_out(sources, seed)
        self._clips = of_split(long, [clip.source in held for clip in long], split)

    @property
    def fps(self) -> float:
        """The most common rate, where the clips kept the rates of their videos."""
        return Counter(clip.fps for clip in self._clips).most_common(1)[0][0]

    @property
    def captions(self) -> list[str]:
        """The distinct captions of this split, sorted."""
        return sorted({caption for clip in self._clips for caption in clip.captions} - {""})

    @property
    def shortest(self) -> int | None:
        return min(clip.num_frames for clip in self._clips)

    def __len__(self) -> int:
        return len(self._clips)

    def length(self, index: int) -> int:
        """Return how many frames a clip has."""
        return self._clips[index].num_frames

    def stored(self, index: int) -> Stored:
        """Return where a clip lies, with all that is written about it."""
        return self._clips[index].stored

    def video(self, index: int) -> bytes:
        """Return the whole video of a clip as it lies in its shard."""
        return self.reader.read(self._clips[index].stored, "mp4")

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
        name = f"clip {clip.stored}"
        decoded = frames_from(self.reader.read(clip.stored, "mp4"), place.start, clip.fps)
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

    def _kept(self, keep: Keep) -> list[Stored]:
        """Return the clips that a condition keeps; those that cannot be read have no scores."""
        scores = self.reader.scores()
        readable = [s for s in self.reader.samples if "error" not in scores[str(s)]]
        same = duplicates([str(scores[str(sample)]["hash"]) for sample in readable])
        kept = []
        for sample, duplicate in zip(readable, same, strict=True):
            known = scores[str(sample)] | {"duplicate": int(duplicate)}
            numbers = {k: v for k, v in known.items() if isinstance(v, int | float)}
            if keep(numbers):
                kept.append(sample)
        return kept

    def _recaptioned(self, clips: list[_Clip], name: str) -> list[_Clip]:
        scores = self.reader.scores()
        rows = [scores[str(clip.stored)] for clip in clips]
        if lacking := [row for row in rows if not {name, "error"} & row.keys()]:
            raise ShardError(
                f"{self.path} has clips without {name!r}, but with "
                f"{', '.join(sorted(lacking[0]))}; run data.curate with the captioner"
            )
        said = [(str(row.get(name, "")),) for row in rows]
        return [clip._replace(captions=c) for clip, c in zip(clips, said, strict=True)]

    def _actions(self, clip: _Clip, place: Place, num_frames: int) -> Float32[Tensor, "T A"] | None:
        if "actions.npy" not in clip.stored.entry.files:
            return None
        if place.stride > 1:
            raise ValueError(
                f"stride is {place.stride}, but clip {clip.key} has an action for every "
                "frame; use strides [1]"
            )
        rows = self.reader.read_array(clip.stored, "actions.npy")
        return torch.from_numpy(rows[place.start : place.start + num_frames].astype(np.float32))


def _clip(stored: Stored) -> _Clip:
    meta, key = stored.entry.meta, stored.entry.key
    try:
        captions = tuple(map(str, meta.get("captions", ()))) or ("",)
        num_frames, fps = int(meta["num_frames"]), float(meta["fps"])
    except (KeyError, TypeError, ValueError) as error:
        raise ShardError(
            f"clip {stored} does not say its num_frames and fps ({error!r}); "
            "make the shard with data.prepare"
        ) from error
    return _Clip(stored, key, num_frames, fps, captions, _source(stored))


def _source(stored: Stored) -> str:
    """Return the video that a clip was cut from."""
    return str(stored.entry.meta.get("source", stored.entry.key))
