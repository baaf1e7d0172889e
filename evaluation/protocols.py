"""Benchmarks as data: what is shown, what is predicted, what is counted. No code a protocol.

Two numbers may stand side by side only if every field here is the same. Sources of the variants:
VideoGPT (Yan et al. 2021, arXiv 2104.10157), MAGVIT (Yu et al. 2023, arXiv 2212.05199), FitVid
(Babaeizadeh et al. 2021, arXiv 2106.13195), StyleGAN-V (Skorokhodov et al. 2022, arXiv 2112.14683),
TATS (Ge et al. 2022, arXiv 2204.03638), LARP (Wang et al. 2024, arXiv 2410.21264), MCVD (Voleti et
al. 2022, arXiv 2205.09853), OpenSTL (Tan et al. 2023, arXiv 2306.11249).
"""

from dataclasses import replace

from evaluation.protocol import Protocol

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
    "KTH actions, persons 21 to 25",
    num_frames=40,
    size=64,
    context_frames=10,
    num_clips=256,
    draw="spread",
    start="random",
    samples=10,
    sets="per_trial",
    frames="best",
    grey=True,
    fit="stretch",
    resize="short_centre",
    covariance="unbiased",
    source="MCVD: 10 -> 30, the best of 10 samples a context, FVD as the mean of 10 trials",
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
)
_ROLLOUTS = Protocol(
    "rollouts",
    "predict",
    "roll-outs of a robot or a game with their actions, as data.record writes them",
    split="val",
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
            data="MNIST, whose test digits leave every wall in a new direction",
            num_frames=15,
            context_frames=5,
            num_clips=256,
            samples=10,
            sets="per_trial",
            frames="best",
            resize="short_centre",
            covariance="unbiased",
            source="MCVD: 5 -> 10, the best of 10 samples a context, FVD as the mean of 10 trials",
            layout="mnist",
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
