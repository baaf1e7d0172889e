"""What a collection of clips is to the rest of the code: an index, a window, a caption."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from jaxtyping import Float32, UInt8
from torch import Tensor


class Place(NamedTuple):
    """Where a clip was cut: frames `start`, `start` + `stride`, ... of the video named `key`."""

    key: str
    start: int
    stride: int


class Sample(NamedTuple):
    """One training clip as it comes off the disk: uint8 frames and what is said about them.

    Row k of `actions` is the action that leads to frame k; None where nobody acted. Row k of
    `features` says of latent frame k what a prior is to be told, such as how loud its time is.
    """

    frames: UInt8[Tensor, "T H W 3"]
    caption: str
    place: Place
    actions: Float32[Tensor, "T A"] | None = None
    features: Float32[Tensor, "t F"] | None = None


class ClipSource(ABC):
    """A collection of videos from which clips are cut.

    Reading is a pure function of its arguments, so that a training batch depends on the step
    number alone and a resumed run sees what an uninterrupted one sees.
    """

    @property
    @abstractmethod
    def fps(self) -> float:
        """Frames per second of the clips that `read` returns."""

    @property
    @abstractmethod
    def captions(self) -> list[str]:
        """Every caption of the collection; empty where it has none."""

    @property
    def shortest(self) -> int | None:
        """Frames of the shortest clip; None where clips are as long as they are asked for."""
        return None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def place(self, index: int, num_frames: int, offset: float = 0.0, stride: int = 1) -> Place:
        """Say what `read` would cut, without decoding anything."""

    @abstractmethod
    def read(self, index: int, num_frames: int, offset: float = 0.0, stride: int = 1) -> Sample:
        """Cut one clip.

        Args:
            index: Which video, 0 to `len(self) - 1`.
            num_frames: Length of the clip.
            offset: Where the window starts, in [0, 1): 0 is the earliest admissible start, values
                near 1 the latest. Sources whose caption speaks of the first frame ignore it.
            stride: Every how many frames to take; lowered where the video is too short for it.
        """


def fit_window(length: int, num_frames: int, offset: float, stride: int) -> tuple[int, int]:
    """Lay `num_frames` frames into a video of `length`; return the start and the stride used.

    The stride is the widest up to `stride` that the video has frames for.
    """
    if not 0 <= offset < 1:
        raise ValueError(f"offset is {offset}, but must be in [0, 1)")
    if stride < 1:
        raise ValueError(f"stride is {stride}, but must be at least 1")
    if not 1 <= num_frames <= length:
        raise ValueError(f"num_frames is {num_frames}, but the video has {length} frames")
    stride = min(stride, (length - 1) // max(1, num_frames - 1)) if num_frames > 1 else 1
    room = length - 1 - stride * (num_frames - 1)
    return int(offset * (room + 1)), stride
