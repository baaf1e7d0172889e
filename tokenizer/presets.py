"""Named sizes of the tokenizer, all 4 x 8 x 8: T = 1 + 4 k frames, 8 x 8 pixels to a token."""

from typing import Any

from tokenizer.bottleneck import Bottleneck
from tokenizer.model import Tokenizer

PRESETS: dict[str, dict[str, Any]] = {
    # The demo's: coarse patches at once, so that a laptop trains it in minutes.
    "tiny": {
        "patch": [2, 4],
        "channels": [128, 256],
        "strides": [[2, 2]],
        "encoder_depths": [1, 2],
        "decoder_depths": [2, 3],
    },
    "small": {
        "patch": [2, 2],
        "channels": [96, 192, 512],
        "strides": [[1, 2], [2, 2]],
        "encoder_depths": [1, 2, 2],
        "decoder_depths": [2, 2, 3],
        "temporal_window": 8,
    },
    "base": {
        "patch": [2, 2],
        "channels": [192, 384, 768],
        "strides": [[1, 2], [2, 2]],
        "encoder_depths": [2, 2, 4],
        "decoder_depths": [3, 3, 5],
        "spatial_attention": True,
        "temporal_window": 8,
    },
}


def preset(name: str, quantizer: Bottleneck) -> Tokenizer:
    """Return a fresh tokenizer of a named size.

    Args:
        name: "tiny", "small" or "base".
        quantizer: Its bottleneck.
    """
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}; choose one of {sorted(PRESETS)}")
    return Tokenizer(quantizer, **PRESETS[name])
