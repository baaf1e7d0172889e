"""A folder of shards while it is written: begun once, locked, its shards listed as they finish."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data.shards import Record, parse_manifest, write_file


def begin(out: Path, settings: Mapping[str, Any], scratch: Path) -> None:
    """Write dataset.json, or compare with what is there.

    Raises:
        ValueError: `out` was begun with other settings, or holds something else.
    """
    path = out / "dataset.json"
    if path.is_file():
        try:
            found = dict(json.loads(path.read_bytes()))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} is broken ({error}); give another OUT") from error
        if other := [key for key, value in settings.items() if found.get(key) != value]:
            raise ValueError(
                f"{out} was begun with another {', '.join(other)}; "
                "give the same input and options to go on, or another OUT"
            )
    elif unknown := [p.name for p in out.iterdir() if not p.name.startswith(".partial-")]:
        raise ValueError(f"{out} is not empty and holds no shards ({unknown[0]}); give another OUT")
    else:
        write_file(scratch / path.name, json.dumps(settings, indent=1).encode() + b"\n")
        (scratch / path.name).replace(path)


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a folder itself, so that no file is left; the system lets go when the process ends.

    Args:
        folder: What one process at a time may hold.
        wait: For the one that holds it; for those that hold it for a moment only.

    Raises:
        ValueError: Another process holds it, and this one does not wait.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        os.close(handle)
        raise ValueError(f"another process is writing {folder}; wait for it to end") from error
    try:
        yield
    finally:
        os.close(handle)


class Manifest:
    """The manifest while shards are being written: each is added as it is finished.

    A line that a crash cut off is dropped when the manifest is opened again.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "manifest.jsonl"
        content = self.path.read_bytes() if self.path.is_file() else b""
        whole = content[: content.rfind(b"\n") + 1]
        self.records = {record.shard: record for record in parse_manifest(whole, str(self.path))}
        if whole != content:
            self._replace(whole)

    def add(self, record: Record) -> None:
        """Append one finished shard."""
        self.records[record.shard] = record
        with self.path.open("ab") as stream:
            stream.write(_line(record))
            stream.flush()
            os.fsync(stream.fileno())

    def sort(self) -> None:
        """Put the lines in the order of the shards, whatever the order they were finished in."""
        self._replace(b"".join(_line(self.records[shard]) for shard in sorted(self.records)))

    def _replace(self, content: bytes) -> None:
        partial = self.path.with_name(".manifest.partial")
        write_file(partial, content)
        partial.replace(self.path)


def _line(record: Record) -> bytes:
    return json.dumps(record._asdict()).encode() + b"\n"
