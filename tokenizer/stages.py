"""Training in stages: weights to start from, and parts that keep them."""

from pathlib import Path
from typing import Literal

from layers.configurable import build
from tokenizer.inflation import inflate, spatial_parameters
from tokenizer.model import Tokenizer

Trained = Literal["all", "decoder", "temporal"]
"""Which part of a tokenizer learns."""


def freeze(tokenizer: Tokenizer, trained: Trained) -> None:
    """Take the gradient from all parameters but those of the trained part."""
    if trained == "decoder":
        tokenizer.encoder.requires_grad_(False)
        tokenizer.quantizer.requires_grad_(False)
    elif trained == "temporal":
        for name in spatial_parameters(tokenizer):
            tokenizer.get_parameter(name).requires_grad_(False)


def start(tokenizer: Tokenizer, folder: Path, trained: Trained = "all") -> None:
    """Load the weights of a model folder; inflate them where they are an image tokenizer's.

    Raises:
        ValueError: The folder is damaged or holds another kind of tokenizer; or only the decoder is
            trained, and the tokens would not be those of the folder.
    """
    source = Tokenizer.from_pretrained(folder)
    if not source.calibrated:
        raise ValueError(f"the tokenizer in {folder} was never trained; give one that was")
    if _sees_less_time(source, tokenizer):
        image, source = source, build(tokenizer.config)
        inflate(image, source)
    try:
        tokenizer.load_state_dict(source.state_dict())
    except RuntimeError as error:
        raise ValueError(
            f"the tokenizer in {folder} does not fit this one: {error}; use its arguments, which "
            "its config.json holds"
        ) from error
    if trained == "decoder":
        take_name(tokenizer, source, str(folder))


def take_name(tokenizer: Tokenizer, source: Tokenizer, place: str) -> None:
    """Let a tokenizer that makes the tokens of another one have its fingerprint.

    Arguments of the quantizer's training, and defaults spelled out, are in the fingerprint and
    change no token: a prior of the first stage has to take the second. They become the source's.

    Args:
        tokenizer: Its decoder alone is its own.
        source: Where the rest comes from; only its arguments are looked at.
        place: Where that lies, for the error.

    Raises:
        ValueError: The tokens would be others.
    """
    if not tokenizer.makes_the_tokens_of(source):
        raise ValueError(
            f"the tokenizer in {place} makes other tokens than this one with the same weights; "
            "give this one its quantizer, patch, wavelet and temporal_window"
        )
    own = {"decoder_depths": tokenizer.config["arguments"]["decoder_depths"]}
    tokenizer.config = {**source.config, "arguments": {**source.config["arguments"], **own}}
    tokenizer.quantizer.config = source.quantizer.config


def _sees_less_time(image: Tokenizer, video: Tokenizer) -> bool:
    """Say whether one has no temporal stride, and the other has, or attention over time alone."""
    attentive = video.layout.temporal_window > 0 == image.layout.temporal_window
    return image.temporal_stride == 1 and (video.temporal_stride > 1 or attentive)
