"""Large frames in overlapping tiles, so that memory depends on the tile and not on the frame.

Every layer makes a position from its neighbourhood, so what lies further from the edge of a tile
than the receptive field reaches is what the whole frame gives; each tile keeps only that core.
Attention over the whole frame leaves no such core: tiles are then an approximation, which has to be
asked for, and decoded pixels are blended across the seams.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise, product
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from tokenizer.latents import codec_of
from tokenizer.model import Tokenizer
from tokenizer.streaming import Codec, StreamCache

_PROBES = (32, 128, 512)  # cells; a reach that fills the last is called unbounded


class Span(NamedTuple):
    """One tile along one axis: the core that it keeps and the margin around it.

    In cells, the squares of pixels that a token stands for. `length` is that of the whole axis.
    """

    core_begin: int
    core_end: int
    margin: int
    length: int

    @property
    def begin(self) -> int:
        return max(0, self.core_begin - self.margin)

    @property
    def end(self) -> int:
        return min(self.length, self.core_end + self.margin)

    def slice(self, stride: int = 1) -> slice:
        """Where the tile lies in the frame; `stride` is 1 for tokens."""
        return slice(self.begin * stride, self.end * stride)

    def weight(self, stride: int, blend: bool) -> Float[Tensor, " length"]:
        """Return the weight of each pixel: 1 in the core, 0 outside or falling linearly to 0."""
        place = torch.arange(self.begin * stride, self.end * stride) + 0.5
        begin, end = self.core_begin * stride, self.core_end * stride
        if not blend or not self.margin:
            return ((place > begin) & (place < end)).float()
        ramp = 2 * self.margin * stride
        rise = (place - begin) / ramp + 0.5 if self.core_begin else torch.ones(len(place))
        fall = (end - place) / ramp + 0.5 if self.core_end < self.length else torch.ones(len(place))
        return rise.clamp(0, 1) * fall.clamp(0, 1)


class TiledTokenizer(Codec):
    """A tokenizer that encodes and decodes frames tile by tile, as whole clips or as streams.

    Args:
        tokenizer: Does the work on each tile.
        tile: Largest side of a tile in pixels, a multiple of the spatial stride.
        overlap: Pixels that a tile computes beyond its core, each way. By default what the
            receptive field asks for: tokens and pixels equal those of whole frames. With fewer,
            tokens are an approximation, and pixels are blended across the seams.

    Raises:
        ValueError: `tile` leaves no core, or the receptive field is the whole frame and `overlap`
            is not given.
    """

    def __init__(self, tokenizer: Tokenizer, tile: int, overlap: int | None = None) -> None:
        self.tokenizer, self.codec = tokenizer, codec_of(tokenizer)
        self.temporal_stride = tokenizer.temporal_stride
        self.spatial_stride = stride = tokenizer.spatial_stride
        for name, pixels in (("tile", tile), ("overlap", overlap or 0)):
            if pixels < 0 or pixels % stride:
                raise ValueError(
                    f"{name} is {pixels} pixels, but must be a multiple of the spatial stride "
                    f"{stride}; use {max(0, pixels) // stride * stride + stride}"
                )
        seen = encoder_reach(tokenizer) if overlap is None else None
        self.encode_margin = _margin(seen, overlap, stride)
        reach = decoder_reach(tokenizer)
        self.decode_margin = _margin(reach, overlap, stride)
        self.blend = reach is None or self.decode_margin < reach
        self.tile, least = tile // stride, 2 * max(self.encode_margin, self.decode_margin) + 1
        if self.tile < least:
            raise ValueError(
                f"tile is {tile} pixels, of which the margins leave no core; use at least "
                f"{least * stride}, better twice that"
            )

    @property
    def device(self) -> torch.device:
        """Where it works."""
        return self.tokenizer.device

    @property
    def codebook_size(self) -> int:
        """Number of codes; ValueError for a continuous tokenizer."""
        return self.tokenizer.codebook_size

    @torch.no_grad()
    def encode(
        self, clip: Float[Tensor, "B 3 T H W"], cache: StreamCache | None = None
    ) -> Shaped[Tensor, "B *D t h w"]:
        """Return tokens or latents as without tiles; they come from the cores alone."""
        self.tokenizer.check_clip(clip, first=cache is None or not cache.tiles)
        stride = self.spatial_stride
        grid = clip.shape[3] // stride, clip.shape[4] // stride
        tokens: Tensor | None = None
        for number, (y, x) in enumerate(self._tiles(grid, self.encode_margin)):
            part = clip[..., y.slice(stride), x.slice(stride)]
            tile = self.codec.encode(part, None if cache is None else cache.tiles[number])
            if tokens is None:
                tokens = tile.new_empty(*tile.shape[:-2], *grid)
            core = tile[..., y.core_begin - y.begin :, x.core_begin - x.begin :]
            height, width = y.core_end - y.core_begin, x.core_end - x.core_begin
            tokens[..., y.core_begin : y.core_end, x.core_begin : x.core_end] = core[
                ..., :height, :width
            ]
        assert tokens is not None
        return tokens

    @torch.no_grad()
    def decode(
        self, tokens: Shaped[Tensor, "B *D t h w"], cache: StreamCache | None = None
    ) -> Float[Tensor, "B 3 T H W"]:
        """Return pixels as without tiles."""
        self.codec.check_tokens(tokens)
        stride, (h, w) = self.spatial_stride, tokens.shape[-2:]
        clip: Tensor | None = None
        total = torch.zeros(h * stride, w * stride, device=tokens.device)
        for number, (y, x) in enumerate(self._tiles((h, w), self.decode_margin)):
            part = tokens[..., y.slice(), x.slice()]
            tile = self.codec.decode(part, None if cache is None else cache.tiles[number])
            if clip is None:
                clip = tile.new_zeros(*tile.shape[:3], *total.shape)
            weight = torch.outer(y.weight(stride, self.blend), x.weight(stride, self.blend))
            weight = weight.to(tile.device)
            clip[..., y.slice(stride), x.slice(stride)] += weight * tile
            total[y.slice(stride), x.slice(stride)] += weight
        assert clip is not None
        return clip / total

    def fingerprint(self) -> str:
        """Name the tokenizer: exact tiles change no token."""
        return self.tokenizer.fingerprint()

    def _tiles(self, grid: tuple[int, int], margin: int) -> Iterator[tuple[Span, Span]]:
        h, w = grid
        return product(spans(h, self.tile, margin), spans(w, self.tile, margin))


def spans(length: int, tile: int, margin: int) -> list[Span]:
    """Cover an axis by tiles of nearly equal cores; all lengths in cells."""
    count = 1 if length <= tile else -(-length // (tile - 2 * margin))
    seams = [k * length // count for k in range(count + 1)]
    return [Span(begin, end, margin, length) for begin, end in pairwise(seams)]


def encoder_reach(tokenizer: Tokenizer) -> int | None:
    """Return how many cells away a pixel can change a token; None where there is no end."""
    stride, frames = tokenizer.spatial_stride, 1 + tokenizer.temporal_stride

    def spread(h: int, w: int) -> Bool[Tensor, "h w"]:
        clip = torch.zeros(1, 3, frames, h * stride, w * stride)
        y, x = h // 2 * stride, w // 2 * stride
        clip[..., y : y + stride, x : x + stride] = torch.nan
        latents = tokenizer.encoder(clip.to(tokenizer.device))
        return latents.isnan().any(dim=(0, 1, 2))

    return _reach(spread)


def decoder_reach(tokenizer: Tokenizer) -> int | None:
    """Return how many cells away a token can change a pixel; None where there is no end."""
    stride = tokenizer.spatial_stride

    def spread(h: int, w: int) -> Bool[Tensor, "h w"]:
        latents = torch.zeros(1, tokenizer.quantizer.dim, 2, h, w)
        latents[..., h // 2, w // 2] = torch.nan
        clip = tokenizer.decoder(latents.to(tokenizer.device))
        pixels = clip.isnan().any(dim=(0, 1, 2))
        return pixels.unflatten(0, (h, stride)).unflatten(2, (w, stride)).any(dim=(1, 3))

    return _reach(spread)


@torch.no_grad()
def _reach(spread: Callable[[int, int], Tensor]) -> int | None:
    """Follow a NaN, which passes every connection whatever its weight, along a row and a column."""
    for cells in _PROBES:
        hit = torch.cat([spread(1, cells).nonzero()[:, 1], spread(cells, 1).nonzero()[:, 0]])
        first, last = int(hit.min()), int(hit.max())
        if first > 0 and last < cells - 1:
            return max(cells // 2 - first, last - cells // 2)
    return None


def _margin(reach: int | None, overlap: int | None, stride: int) -> int:
    if overlap is not None:
        return overlap // stride
    if reach is None:
        raise ValueError(
            "this tokenizer looks at the whole frame at once, so tiles can only approximate it; "
            f"give overlap, in pixels, to accept that (such as {8 * stride}), or use whole frames"
        )
    return reach
