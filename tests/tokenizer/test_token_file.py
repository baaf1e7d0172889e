"""A token file gives back what was written, and says what is wrong with what was not."""

import json
import struct
import zlib

import numpy as np
import pytest
import torch

from tokenizer.token_file import TokenInfo, TokenReader, TokenWriter

INFO = TokenInfo("0123456789abcdef", 200, (3, 5), 20, 37, 29.97)


def tokens_of(*lengths: int, size: int = 200) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(size, (1, t, 3, 5), generator=generator) for t in lengths]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "new" / "clip.tokens"
    with TokenWriter(path, INFO) as file:
        for tokens in tokens_of(4, 1, 2):
            file.write(tokens)
        file.num_frames = 23
    return path


def test_what_was_written_is_read(path):
    file = TokenReader(path)
    assert (file.info, file.num_frames) == (INFO, 23)
    for _ in range(2):
        pieces = list(file)
        assert all(torch.equal(a, b) for a, b in zip(pieces, tokens_of(4, 1, 2), strict=True))
    assert [p.name for p in path.parent.iterdir()] == ["clip.tokens"]


def test_the_format_is_as_it_is_described(path):
    """Read the file by the description at the head of token_file.py, without its code."""
    content = path.read_bytes()
    line = content.split(b"\n")[0]
    assert json.loads(line)["tokenizer"] == INFO.tokenizer
    place, blocks = len(line) + 1, []
    while place < len(content):
        count, size = struct.unpack_from("<II", content, place)
        blocks.append((count, zlib.decompress(content[place + 8 : place + 8 + size])))
        place += 8 + size
        assert struct.unpack_from("<I", content, place)[0] == checksum(content, place)
        place += 4
    assert blocks[-1] == (0, struct.pack("<Q", 23))
    values = np.frombuffer(b"".join(block for _, block in blocks[:-1]), np.uint8)
    assert np.array_equal(values, torch.cat(tokens_of(4, 1, 2), dim=1).flatten().numpy())


def checksum(content: bytes, end: int) -> int:
    """CRC-32 of the file up to `end`, without the checksums that stand in it."""
    place, checksum = content.index(b"\n") + 1, 0
    checksum = zlib.crc32(content[:place])
    while place < end:
        size = 8 + struct.unpack_from("<II", content, place)[1]
        checksum = zlib.crc32(content[place : place + size], checksum)
        place += size + 4
    return checksum


@pytest.mark.parametrize(
    ("size", "bytes_each"), [(2, 1), (256, 1), (257, 2), (2**16, 2), (2**16 + 1, 4), (2**18, 4)]
)
def test_the_smallest_type_that_holds_the_codebook_is_taken(tmp_path, size, bytes_each):
    info = INFO._replace(codebook_size=size)
    assert info.dtype.itemsize == bytes_each
    tokens = torch.full((1, 2, 3, 5), size - 1)
    with TokenWriter(tmp_path / "a.tokens", info) as file:
        file.write(tokens)
        file.num_frames = 5
    assert torch.equal(next(iter(TokenReader(tmp_path / "a.tokens"))), tokens)


def test_a_cut_anywhere_is_noticed_on_opening(path):
    content = path.read_bytes()
    for end in range(len(content)):
        path.write_bytes(content[:end])
        with pytest.raises(ValueError, match=r"clip\.tokens (is cut off|does not begin)"):
            TokenReader(path)


def test_a_changed_byte_anywhere_is_noticed_on_opening(path):
    content = path.read_bytes()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"clip\.tokens (is cut off|does not begin)"):
            TokenReader(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "does not begin"),
        (b"\x00\x00\x00\x18ftypmp42", "does not begin"),
        (b"[1]\n", "does not begin"),
        (b'{"format": "reelm tokens", "version": 2}\n', "version 2"),
        (b'{"format": "reelm tokens", "version": 1}\n', "does not begin"),
        (b"{" * 10_000, "does not begin"),
    ],
)
def test_another_file_is_refused(tmp_path, content, words):
    path = tmp_path / "other.tokens"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        TokenReader(path)
    with pytest.raises(ValueError, match="is not a file"):
        TokenReader(tmp_path / "absent.tokens")


def test_a_block_that_claims_much_fills_no_memory(tmp_path):
    """A bomb: right checksum, a kilobyte that unpacks to far more than its frames."""
    head = {"format": "reelm tokens", "version": 1, **INFO._asdict()}
    data = zlib.compress(bytes(10**7))
    start = json.dumps(head).encode() + b"\n" + struct.pack("<II", 1, len(data)) + data
    path = tmp_path / "bomb.tokens"
    path.write_bytes(start + struct.pack("<I", zlib.crc32(start)))
    with pytest.raises(ValueError, match="impossible size"):
        TokenReader(path)


@pytest.mark.parametrize("fps", [0.0, -8.0, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused_before_anything_is_written(tmp_path, fps):
    with pytest.raises(ValueError, match=r"fps is .*give the frames a second"):
        TokenWriter(tmp_path / "new" / "clip.tokens", INFO._replace(fps=fps))
    with pytest.raises(ValueError, match="impossible"):
        TokenWriter(tmp_path / "new" / "clip.tokens", INFO._replace(height=0))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("tokens", "num_frames", "words"),
    [
        (tokens_of(4)[0], 0, "no frame was counted"),
        (torch.zeros(1, 1, 4, 5).long(), 1, r"began with \(3, 5\)"),
    ],
)
def test_a_file_that_fails_half_way_never_appears(tmp_path, tokens, num_frames, words):
    path = tmp_path / "clip.tokens"
    path.write_bytes(b"old")

    def write() -> None:
        with TokenWriter(path, INFO) as file:
            file.write(tokens_of(1)[0])
            file.write(tokens)
            file.num_frames = num_frames

    with pytest.raises(ValueError, match=words):
        write()
    assert [p.name for p in tmp_path.iterdir()] == ["clip.tokens"]
    assert path.read_bytes() == b"old"
