"""The real clips of a protocol: which video, from which frame, in which order.

Everything is decided before the first frame is decoded, so that a folder that cannot serve is
refused at once.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from data.source import Sample
from evaluation.protocols import Protocol
from evaluation.real_videos import Opened, RealVideo, open_videos


class Unit(NamedTuple):
    """What one context stands for: its real clips, and what is said about them.

    Row k of `actions` is the action that leads to frame k of the first clip.
    """

    real: UInt8[Tensor, "W T H W2 3"]
    caption: str
    actions: Float[Tensor, "T A"] | None


class Reference:
    """The units of a protocol.

    Args:
        protocol: Says which clips.
        data: The benchmark as it was given out (`real_videos.ORIGINAL`), shards of `data.prepare`,
            `data.record` or `data.benchmark_sets`, or a folder of videos (avi, gif, mkv, mov, mp4,
            webm) or of uint8 arrays T x H x W x 3 (.npy, or .npz with `frames` and perhaps
            `actions`, a row for the action that leads to each frame); None for a built-in data
            set. In a folder, `name.txt` or the "caption" of `name.json` beside a video is its
            caption, and the folder it lies in is its class.
        size: Side of the frames.
        num_clips: Fewer units than the protocol says, or None.
        seed: Draws videos and windows.
    """

    def __init__(
        self,
        protocol: Protocol,
        data: Path | Opened | None,
        size: int,
        num_clips: int | None,
        seed: int,
    ) -> None:
        self.protocol, self.size = protocol, size
        opened = data if isinstance(data, Opened) else open_videos(protocol, data, size, num_clips)
        self.kind, self.videos = opened.kind, _long_enough(opened.videos, protocol)
        self.notes = opened.notes
        wanted = num_clips or protocol.num_clips or len(self.videos)
        self.order, self.offsets = _draw(protocol, self.videos, wanted, seed)

    def __len__(self) -> int:
        return len(self.order)

    def read(self, unit: int) -> Unit:
        """Decode the clips of a unit."""
        video = self.videos[self.order[unit]]
        starts = _starts(self.protocol, video.num_frames, self.offsets[unit])
        sample = _decode(video, starts[-1] + self.protocol.span, self.size)
        stride, length = self.protocol.frame_stride, self.protocol.span
        clips = torch.stack([sample.frames[start : start + length : stride] for start in starts])
        if self.protocol.grey:
            grey = clips.float().mean(-1, keepdim=True).round().to(torch.uint8)
            clips = grey.expand(-1, -1, -1, -1, 3).contiguous()
        actions = sample.actions
        if actions is not None:
            actions = actions[starts[0] : starts[0] + length : stride]
        return Unit(clips, sample.caption, actions)


class FirstClips:
    """The first real clip of each unit, read when it is asked for."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference

    def __iter__(self) -> Iterator[UInt8[Tensor, "T H W 3"]]:
        return map(self.__getitem__, range(len(self.reference)))

    def __getitem__(self, unit: int) -> UInt8[Tensor, "T H W 3"]:
        return self.reference.read(unit).real[0]


def _decode(video: RealVideo, end: int, size: int) -> Sample:
    sample = video.read(end, size)
    if len(sample.frames) < end:
        raise ValueError(
            f"{video.name} says it has at least {end} frames, but {len(sample.frames)} came out; "
            "replace it"
        )
    return sample


def _long_enough(videos: list[RealVideo], protocol: Protocol) -> list[RealVideo]:
    needed = protocol.span + protocol.windows - 1
    short = [video for video in videos if video.num_frames < needed]
    if short:
        names = ", ".join(f"{video.name} ({video.num_frames})" for video in short[:5])
        raise ValueError(
            f"{len(short)} of {len(videos)} videos have fewer than the {needed} frames that "
            f"{protocol.name} needs: {names}; replace them or take them out"
        )
    return videos


def _draw(
    protocol: Protocol, videos: Sequence[RealVideo], wanted: int, seed: int
) -> tuple[list[int], list[float]]:
    """Choose the video of each unit, and where in it the clip begins, in [0, 1)."""
    if protocol.draw != "repeat" and len(videos) < wanted:
        raise ValueError(
            f"{protocol.name} needs {wanted} videos, but there are {len(videos)}; give the whole "
            f"split, or --clips {len(videos)}, whose numbers stand beside no published ones"
        )
    rng = np.random.default_rng((seed, 7))
    if protocol.draw == "each":
        order = np.arange(wanted)
    elif protocol.draw == "sample":
        order = rng.permutation(len(videos))[:wanted]
    else:
        order = rng.integers(len(videos), size=wanted)
    offsets = rng.random(wanted) if protocol.start == "random" else np.zeros(wanted)
    return order.tolist(), offsets.tolist()


def _starts(protocol: Protocol, num_frames: int, offset: float) -> list[int]:
    room = num_frames - protocol.span
    if protocol.windows == 1:
        return [int(offset * (room + 1))]
    return [round(i * room / (protocol.windows - 1)) for i in range(protocol.windows)]
