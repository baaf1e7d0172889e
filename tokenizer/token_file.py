"""A video as tokens in one small file, written and read in pieces, never all of it in memory.

One line of JSON, then blocks: count of latent frames, count of bytes, the tokens row by row in the
smallest unsigned type and compressed by zlib (RFC 1950), and a CRC-32 of the line and the blocks so
far. A block of 0 frames holds the number of video frames and ends the file. All integers are
little-endian.
"""

import json
import math
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor

_FORMAT, _VERSION = "reelm tokens", 1
_HEAD, _CHECKSUM, _LENGTH = struct.Struct("<II"), struct.Struct("<I"), struct.Struct("<Q")
_LINE_BYTES, _BLOCK_BYTES = 2**12, 2**26  # most that a reader holds, whatever a file claims


class TokenInfo(NamedTuple):
    """What a token file says about itself.

    `tokenizer` is the fingerprint. The picture is the upper left `height` x `width` pixels of what
    the `grid` of (h, w) tokens decodes to.
    """

    tokenizer: str
    codebook_size: int
    grid: tuple[int, int]
    height: int
    width: int
    fps: float

    @property
    def dtype(self) -> np.dtype:
        """Smallest unsigned type that holds every token."""
        return np.min_scalar_type(self.codebook_size - 1).newbyteorder("<")

    def check(self) -> None:
        """Raise ValueError where no video is like this."""
        h, w = self.grid
        if min(h, w, self.height, self.width, self.codebook_size) < 1:
            raise ValueError(f"{self} is impossible: sizes must be at least 1")
        if not 0 < self.fps < math.inf:
            raise ValueError(
                f"fps is {self.fps}, but must be above 0 and finite; give the frames a second"
            )


class TokenWriter:
    """Write a token file piece by piece.

    `num_frames`, the frames of the video without padding, has to be set before the `with` block
    ends. Then the file appears under its name, and not at all if anything fails.

    Raises:
        ValueError: `info` is such as no reader would take.
    """

    def __init__(self, path: str | Path, info: TokenInfo) -> None:
        info.check()
        self.path, self.info, self.num_frames = Path(path), info, 0
        self._partial = self.path.with_name(f".{self.path.name}.partial")
        self._checksum = 0

    def __enter__(self) -> "TokenWriter":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._partial.open("wb")
        line = json.dumps({"format": _FORMAT, "version": _VERSION, **self.info._asdict()})
        self._put(line.encode() + b"\n")
        return self

    def write(self, tokens: Int[Tensor, "1 t h w"]) -> None:
        """Append latent frames."""
        if tokens.shape[2:] != self.info.grid:
            raise ValueError(
                f"tokens have {tuple(tokens.shape[2:])} a frame, but the file began with "
                f"{self.info.grid}; write another file"
            )
        most = max(1, _BLOCK_BYTES // (2 * self.info.dtype.itemsize * tokens[0, 0].numel()))
        for frames in tokens[0].cpu().split(most):
            self._block(len(frames), frames.numpy().astype(self.info.dtype).tobytes())

    def _block(self, count: int, content: bytes) -> None:
        data = zlib.compress(content)
        self._put(_HEAD.pack(count, len(data)) + data)
        self._file.write(_CHECKSUM.pack(self._checksum))

    def _put(self, data: bytes) -> None:
        self._checksum = zlib.crc32(data, self._checksum)
        self._file.write(data)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with self._file:
                if kind is None:
                    self._finish()
            if kind is None:
                self._partial.replace(self.path)
        finally:
            self._partial.unlink(missing_ok=True)

    def _finish(self) -> None:
        if self.num_frames < 1:
            raise ValueError(f"no frame was counted for {self.path}; write tokens of at least 1")
        self._block(0, _LENGTH.pack(self.num_frames))
        self._file.flush()
        os.fsync(self._file.fileno())


class TokenReader:
    """Read a token file piece by piece, after a look at every checksum.

    Raises:
        ValueError: It is no token file, or one that is cut off or damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ValueError(f"{path} is not a file; give one that sample.py --task encode wrote")
        count = -1
        for count, content in self._blocks():
            if count == 0:
                (self.num_frames,) = _LENGTH.unpack(content)
        if count:
            raise self._damage("it ends too early")

    def __iter__(self) -> Iterator[Int[Tensor, "1 _ h w"]]:
        """Return the tokens in the pieces in which they were written."""
        for count, content in self._blocks():
            if count:
                values = np.frombuffer(content, self.info.dtype).astype(np.int64)
                h, w = self.info.grid
                yield rearrange(torch.from_numpy(values), "(t h w) -> 1 t h w", h=h, w=w)

    def _blocks(self) -> Iterator[tuple[int, bytes]]:
        with self.path.open("rb") as file:
            line = file.readline(_LINE_BYTES)
            self.info = self._parse(line)
            checksum = zlib.crc32(line)
            while head := file.read(_HEAD.size):
                count, content, checksum = self._read_block(head, file, checksum)
                yield count, content

    def _read_block(self, head: bytes, file: BinaryIO, checksum: int) -> tuple[int, bytes, int]:
        if len(head) < _HEAD.size:
            raise self._damage("it ends too early")
        count, num_bytes = _HEAD.unpack(head)
        h, w = self.info.grid
        expected = count * h * w * self.info.dtype.itemsize if count else _LENGTH.size
        if max(num_bytes, expected) > _BLOCK_BYTES:
            raise self._damage("a block has an impossible size")
        data, end = file.read(num_bytes), file.read(_CHECKSUM.size)
        checksum = zlib.crc32(head + data, checksum)
        if end != _CHECKSUM.pack(checksum):
            raise self._damage("it ends too early" if len(end) < 4 else "a checksum is wrong")
        try:
            content = zlib.decompressobj().decompress(data, expected + 1)
        except zlib.error as error:
            raise self._damage(str(error)) from error
        if len(content) != expected:
            raise self._damage("a block has an impossible size")
        return count, content, checksum

    def _parse(self, line: bytes) -> TokenInfo:
        try:
            head = json.loads(line)
            kind, version = head.pop("format"), head.pop("version")
            if (kind, version) != (_FORMAT, _VERSION):
                raise ValueError(f"{kind!r} version {version}")
            info = TokenInfo(**{**head, "grid": tuple(head["grid"])})
            info.check()
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{self.path} does not begin like a token file of version {_VERSION} ({error}); "
                "give one that sample.py --task encode wrote"
            ) from error
        return info

    def _damage(self, what: str) -> ValueError:
        return ValueError(
            f"{self.path} is cut off or damaged: {what}; copy it again or encode the video again"
        )
