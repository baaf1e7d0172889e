"""Videos of any size and length through a tokenizer, a few frames in memory at a time.

Frames are uint8 outside. Height and width are padded to multiples of the spatial stride by copies
of the last row and column, the length to 1 + s k by copies of the last frame; decoding crops them.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor
from torch.nn import functional as F

from data.video import to_model_range, to_uint8
from tokenizer.latents import codec_of
from tokenizer.model import Tokenizer
from tokenizer.streaming import MAX_PIXELS, Codec
from tokenizer.tiling import TiledTokenizer
from tokenizer.token_file import TokenInfo, TokenReader, TokenWriter

_FRAMES = 32  # most that wait until there are enough pixels for an efficient step


def encode_video(
    codec: Codec, frames: Iterable[UInt8[np.ndarray, "H W 3"]]
) -> Iterator[Shaped[Tensor, "1 *D _ h w"]]:
    """Encode the frames of one video; for each multiple of s, tokens come as soon as possible."""
    return codec.stream_encode(_clips(frames, codec), pad=True)


def encode_file(
    tokenizer: Tokenizer | TiledTokenizer,
    frames: Iterable[UInt8[np.ndarray, "H W 3"]],
    fps: float,
    path: str | Path,
) -> TokenInfo:
    """Encode the frames of one video into a token file, which appears once it is whole.

    Raises:
        ValueError: There is no frame, one does not fit the first, `fps` is no rate, or the
            tokenizer is continuous.
    """
    codebook_size, frames = tokenizer.codebook_size, iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError(f"there is no frame to write to {path}; give at least 1")
    height, width = first.shape[:2]
    stride = tokenizer.spatial_stride
    info = TokenInfo(
        tokenizer=tokenizer.fingerprint(),
        codebook_size=codebook_size,
        grid=(-(-height // stride), -(-width // stride)),
        height=height,
        width=width,
        fps=fps,
    )
    with TokenWriter(path, info) as file:

        def counted() -> Iterator[np.ndarray]:
            for file.num_frames, frame in enumerate(chain([first], frames), 1):
                yield frame

        for tokens in encode_video(tokenizer, counted()):
            file.write(tokens.cpu())
    return info


def decode_file(
    tokenizer: Tokenizer | TiledTokenizer, file: TokenReader
) -> Iterator[UInt8[Tensor, "_ H W 3"]]:
    """Return the frames of a token file, a few at a time.

    Raises:
        ValueError: Another tokenizer wrote it.
    """
    info, own = file.info, tokenizer.fingerprint()
    if info.tokenizer != own:
        raise ValueError(
            f"{file.path} holds tokens of the tokenizer {info.tokenizer}, but this one is {own}; "
            "decode with the model that encoded them"
        )
    left = file.num_frames
    for clip in tokenizer.stream_decode(tokens.to(tokenizer.device) for tokens in file):
        yield to_uint8(clip[0, :, :left, : info.height, : info.width]).cpu()
        left -= clip.shape[2]


def reconstruct_video(
    tokenizer: Tokenizer | TiledTokenizer, frames: Iterable[UInt8[np.ndarray, "H W 3"]]
) -> Iterator[tuple[UInt8[Tensor, "_ H W 3"], UInt8[Tensor, "_ H W 3"]]]:
    """Return the frames and what is left of them behind the bottleneck, a few at a time."""
    codec = codec_of(tokenizer)
    waiting: deque[np.ndarray] = deque()

    def kept() -> Iterator[np.ndarray]:
        for frame in frames:
            waiting.append(frame)
            yield frame

    for clip in codec.stream_decode(encode_video(codec, kept())):
        truth = np.stack([waiting.popleft() for _ in range(min(clip.shape[2], len(waiting)))])
        num_frames, height, width = truth.shape[:3]
        rebuilt = to_uint8(clip[0, :, :num_frames, :height, :width]).cpu()
        yield torch.from_numpy(truth), rebuilt


def _clips(frames: Iterable[np.ndarray], codec: Codec) -> Iterator[Float[Tensor, "1 3 _ H W"]]:
    stride = codec.spatial_stride
    for group in _groups(_of_one_size(frames)):
        clip = to_model_range(torch.from_numpy(group)[None].to(codec.device))
        height, width = clip.shape[3:]
        yield F.pad(clip, (0, -width % stride, 0, -height % stride, 0, 0), mode="replicate")


def _groups(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    group: list[np.ndarray] = []
    for frame in frames:
        group.append(frame)
        if len(group) == _FRAMES or len(group) * frame[..., 0].size >= MAX_PIXELS:
            yield np.stack(group)
            group = []
    if group:
        yield np.stack(group)


def _of_one_size(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    first: tuple[int, ...] | None = None
    for number, frame in enumerate(frames):
        first = first or frame.shape
        if frame.dtype != np.uint8 or frame.shape != first or frame.shape[2:] != (3,):
            raise ValueError(
                f"frame {number} is {frame.dtype} {frame.shape}, but all must be uint8 (H, W, 3) "
                f"like the first, {first}; convert or resize it"
            )
        yield frame
