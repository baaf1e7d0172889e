"""Benchmarks as data: what is shown, what is predicted, what is counted. No code a protocol.

Two numbers may stand side by side only if every field here is the same. Sources of the variants:
VideoGPT (Yan et al. 2021, arXiv 2104.10157), MAGVIT (Yu et al. 2023, arXiv 2212.05199), FitVid
(Babaeizadeh et al. 2021, arXiv 2106.13195), StyleGAN-V (Skorokhodov et al. 2022, arXiv 2112.14683),
TATS (Ge et al. 2022, arXiv 2204.03638), LARP (Wang et al. 2024, arXiv 2410.21264), MCVD (Voleti et
al. 2022, arXiv 2205.09853), OpenSTL (Tan et al. 2023, arXiv 2306.11249).
"""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from evaluation.extractors import Resize
from evaluation.frechet import Covariance

Layout = Literal["", "bair", "davis", "kinetics600", "kth", "moving-mnist", "ucf101-train"]


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
            with repetition ("repeat").
        start: Where a clip begins: at the first frame, or at a random one.
        windows: Real clips from each video, evenly placed, in the reference set; the first of them
            gives the context.
        samples: Generated clips for each context.
        sets: Compare all samples with the reference at once ("pooled"), or each of the `samples`
            trials alone, and average ("per_trial").
        frames: Average frame metrics over samples, or take the best sample of each context.
        condition: What the model is told.
        grey: Whether the pictures have one channel, repeated three times.
        resize: How I3D's input comes to 224 pixels.
        covariance: Divide by N - 1 ("unbiased") or N ("population").
        source: Whose numbers it can stand beside.
        built_in: A data set that is drawn, and needs no folder.
        layout: The files of which benchmark are known as they were given out (`real_videos`).
    """

    name: str
    task: Literal["predict", "generate", "reconstruct"]
    data: str
    num_frames: int
    size: int | None
    context_frames: int = 0
    frame_stride: int = 1
    num_clips: int | None = None
    draw: Literal["each", "sample", "repeat"] = "each"
    start: Literal["first", "random"] = "first"
    windows: int = 1
    samples: int = 1
    sets: Literal["pooled", "per_trial"] = "pooled"
    frames: Literal["mean", "best"] = "mean"
    condition: Literal["none", "caption", "class", "actions"] = "none"
    grey: bool = False
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

    def as_dict(self) -> dict[str, Any]:
        """Return all fields, for the stamp."""
        return asdict(self)


_BAIR = Protocol(
    "bair",
    "predict",
    "BAIR robot pushing, the 256 test videos of 30 frames, camera aux1",
    num_frames=16,
    size=64,
    context_frames=1,
    num_clips=256,
    samples=100,
    frames="best",
    resize="stretch",
    covariance="unbiased",
    source="FitVid, MAGVIT, iVideoGPT: 25,600 samples against 256 clips in one FVD",
    layout="bair",
)
_KINETICS = Protocol(
    "kinetics600",
    "predict",
    "Kinetics-600, validation videos",
    num_frames=16,
    size=64,
    context_frames=5,
    num_clips=50_000,
    draw="repeat",
    start="random",
    covariance="unbiased",
    source="LARP: 50,000 samples, FVD over all 16 frames",
    layout="kinetics600",
)
_UCF = Protocol(
    "ucf101",
    "generate",
    "UCF-101, all 9,537 training videos of split 1, in a folder a class",
    num_frames=16,
    size=128,
    num_clips=10_000,
    draw="repeat",
    start="random",
    condition="class",
    covariance="unbiased",
    source="MAGVIT, LARP: 10,000 samples, train",
    layout="ucf101-train",
)
_KTH = Protocol(
    "kth",
    "predict",
    "KTH actions, persons 17 to 25",
    num_frames=40,
    size=64,
    context_frames=10,
    num_clips=256,
    draw="sample",
    start="random",
    samples=10,
    grey=True,
    source="MCVD: 10 -> 30, 10 samples a context",
    layout="kth",
)
_MNIST = Protocol(
    "moving-mnist",
    "predict",
    "Moving MNIST, the 10,000 sequences of the fixed test file",
    num_frames=20,
    size=64,
    context_frames=10,
    num_clips=10_000,
    grey=True,
    source="OpenSTL: 10 -> 10, MSE and MAE summed over pixels",
    layout="moving-mnist",
)
_RECONSTRUCTION = Protocol(
    "reconstruction",
    "reconstruct",
    "any folder of videos",
    num_frames=17,
    size=None,
    source="",
)
_ROLLOUTS = Protocol(
    "rollouts",
    "predict",
    "roll-outs of a robot or a game with their actions, as data.record writes them",
    num_frames=17,
    size=None,
    context_frames=5,
    condition="actions",
)
_SHAPES = Protocol(
    "captioned-shapes",
    "predict",
    "captioned shapes, validation split",
    num_frames=17,
    size=64,
    context_frames=5,
    num_clips=256,
    condition="caption",
    built_in="shapes",
)

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        _BAIR,
        replace(
            _BAIR,
            name="bair-videogpt",
            start="random",
            samples=10,
            sets="per_trial",
            frames="mean",
            resize="short_centre",
            source="VideoGPT: 256 samples against 256 random windows, the mean of 10 trials",
        ),
        replace(
            _BAIR,
            name="bair-debiased",
            windows=15,
            source="MAGVIT, numbers in brackets: 25,600 samples against 3,840 clips",
        ),
        replace(_BAIR, name="bair-actions", condition="actions", source="FitVid, iVideoGPT"),
        _KINETICS,
        _UCF,
        replace(
            _UCF,
            name="ucf101-tats",
            num_clips=2048,
            draw="sample",
            resize="stretch",
            covariance="unbiased",
            source="TATS, OmniTokenizer: 2,048 samples, train",
        ),
        replace(
            _UCF,
            name="ucf101-styleganv",
            data="UCF-101, all 13,320 videos, in a folder a class",
            num_clips=2048,
            draw="sample",
            covariance="population",
            source="StyleGAN-V, DIGAN, Latte: 2,048 samples, train and test",
            layout="",
        ),
        _MNIST,
        replace(
            _MNIST,
            name="moving-mnist-stochastic",
            num_frames=15,
            context_frames=5,
            num_clips=256,
            samples=10,
            source="MCVD: 5 -> 10, 10 samples a context",
        ),
        _KTH,
        _RECONSTRUCTION,
        replace(
            _RECONSTRUCTION,
            name="reconstruction-ucf101",
            data="UCF-101, all 9,537 training videos of split 1",
            num_frames=16,
            size=128,
            covariance="unbiased",
            source="LARP, MAGVIT: rFVD on train",
            layout="ucf101-train",
        ),
        replace(
            _RECONSTRUCTION,
            name="reconstruction-mcl-jcv",
            data="MCL-JCV, all 30 videos",
            size=256,
            num_clips=30,
            source="VidTok: 17 frames of 256 x 256 pixels",
        ),
        replace(
            _RECONSTRUCTION,
            name="reconstruction-davis",
            data="DAVIS 2017, all sequences at 480p",
            size=256,
            layout="davis",
        ),
        _ROLLOUTS,
        _SHAPES,
        replace(
            _SHAPES,
            name="captioned-shapes-generate",
            task="generate",
            context_frames=0,
        ),
        replace(
            _SHAPES,
            name="moving-digits",
            data="moving digits, test split",
            condition="none",
            built_in="digits",
            grey=True,
        ),
    )
}


def find(name: str) -> Protocol:
    """Return a protocol by name."""
    if name not in PROTOCOLS:
        raise ValueError(f"{name!r} is no protocol; known are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
