"""TFRecord files of tf.train.Example messages, read without TensorFlow.

A record is a length, its masked CRC-32C, the message and its CRC. The message is protocol buffers:
Example { Features { map<string, Feature> } }, Feature { BytesList | FloatList | Int64List }.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data.container import VideoError

_POLYNOMIAL = 0x82F63B78  # CRC-32C (Castagnoli), reflected


def read_records(path: Path) -> Iterator[bytes]:
    """Yield the messages of a file; a file that is cut off or no TFRecord is an error.

    The checksum of each length is checked, so that the framing is certain; that of the content,
    which plain Python would take hours for, is not.
    """
    with path.open("rb") as file:
        for begin, length in find_records(path):
            file.seek(begin)
            yield file.read(length)


def find_records(path: Path) -> list[tuple[int, int]]:
    """Return where each message begins and how long it is, without reading it."""
    found, place, end = [], 0, path.stat().st_size
    with path.open("rb") as file:
        while place < end:
            file.seek(place)
            head = file.read(12)
            if len(head) < 12 or _masked_crc(head[:8]) != struct.unpack("<I", head[8:])[0]:
                raise VideoError(f"{path} is cut off or no TFRecord at record {len(found)}")
            (length,) = struct.unpack("<Q", head[:8])
            found.append((place + 12, length))
            place += 12 + length + 4
    if place != end:
        raise VideoError(f"{path} is cut off in record {len(found) - 1}; replace it")
    return found


def _masked_crc(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (_POLYNOMIAL if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def read_example(message: bytes) -> dict[str, list[bytes] | np.ndarray]:
    """Return the features of a tf.train.Example: bytes, float32 or int64."""
    features = {}
    bodies = [body for field, body in _fields(message) if field == 1]
    for _, entry in (pair for body in bodies for pair in _fields(body)):
        parts = dict(_fields(entry))
        try:
            features[parts.get(1, b"").decode()] = _feature(parts.get(2, b""))
        except UnicodeDecodeError as error:
            raise VideoError(f"a record names a feature in no UTF-8: {error}") from error
    return features


def _feature(message: bytes) -> list[bytes] | np.ndarray:
    for kind, body in _fields(message):
        values = [value for _, value in _fields(body)]
        if kind == 1:
            return [bytes(value) for value in values]
        if kind == 2:  # packed, or each on its own
            joined = b"".join(values)
            return np.frombuffer(joined[: len(joined) // 4 * 4], dtype="<f4")
        numbers = [n for value in values for n in _varints(value)]
        return np.array(numbers, dtype=np.uint64).astype(np.int64)
    return []


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the content of each field; a number's content is its own bytes."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        kind = tag & 7
        if kind == 2:
            length, place = _varint(message, place)
        elif kind == 0:
            length = _varint(message, place)[1] - place
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise VideoError(f"a record has a field of unknown wire type {kind}; replace the file")
        if place + length > len(message):
            raise VideoError("a record ends inside a field; replace the file")
        yield tag >> 3, message[place : place + length]
        place += length


def _varints(content: bytes) -> Iterator[int]:
    place = 0
    while place < len(content):
        value, place = _varint(content, place)
        yield value


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            break
        byte = message[place]
        value |= (byte & 127) << shift
        place += 1
        if byte < 128:
            return value & (2**64 - 1), place
    raise VideoError("a record ends inside a number; replace the file")
