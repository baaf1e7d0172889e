"""The real clips of a protocol: which video, from which frame, in which order.

Everything is decided before the first frame is decoded, so that a folder that cannot serve is
refused at once.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from data.resizing import resized
from data.source import Sample
from evaluation.protocol import Protocol
from evaluation.real_videos import RealVideo
from evaluation.video_sets import Opened


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
        opened: The videos that they are cut from. Where nothing says which they must be, too short
            ones are left out.
        size: Side of the frames.
        num_clips: Fewer units than the protocol says, or None.
        seed: Draws videos and windows.
    """

    def __init__(
        self,
        protocol: Protocol,
        opened: Opened,
        size: int,
        num_clips: int | None,
        seed: int,
    ) -> None:
        self.protocol, self.size, self.kind = protocol, size, opened.kind
        self.fps = opened.fps / protocol.frame_stride
        self.videos, short = _long_enough(opened.videos, protocol)
        self.notes, self.deviations = [*opened.notes, *short], [*opened.deviations]
        wanted = num_clips or protocol.num_clips or len(self.videos)
        self.order, self.offsets = _draw(protocol, len(self.videos), wanted, seed)

    def __len__(self) -> int:
        return len(self.order)

    def read(self, unit: int) -> Unit:
        """Decode the clips of a unit."""
        video = self.videos[self.order[unit]]
        starts = _starts(self.protocol, video.num_frames, self.offsets[unit])
        sample = _decode(video, starts[-1] + self.protocol.span, self.size, self.protocol.fit)
        stride, length = self.protocol.frame_stride, self.protocol.span
        clips = torch.stack([sample.frames[start : start + length : stride] for start in starts])
        if self.protocol.grey:
            clips = greyed(clips)
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


def greyed(clips: UInt8[Tensor, "*B 3"]) -> UInt8[Tensor, "*B 3"]:
    """Put the mean of the three channels into each."""
    grey = clips.float().mean(-1, keepdim=True).round().to(torch.uint8)
    return grey.expand(clips.shape).contiguous()


def _decode(video: RealVideo, end: int, size: int, fit: str) -> Sample:
    sample = video.read(end, size if fit == "crop" else None)
    if fit == "stretch":
        sample = sample._replace(frames=resized(sample.frames, size, size))
    if len(sample.frames) < end:
        raise ValueError(
            f"{video.name} says it has at least {end} frames, but {len(sample.frames)} came out; "
            "replace it"
        )
    return sample


def _long_enough(videos: list[RealVideo], protocol: Protocol) -> tuple[list[RealVideo], list[str]]:
    """Return the videos that clips fit into, and what to say of the others."""
    needed = protocol.span + protocol.windows - 1
    short = [video for video in videos if video.num_frames < needed]
    if not short:
        return videos, []
    names = ", ".join(f"{video.name} ({video.num_frames})" for video in short[:5])
    told = f"{len(short)} of {len(videos)} videos have fewer than the {needed} frames that "
    told += f"{protocol.name} needs: {names}"
    if protocol.is_open and len(short) < len(videos):
        return [video for video in videos if video.num_frames >= needed], [f"left out: {told}"]
    raise ValueError(f"{told}; replace them or take them out")


def _draw(
    protocol: Protocol, num_videos: int, wanted: int, seed: int
) -> tuple[list[int], list[float]]:
    """Choose the video of each unit, and where in it the clip begins, in [0, 1)."""
    if protocol.draw in ("each", "sample") and num_videos < wanted:
        raise ValueError(
            f"{protocol.name} needs {wanted} videos, but there are {num_videos}; give the whole "
            f"split, or --clips {num_videos}, whose numbers stand beside no published ones"
        )
    rng = np.random.default_rng((seed, 7))
    if protocol.draw == "each":
        order = np.arange(wanted)
    elif protocol.draw == "sample":
        order = rng.permutation(num_videos)[:wanted]
    elif protocol.draw == "spread":
        order = np.linspace(0, num_videos - 1, wanted).round().astype(int)
    else:
        order = rng.integers(num_videos, size=wanted)
    offsets = rng.random(wanted) if protocol.start == "random" else np.zeros(wanted)
    return order.tolist(), offsets.tolist()


def _starts(protocol: Protocol, num_frames: int, offset: float) -> list[int]:
    room = num_frames - protocol.span
    if protocol.windows == 1:
        return [int(offset * (room + 1))]
    return [round(i * room / (protocol.windows - 1)) for i in range(protocol.windows)]
