"""What makes two benchmark numbers the same benchmark: every choice that a protocol fixes."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from evaluation.extractors import Resize
from evaluation.frechet import Covariance

Layout = Literal["", "bair", "davis", "kinetics600", "kth", "mnist", "moving-mnist", "ucf101-train"]


@dataclass(frozen=True)
class Protocol:
    """How a benchmark is run.

    Args:
        name: Its name on the command line.
        task: Go on from a context, make clips from nothing but a caption or class, or pass clips
            through the tokenizer.
        data: Which videos DATA must hold.
        num_frames: Length of the clips that are compared.
        size: Height and width; None is the model's own.
        context_frames: How many of the frames are given.
        frame_stride: Every how many frames of a video are taken.
        num_clips: Contexts, or real clips; None is one for each video.
        draw: One clip of each of the first videos ("each"), of videos drawn without ("sample") or
            with repetition ("repeat"), or as many of each as of any other ("spread").
        start: Where a clip begins: at the first frame, or at a random one.
        windows: Real clips from each video, evenly placed, in the reference set; the first of them
            gives the context.
        samples: Generated clips for each context.
        sets: Compare all samples with the reference at once ("pooled"), or each of the `samples`
            trials alone, and average ("per_trial").
        frames: Average frame metrics over samples, or take the best sample of each context.
        condition: What the model is told.
        grey: Whether the pictures have one channel, repeated three times.
        fit: How frames become square: the short side resized and the long one cut ("crop"), or both
            resized ("stretch").
        split: Of shards and folders: all videos, or those alone that training holds out ("val").
        resize: How I3D's input comes to 224 pixels.
        covariance: Divide by N - 1 ("unbiased") or N ("population").
        source: Whose numbers it can stand beside.
        built_in: A data set that is drawn, and needs no folder.
        layout: The files of which benchmark are known as they were given out (`video_sets`).
    """

    name: str
    task: Literal["predict", "generate", "reconstruct"]
    data: str
    num_frames: int
    size: int | None
    context_frames: int = 0
    frame_stride: int = 1
    num_clips: int | None = None
    draw: Literal["each", "sample", "repeat", "spread"] = "each"
    start: Literal["first", "random"] = "first"
    windows: int = 1
    samples: int = 1
    sets: Literal["pooled", "per_trial"] = "pooled"
    frames: Literal["mean", "best"] = "mean"
    condition: Literal["none", "caption", "class", "actions"] = "none"
    grey: bool = False
    fit: Literal["crop", "stretch"] = "crop"
    split: Literal["all", "val"] = "all"
    resize: Resize = "script"
    covariance: Covariance = "population"
    source: str = ""
    built_in: Literal["", "shapes", "digits"] = ""
    layout: Layout = ""

    def __post_init__(self) -> None:
        if (self.task == "predict") != (0 < self.context_frames < self.num_frames):
            raise ValueError(
                f"{self.name}: context_frames is {self.context_frames} of {self.num_frames}; "
                "prediction needs some but not all, any other task none"
            )

    @property
    def span(self) -> int:
        """Frames of a video that one clip reaches over."""
        return 1 + (self.num_frames - 1) * self.frame_stride

    @property
    def is_open(self) -> bool:
        """Whether it is for any videos: no benchmark says which and how many."""
        return not self.layout and not self.built_in and self.num_clips is None

    def as_dict(self) -> dict[str, Any]:
        """Return all fields, for the stamp."""
        return asdict(self)
