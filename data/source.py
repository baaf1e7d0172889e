"""What a collection of clips is to the rest of the code: an index, a window, a caption."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from jaxtyping import UInt8
from torch import Tensor


class Sample(NamedTuple):
    """One training clip as it comes off the disk: uint8 frames and what is said about them."""

    frames: UInt8[Tensor, "T H W 3"]
    caption: str


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

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, index: int, num_frames: int, offset: float = 0.0) -> Sample:
        """Cut one clip.

        Args:
            index: Which video, 0 to `len(self) - 1`.
            num_frames: Length of the clip.
            offset: Where the window starts, in [0, 1): 0 is the earliest admissible start, values
                near 1 the latest. Sources whose caption speaks of the first frame ignore it.
        """
