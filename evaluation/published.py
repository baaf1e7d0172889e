"""Numbers of papers, by protocol: shown beside ours only where the protocol is the same.

"paper" is the method's own paper or code; "via" names the paper that reports it.
"""

from typing import NamedTuple


class Published(NamedTuple):
    """One number of one method."""

    method: str
    figure: str
    value: float
    source: str


def _rows(figure: str, table: dict[str, tuple[float, str]]) -> list[Published]:
    return [Published(method, figure, value, source) for method, (value, source) in table.items()]


_MAGVIT = "via MAGVIT, Table 11"

PUBLISHED: dict[str, list[Published]] = {
    "bair": _rows(
        "fvd",
        {
            "LVT": (126.0, _MAGVIT),
            "DVD-GAN-FP": (110.0, _MAGVIT),
            "VideoGPT": (103.0, _MAGVIT),
            "TrIVD-GAN-FP": (103.0, _MAGVIT),
            "Transframer": (100.0, _MAGVIT),
            "CCVS": (99.0, _MAGVIT),
            "Phenaki": (97.0, _MAGVIT),
            "Video Transformer": (94.0, _MAGVIT),
            "MaskViT": (94.0, _MAGVIT),
            "FitVid": (94.0, _MAGVIT),
            "MCVD": (90.0, _MAGVIT),
            "RaMViD": (84.0, _MAGVIT),
            "MAGVIT-B": (76.0, "paper"),
            "MAGVIT-L": (62.0, "paper"),
        },
    ),
    "bair-debiased": _rows(
        "fvd",
        {
            "MAGVIT-B, autoregressive": (56.0, "paper, ablation"),
            "MAGVIT-B": (48.0, "paper"),
            "MAGVIT-L": (31.0, "paper"),
        },
    ),
    "kinetics600": _rows(
        "fvd",
        {
            "OmniTokenizer, autoregressive": (32.9, "via LARP, Table 1"),
            "LARP 343 M": (6.2, "paper"),
            "LARP 632 M": (5.1, "paper"),
        },
    ),
    "ucf101": _rows(
        "fvd",
        {
            "MAGVIT, autoregressive": (265.0, "via LARP, Table 1"),
            "MAGVIT-B": (159.0, "paper"),
            "LARP 343 M": (102.0, "paper"),
            "MAGVIT-L": (76.0, "paper"),
            "MAGVIT-v2": (58.0, "via LARP, Table 1"),
            "LARP 632 M": (57.0, "paper"),
        },
    ),
    "ucf101-tats": _rows("fvd", {"TATS": (332.0, "via MAGVIT, Table 10")}),
    "reconstruction-ucf101": _rows(
        "fvd",
        {
            "MAGVIT-B": (58.0, "paper"),
            "MAGVIT-L": (25.0, "paper"),
            "LARP-L": (24.0, "paper"),
            "LARP-L-Long": (20.0, "paper"),
        },
    ),
}
