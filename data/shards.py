"""Shards: tar files of clips in webdataset's format, with an index, a hash and a manifest.

A data set is a folder (or an object store) of `NAME.tar`, each with its index `NAME.jsonl`; all are
listed in `manifest.jsonl` with size, count and sha256, and `dataset.json` says how they were made.
webdataset reads the tar files as they are. What webdataset leaves open is closed here: a shard
appears under its name only when it is whole, a key cannot merge with another, a truncated or
altered shard is an error, and nothing is ever unpickled, extracted or run.
"""

import hashlib
import json
import os
import re
import tarfile
import zlib
from collections.abc import Iterable, Mapping
from io import BufferedIOBase
from pathlib import Path
from typing import Any, NamedTuple

from webdataset.writer import TarWriter

FORMAT = "reelm-shards-1"
KEY = re.compile(r"[A-Za-z0-9_-]+")  # a dot would merge samples: the suffix begins at the first
SHARD = re.compile(r"[A-Za-z0-9_-]+\.tar")
PICKLES = ("pickle", "pkl", "pt", "pth", "pyd")


class ShardError(ValueError):
    """A shard that is not what its manifest says, or that must not be opened."""


class Member(NamedTuple):
    """Where the bytes of a file lie in its shard, and their CRC-32."""

    offset: int
    size: int
    crc32: int


class Entry(NamedTuple):
    """One sample of a shard: its files by suffix, and the content of its .json."""

    key: str
    files: dict[str, Member]
    meta: dict[str, Any]


class Record(NamedTuple):
    """One line of the manifest; a shard of which every source was skipped has no file."""

    shard: str
    samples: int
    bytes: int
    sha256: str
    index_sha256: str
    skipped: dict[str, str]


def index_shard(stream: BufferedIOBase, name: str) -> list[Entry]:
    """Read a whole shard and say where everything lies; nothing is extracted.

    Raises:
        ShardError: The tar is truncated, or holds what a shard must not: a pickle, a link, a name
            that is not KEY.SUFFIX, a key twice.
    """
    found: dict[str, dict[str, Member]] = {}
    meta = {}
    try:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            for info in tar:
                key, suffix = _name(info, name)
                content = _content(tar, info)
                files = found.setdefault(key, {})
                if suffix in files or (files and key != next(reversed(found))):
                    raise ShardError(f"{name} holds {info.name} twice; make the shard again")
                files[suffix] = Member(info.offset_data, info.size, zlib.crc32(content))
                if suffix == "json":
                    meta[key] = json.loads(content)
            end = tar.offset
        stream.seek(end)
        if len(stream.read(2 * tarfile.BLOCKSIZE)) < 2 * tarfile.BLOCKSIZE:
            raise ShardError(f"{name} is cut off: it has no end mark; copy or make it again")
    except (tarfile.TarError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ShardError(f"{name} is broken or cut off ({error}); make it again") from error
    return [Entry(key, files, meta.get(key, {})) for key, files in found.items()]


def _name(info: tarfile.TarInfo, shard: str) -> tuple[str, str]:
    key, _, suffix = info.name.partition(".")
    plain = info.isfile() and not info.issparse()
    if not plain or not KEY.fullmatch(key) or not re.fullmatch(r"[a-z0-9_.]+", suffix):
        raise ShardError(
            f"{shard} holds {info.name!r}, which is not a file named KEY.SUFFIX with a key of "
            "letters, digits, - and _; make the shard again without it"
        )
    if suffix.rpartition(".")[2] in PICKLES:
        raise ShardError(
            f"{shard} holds {info.name!r}; pickled files can run code and are refused; "
            "store arrays as .npy and the rest as .json"
        )
    return key, suffix


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(info)
    assert file is not None
    content = file.read()
    if len(content) < info.size:
        raise tarfile.ReadError(f"{info.name} ends after {len(content)} of {info.size} bytes")
    return content


def write_shard(
    folder: Path,
    name: str,
    samples: Iterable[tuple[str, Mapping[str, bytes]]],
    scratch: Path,
    skipped: Mapping[str, str],
) -> Record:
    """Write one shard and its index; both appear under their names when they are whole.

    The same samples give the same bytes. The finished tar is read again and compared with what
    was put in before it is renamed.

    Args:
        folder: Where the shard belongs.
        name: `NAME.tar`.
        samples: Pairs of key and files by suffix, written as they come.
        scratch: A folder on the same disk for the unfinished files.
        skipped: What was left out, by source; read after the last sample was taken.
    """
    tar, index = scratch / name, scratch / f"{name}.index"
    written = []
    with tar.open("w+b") as stream:
        with TarWriter(stream, user="", group="", encoder=False, mtime=0) as writer:
            for key, files in samples:
                if not KEY.fullmatch(key):
                    raise ValueError(f"key is {key!r}; use letters, digits, - and _ only")
                writer.write({"__key__": key, **files})
                written.append((key, {suffix: zlib.crc32(data) for suffix, data in files.items()}))
        _sync(stream)
        stream.seek(0)
        entries = index_shard(stream, name)
        read = [(e.key, {suffix: m.crc32 for suffix, m in e.files.items()}) for e in entries]
        if read != [(key, dict(sorted(crcs.items()))) for key, crcs in written]:
            raise ShardError(f"{name} does not read back as it was written; look at the disk")
        stream.seek(0)
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if not written:
        tar.unlink()
        return Record(name, 0, 0, "", "", dict(skipped))
    lines = "".join(json.dumps(entry, sort_keys=True) + "\n" for entry in entries)
    write_file(index, lines.encode())
    size = tar.stat().st_size
    index.replace(folder / f"{Path(name).stem}.jsonl")
    tar.replace(folder / name)
    index_digest = hashlib.sha256(lines.encode()).hexdigest()
    return Record(name, len(written), size, digest, index_digest, dict(skipped))


def write_file(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk."""
    with path.open("wb") as stream:
        stream.write(content)
        _sync(stream)


def _sync(stream: BufferedIOBase) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def parse_index(content: bytes, name: str) -> list[Entry]:
    """Read an index back; its numbers are only ever used as ranges inside the shard."""
    try:
        return [
            Entry(key, {suffix: Member(*map(int, m)) for suffix, m in files.items()}, dict(meta))
            for key, files, meta in map(json.loads, content.splitlines())
        ]
    except (AttributeError, TypeError, ValueError) as error:
        raise ShardError(f"the index of {name} is broken ({error}); make it again") from error


def parse_manifest(content: bytes, name: str) -> list[Record]:
    """Read a manifest and hold its names to what a manifest may name."""
    try:
        records = [Record(**json.loads(line)) for line in content.splitlines()]
        wrong = [record.shard for record in records if not SHARD.fullmatch(record.shard)]
    except (TypeError, ValueError) as error:
        raise ShardError(f"{name} is broken ({error}); make the data set again") from error
    if wrong:
        raise ShardError(f"{name} names {wrong[0]!r}, but a shard is a NAME.tar beside it")
    return records
