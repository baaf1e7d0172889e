"""Samples out of shards by shard and offset, from a folder or an object store, checked."""

import hashlib
import io
import json
import os
import zlib
from typing import Any, NamedTuple

import fsspec
import numpy as np

from data.container import VideoError
from data.shards import Entry, Record, ShardError, parse_index, parse_manifest


class Stored(NamedTuple):
    """A sample and the shard that it lies in."""

    shard: str
    entry: Entry

    def __str__(self) -> str:
        return f"{self.entry.key} of {self.shard}"


class ShardReader:
    """All samples of a finished folder of shards, in the order of the shards.

    The indexes are read once; a file of a sample is one read of its bytes, checked against their
    checksum. A shard of another length or content than the manifest says is an error that names it.
    `digest`, the hash of the manifest, stands for the whole content.

    Args:
        path: The folder, or an address that fsspec knows, such as s3://bucket/folder.
        form: What "format" in dataset.json must be.
        verify: Hash every shard before the first sample is read.
    """

    def __init__(self, path: str, form: str, verify: bool = False) -> None:
        if path.startswith("pipe:"):
            raise ValueError(f"path is {path!r}, but commands are never run; copy the shards first")
        self._path, self._process = path, os.getpid()
        self._files, self._root = fsspec.url_to_fs(path)
        self.settings = self._settings(form)
        self.digest = ""
        self.samples = [s for record in self._records() for s in self._open(record, verify)]

    def read(self, sample: Stored, suffix: str) -> bytes:
        """Return one file of a sample.

        Raises:
            VideoError: The sample has no such file.
            ShardError: The shard is not what it was.
        """
        if suffix not in sample.entry.files:
            raise VideoError(f"{sample} has no .{suffix}")
        member = sample.entry.files[suffix]
        end = member.offset + member.size
        content = self._cat(sample.shard, start=member.offset, end=end)
        if len(content) != member.size or zlib.crc32(content) != member.crc32:
            raise ShardError(
                f"shard {self._root}/{sample.shard} was altered or cut off near byte "
                f"{member.offset} ({sample.entry.key}); copy or make it again"
            )
        return content

    def read_array(self, sample: Stored, suffix: str) -> np.ndarray:
        """Return an .npy of a sample; one that holds pickled objects is refused."""
        try:
            return np.load(io.BytesIO(self.read(sample, suffix)), allow_pickle=False)
        except (EOFError, ValueError) as error:
            raise ShardError(f"{sample} holds a .{suffix} that cannot be read: {error}") from error

    def scores(self) -> dict[str, dict[str, Any]]:
        """Return what `data.curate` wrote about every sample, by the sample's name.

        Raises:
            ShardError: A shard has no scores, or not those of its samples.
        """
        scores = {}
        for shard in sorted({sample.shard for sample in self.samples}):
            name = shard.replace(".tar", ".scores.jsonl")
            try:
                for line in map(json.loads, self._cat(name).splitlines()):
                    scores[f"{line.pop('key')} of {shard}"] = line
            except (AttributeError, KeyError, ValueError) as error:
                raise ShardError(
                    f"the scores of {shard} cannot be read ({error}); run data.curate, "
                    "after deleting them where they are broken"
                ) from error
        if missing := [str(s) for s in self.samples if str(s) not in scores]:
            raise ShardError(f"{missing[0]} has no scores; delete {name} and run data.curate")
        return scores

    def _cat(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        if self._process != os.getpid():  # connections do not survive the fork of a worker
            self._process = os.getpid()
            self._files, self._root = fsspec.url_to_fs(self._path)
        try:
            return self._files.cat_file(f"{self._root}/{name}", start=start, end=end)
        except OSError as error:
            raise ShardError(f"{self._root}/{name} cannot be read: {error}") from error

    def _settings(self, form: str) -> dict[str, Any]:
        content = self._cat("dataset.json")
        try:
            settings = dict(json.loads(content))
        except (TypeError, ValueError) as error:
            raise ShardError(f"{self._root}/dataset.json is broken: {error}") from error
        if settings.get("format") != form:
            raise ShardError(f"{self._root} is of format {settings.get('format')}, not {form}")
        return settings

    def _records(self) -> list[Record]:
        content = self._cat("manifest.jsonl")
        self.digest = hashlib.sha256(content).hexdigest()
        records = parse_manifest(content, f"{self._root}/manifest.jsonl")
        if len(records) != self.settings["shards"]:
            raise ShardError(
                f"{self._root} is unfinished: {len(records)} of {self.settings['shards']} shards "
                "are there; run what wrote them again, it goes on where it stopped"
            )
        return sorted(record for record in records if record.samples)

    def _open(self, record: Record, verify: bool) -> list[Stored]:
        name = f"shard {self._root}/{record.shard}"
        size = self._size(record.shard)
        if size != record.bytes:
            raise ShardError(
                f"{name} has {size} bytes, but the manifest says {record.bytes}; it was cut off or "
                "altered: copy or make it again"
            )
        if verify and hashlib.sha256(self._cat(record.shard)).hexdigest() != record.sha256:
            raise ShardError(f"{name} was altered: its sha256 is not the manifest's")
        content = self._cat(record.shard.removesuffix(".tar") + ".jsonl")
        if hashlib.sha256(content).hexdigest() != record.index_sha256:
            raise ShardError(f"the index of {name} was altered; copy or make both again")
        entries = parse_index(content, name)
        if len(entries) != record.samples:
            raise ShardError(f"{name} has {len(entries)} samples, the manifest {record.samples}")
        return [Stored(record.shard, entry) for entry in entries]

    def _size(self, name: str) -> int:
        try:
            return int(self._files.size(f"{self._root}/{name}"))
        except OSError as error:
            raise ShardError(f"shard {self._root}/{name} is missing: {error}") from error
