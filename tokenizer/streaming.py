"""Streams through a tokenizer: chunks of any size in, the same as one pass out, memory constant.

The causal layers take 1 + s k frames first and multiples of s after; here chunks are regrouped to
that and cut, so that neither a long stream nor a long chunk costs memory.
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

MAX_PIXELS = 2**19
"""Pixels in work at once, but at least s frames: more cost memory, fewer cost speed."""

_FRAMES = -3  # the axis of time, in clips, tokens and latents


class StreamCache(dict[nn.Module, Tensor]):
    """Last inputs of each causal layer.

    `tiles` holds a cache for each tile of a stream whose frames are cut into tiles.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tiles: defaultdict[int, StreamCache] = defaultdict(StreamCache)


class Codec(ABC):
    """What turns pixels into tokens or latents and back, whole clips or streams of chunks.

    A stream is the same two calls with a cache: `encode` and `decode` are all that differs between
    tokens, latents and tiles.
    """

    temporal_stride: int
    spatial_stride: int

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where it works; clips and tokens have to be there."""

    @abstractmethod
    def encode(
        self, clip: Float[Tensor, "B 3 T H W"], cache: StreamCache | None = None
    ) -> Shaped[Tensor, "B *D t h w"]:
        """Return tokens or latents.

        Args:
            clip: Pixels in [-1, 1]; T = 1 + s k frames, H and W multiples of the spatial stride.
            cache: State of a stream; later chunks hold a multiple of s frames.
        """

    @abstractmethod
    def decode(
        self, tokens: Shaped[Tensor, "B *D t h w"], cache: StreamCache | None = None
    ) -> Float[Tensor, "B 3 T H W"]:
        """Return pixels, about in [-1, 1] (not clamped), T = 1 + s (t - 1) frames."""

    def stream_encode(
        self, clips: Iterable[Float[Tensor, "B 3 _ H W"]], *, pad: bool = False
    ) -> Iterator[Shaped[Tensor, "B *D _ h w"]]:
        """Encode a stream of chunks of any length, without gradient and in constant memory.

        Tokens come as soon as the frames they stand for are there, and equal those of one pass.

        Args:
            clips: Pixels in [-1, 1], any number of frames at a time, one picture size throughout.
            pad: Repeat the last frame until there are 1 + s k; without, other lengths are refused
                when the stream ends.

        Raises:
            ValueError: A chunk does not fit, or the stream has no frame or ends between two groups.
        """
        cache = StreamCache()
        for clip in regroup(clips, self.temporal_stride, pad=pad, max_pixels=MAX_PIXELS):
            with torch.no_grad():
                tokens = self.encode(clip, cache)
            yield tokens

    def stream_decode(
        self, tokens: Iterable[Shaped[Tensor, "B *D _ h w"]]
    ) -> Iterator[Float[Tensor, "B 3 _ H W"]]:
        """Decode a stream of chunks of any length, without gradient and in constant memory.

        Args:
            tokens: What `stream_encode` gives, any number of latent frames at a time.

        Raises:
            ValueError: A chunk does not fit, or the stream holds none.
        """
        cache = StreamCache()
        cell = self.temporal_stride * self.spatial_stride**2  # pixels that a token stands for
        for chunk in _of_one_size(tokens):
            b, h, w = chunk.shape[0], *chunk.shape[-2:]
            for part in chunk.split(max(1, MAX_PIXELS // (b * h * w * cell)), dim=_FRAMES):
                with torch.no_grad():
                    clip = self.decode(part, cache)
                yield clip


def regroup(
    clips: Iterable[Float[Tensor, "B 3 _ H W"]], stride: int, *, pad: bool, max_pixels: int
) -> Iterator[Float[Tensor, "B 3 _ H W"]]:
    """Regroup frames into 1 + s k and then multiples of s, cut where there are too many.

    Nothing is held back that could go on: what waits is less than a group.
    """
    lead, waiting, num_frames = 1, None, 0
    for clip in _of_one_size(clips):
        num_frames += clip.shape[2]
        if waiting is None or not waiting.shape[2]:
            waiting = clip
        else:
            waiting = torch.cat([waiting, clip], dim=2)
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


def _of_one_size(chunks: Iterable[Tensor]) -> Iterator[Tensor]:
    """Pass chunks on, as long as they agree in everything but the number of frames."""
    first: tuple[torch.dtype, list[int]] | None = None
    for number, chunk in enumerate(chunks):
        if chunk.ndim < 3 or not chunk.numel():
            raise ValueError(
                f"chunk {number} of the stream has shape {tuple(chunk.shape)}, so nothing in it; "
                "give each at least 1 frame"
            )
        kind = chunk.dtype, [*chunk.shape[:_FRAMES], *chunk.shape[_FRAMES + 1 :]]
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
