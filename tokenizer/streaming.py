"""Streams through a tokenizer: chunks of any size in, the same as one pass out, memory constant.

The causal layers take 1 + s k frames first and multiples of s after; here chunks are regrouped to
that and cut, so that neither a long stream nor a long chunk costs memory.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

MAX_PIXELS = 2**19
"""Pixels in work at once: more cost memory, fewer cost speed."""


class StreamCache(dict[nn.Module, Tensor]):
    """Last inputs of each causal layer, copied: a view would keep the whole chunk in memory.

    `tiles` holds a cache for each tile of a stream whose frames are cut into tiles.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tiles: defaultdict[int, StreamCache] = defaultdict(StreamCache)

    def __setitem__(self, layer: nn.Module, state: Tensor) -> None:
        super().__setitem__(layer, state.clone())


@runtime_checkable
class Codec(Protocol):
    """What can encode and decode in chunks: a `Tokenizer`, or a `TiledTokenizer` around one."""

    temporal_stride: int
    spatial_stride: int

    def encode(self, clip: Tensor, cache: StreamCache | None = None) -> Tensor: ...

    def decode(self, tokens: Tensor, cache: StreamCache | None = None) -> Tensor: ...


def stream_encode(
    codec: Codec,
    clips: Iterable[Float[Tensor, "B 3 _ H W"]],
    *,
    pad: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[Int[Tensor, "B _ h w"]]:
    """Encode a stream; tokens come as soon as the frames they stand for are there.

    Args:
        codec: The tokenizer.
        clips: Chunks of any number of frames, one batch and picture size throughout.
        pad: Repeat the last frame until 1 + s k are reached, instead of refusing other lengths.
        max_pixels: How many are in work at once, but at least s frames.

    Raises:
        ValueError: A chunk does not fit, or the stream has no frame or ends between two groups.
    """
    cache = StreamCache()
    for clip in regroup(clips, codec.temporal_stride, pad=pad, max_pixels=max_pixels):
        with torch.no_grad():
            tokens = codec.encode(clip, cache)
        yield tokens


def stream_decode(
    codec: Codec, tokens: Iterable[Int[Tensor, "B _ h w"]], *, max_pixels: int = MAX_PIXELS
) -> Iterator[Float[Tensor, "B 3 _ H W"]]:
    """Decode a stream; frames come with the tokens that stand for them.

    Args:
        codec: The tokenizer.
        tokens: Chunks of any number of latent frames, one batch and grid throughout.
        max_pixels: How many are in work at once, but at least s frames.

    Raises:
        ValueError: A chunk does not fit, or the stream holds none.
    """
    cache = StreamCache()
    cell = codec.temporal_stride * codec.spatial_stride**2  # pixels that a token stands for
    for chunk in _of_one_size(tokens, frame_axis=1):
        most = max_pixels // (chunk[:, 0].numel() * cell)
        for part in chunk.split(max(1, most), dim=1):
            with torch.no_grad():
                clip = codec.decode(part, cache)
            yield clip


def regroup(
    clips: Iterable[Float[Tensor, "B 3 _ H W"]], stride: int, *, pad: bool, max_pixels: int
) -> Iterator[Float[Tensor, "B 3 _ H W"]]:
    """Regroup frames into 1 + s k and then multiples of s, cut where there are too many.

    Nothing is held back that could go on: what waits is less than a group.
    """
    lead, waiting, num_frames = 1, None, 0
    for clip in _of_one_size(clips, frame_axis=2):
        num_frames += clip.shape[2]
        waiting = clip if waiting is None else torch.cat([waiting, clip], dim=2)
        most = max(1, max_pixels // (stride * waiting[:, 0, 0].numel())) * stride
        while waiting.shape[2] >= (lead or stride):
            take = lead + min(most, (waiting.shape[2] - lead) // stride * stride)
            yield waiting[:, :, :take]
            waiting, lead = waiting[:, :, take:], 0  # only the first group has a frame of its own
        # A copy, since the caller may fill the same buffer again.
        waiting = waiting.clone()
    assert waiting is not None
    if missing := -waiting.shape[2] % stride:
        if not pad:
            raise ValueError(
                f"the stream ended after {num_frames} frames, but temporal stride {stride} needs "
                f"1 + {stride} k; leave {stride - missing} out, add {missing}, or let pad=True "
                "repeat the last one"
            )
        yield torch.cat([waiting, waiting[:, :, -1:].expand(-1, -1, missing, -1, -1)], dim=2)


def _of_one_size(chunks: Iterable[Tensor], frame_axis: int) -> Iterator[Tensor]:
    """Pass chunks on, as long as they agree in everything but the number of frames."""
    first: tuple[torch.dtype, list[int]] | None = None
    for number, chunk in enumerate(chunks):
        if chunk.ndim <= frame_axis or not chunk.numel():
            raise ValueError(
                f"chunk {number} of the stream has shape {tuple(chunk.shape)}, so nothing in it; "
                "give each at least 1 frame"
            )
        kind = chunk.dtype, [n for axis, n in enumerate(chunk.shape) if axis != frame_axis]
        first = first or kind
        if kind != first:
            raise ValueError(
                f"chunk {number} of the stream is {kind[0]} {kind[1]} beside the frames, but the "
                f"stream began with {first[0]} {first[1]}; keep to one type and size, or begin "
                "another stream"
            )
        yield chunk
    if first is None:
        raise ValueError("the stream holds no chunk, but needs at least 1 frame")
