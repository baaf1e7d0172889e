"""How a stream of tokens is cut into the windows that a diffusion decoder samples at once.

A window of n latent frames that begins at latent frame j holds frames s j to s (j + n - 1): the
last frame that its first latent frame stands for, and all of the others'. So every window has
1 + s (n - 1) frames, like a clip of its own, and neighbours share those of their overlap.
"""

from collections.abc import Iterable, Iterator
from itertools import tee
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

IMAGES_ONLY = "this decoder is for images; train one with a window of 2 or more"


@runtime_checkable
class PixelDecoder(Protocol):
    """What a diffusion decoder asks of the tokenizer that it belongs to."""

    temporal_stride: int
    spatial_stride: int

    @property
    def codebook_size(self) -> int: ...

    def fingerprint(self) -> str: ...

    def decoder_fingerprint(self) -> str: ...

    def check_tokens(self, tokens: Tensor, /) -> None: ...

    def stream_encode(self, clips: Iterable[Tensor], /) -> Iterator[Tensor]: ...

    def stream_decode(self, tokens: Iterable[Tensor]) -> Iterator[Tensor]: ...


def require_sizes(tokenizer: PixelDecoder, codebook_size: int, strides: list[int]) -> None:
    """Raise ValueError where a decoder of these sizes cannot read a tokenizer's tokens."""
    sizes = tokenizer.codebook_size, [tokenizer.temporal_stride, tokenizer.spatial_stride]
    if sizes != (codebook_size, list(strides)):
        raise ValueError(
            f"the decoder has codebook_size {codebook_size} and strides {list(strides)}, but its "
            f"tokenizer {sizes[0]} and {sizes[1]}; set them to that"
        )


class Window(NamedTuple):
    """Latent frames that are decoded at once.

    Args:
        tokens: Of all its latent frames.
        base: What the CNN makes of them, or nothing.
        num_known: How many latent frames, from the first on, are decoded already.
        first: Number of its first latent frame in the stream.
    """

    tokens: Int[Tensor, "B n h w"]
    base: Float[Tensor, "B 3 T H W"]
    num_known: int
    first: int


def cut(
    chunks: Iterable[tuple[Int[Tensor, "B _ h w"], Float[Tensor, "B 3 _ H W"]]],
    size: int,
    overlap: int,
    stride: int,
    num_known: int = 0,
) -> Iterator[Window]:
    """Cut a stream into windows, each as soon as it is full, the same for chunks of any size.

    The last window begins earlier where it would not be full; a clip shorter than a window is one.

    Args:
        chunks: Latent frames with the frames they stand for.
        size: Latent frames of a window.
        overlap: How many of them the window before has decoded, 1 to `size` - 1; of images none.
        stride: Temporal stride s of the tokenizer.
        num_known: Latent frames at the start of the stream that are decoded already.

    Raises:
        ValueError: Windows of single frames would have to cover a video.
    """
    tokens: Tensor | None = None
    base: Tensor | None = None
    start, done, end = 0, num_known, 0  # latent frames: the first kept, the first to do, all so far
    for chunk, frames in chunks:
        tokens = chunk if tokens is None else torch.cat([tokens, chunk], dim=1)
        base = frames if base is None else torch.cat([base, frames], dim=2)
        end = start + tokens.shape[1]
        if size == 1 < end:
            raise ValueError(IMAGES_ONLY)
        while done < (begin := max(0, done - overlap)) + size <= end:
            part = _part(tokens, base, begin - start, size, stride)
            yield Window(*part, done - begin, begin)
            done = begin + size
            # What the last window may need: all but one latent frame of a window.
            kept = max(start, done - size + 1)
            tokens, base = tokens[:, kept - start :], base[:, :, stride * (kept - start) :]
            start = kept
    if tokens is not None and base is not None and done < end:
        begin = max(0, end - size)
        part = _part(tokens, base, begin - start, end - begin, stride)
        yield Window(*part, done - begin, begin)


def _part(
    tokens: Tensor, base: Tensor, first: int, size: int, stride: int
) -> tuple[Int[Tensor, "B n h w"], Float[Tensor, "B 3 T H W"]]:
    frames = slice(stride * first, stride * (first + size - 1) + 1)
    return tokens[:, first : first + size], base[:, :, frames]


def split(
    tokens: Iterable[Int[Tensor, "B _ h w"]], size: int, tokenizer: PixelDecoder
) -> Iterator[Int[Tensor, "B _ h w"]]:
    """Return chunks of tokens of at most so many latent frames, or 2, as int64.

    Raises:
        ValueError: Chunks are no tokens of this tokenizer.
    """
    for chunk in tokens:
        tokenizer.check_tokens(chunk)
        yield from chunk.long().split(max(2, size), dim=1)


def with_reconstruction(
    tokens: Iterable[Int[Tensor, "B _ h w"]], tokenizer: PixelDecoder
) -> Iterator[tuple[Int[Tensor, "B _ h w"], Float[Tensor, "B 3 _ H W"]]]:
    """Pair chunks of tokens with what the tokenizer's CNN makes of them."""
    ours, theirs = tee(tokens)
    clips = tokenizer.stream_decode(theirs)
    missing = 1 - tokenizer.temporal_stride  # the first latent frame stands for one frame
    for chunk in ours:
        missing += chunk.shape[1] * tokenizer.temporal_stride
        parts = []
        while missing > 0:
            parts.append(next(clips))
            missing -= parts[-1].shape[2]
        yield chunk, torch.cat(parts, dim=2)


def without_reconstruction(
    tokens: Iterable[Int[Tensor, "B _ h w"]], tokenizer: PixelDecoder
) -> Iterator[tuple[Int[Tensor, "B _ h w"], Float[Tensor, "B 3 _ H W"]]]:
    """Pair chunks of tokens with grey frames of their size."""
    leading = tokenizer.temporal_stride - 1
    for chunk in tokens:
        B, t, h, w = chunk.shape
        side = tokenizer.spatial_stride
        frames = tokenizer.temporal_stride * t - leading
        leading = 0
        yield chunk, torch.zeros(B, 3, frames, side * h, side * w, device=chunk.device)
