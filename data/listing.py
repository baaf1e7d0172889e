"""Which videos to prepare: a folder, a list of paths, or a table with captions."""

import csv
import json
import os
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from data.container import VideoError
from data.folder import find_videos, read_caption


class Listed(NamedTuple):
    """One video: the name it is known by, its file, the file's size in bytes, what is said."""

    name: str
    path: str
    size: int
    captions: tuple[str, ...]


class Listing(NamedTuple):
    """The videos in a fixed order, and the reason for each line that names none."""

    videos: list[Listed]
    rejected: dict[str, str]


def list_videos(src: Path, video_column: str, caption_columns: list[str]) -> Listing:
    """Read what `src` lists.

    Lines that name the same video, however its path is spelt, are one video with the captions of
    all of them. Paths are relative to the list.

    Args:
        src: A folder of videos with captions beside them, as `VideoFolder` reads it; a .txt with a
            path a line; a .csv, .tsv or .jsonl with a column of paths and columns of captions.
        video_column: Name of the column of paths.
        caption_columns: Names of the columns of captions; the empty ones are passed over.
    """
    rows = _folder(src) if src.is_dir() else _file(src, video_column, caption_columns)
    base = src if src.is_dir() else src.parent
    videos: dict[str, Listed] = {}
    rejected = {}
    for label, written, captions in rows:
        name = _known_by(written, base)
        try:
            if isinstance(captions, VideoError):
                raise captions
            before = videos[name].captions if name in videos else ()
            said = (clean_caption(caption) for caption in captions)
            merged = dict.fromkeys([*before, *(caption for caption in said if caption)])
            path = base / name
            size = path.stat().st_size
            if not path.is_file():  # a named pipe would be waited for without end
                raise VideoError(f"{name!r} is not a file")
            videos[name] = Listed(name, str(path), size, tuple(merged))
        except (OSError, ValueError) as error:
            rejected[label] = str(error).replace(str(base), "").strip()
    if not videos:
        raise VideoError(f"{src} lists no video that is there; {dict(list(rejected.items())[:3])}")
    return Listing(list(videos.values()), rejected)


def _known_by(written: str, base: Path) -> str:
    """Return the one name of a path: short, and relative to the list where it lies beside it."""
    path, home = Path(os.path.normpath(written)), Path(os.path.abspath(base))
    return (path.relative_to(home) if path.is_relative_to(home) else path).as_posix()


def clean_caption(text: str) -> str:
    """Make a caption one line of printable text; what is no Unicode text is refused."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise VideoError(f"its caption is not valid Unicode: {error.reason}") from error
    plain = "".join(" " if unicodedata.category(c) == "Cc" else c for c in text)
    return " ".join(plain.split())


_Row = tuple[str, str, list[str] | VideoError]  # label in messages, path, captions


def _folder(src: Path) -> Iterator[_Row]:
    for file in find_videos(src):
        name = file.relative_to(src).as_posix()
        try:
            yield name, name, [read_caption(file)]
        except VideoError as error:
            yield name, name, error


def _file(src: Path, video_column: str, caption_columns: list[str]) -> Iterator[_Row]:
    if not src.is_file():
        raise VideoError(f"{src} is neither a folder nor a file; check the path")
    if src.suffix.lower() == ".txt":
        # Not splitlines: a file name may hold what only Unicode calls the end of a line.
        for number, line in enumerate(_text(src).split("\n"), 1):
            if name := line.strip("\r"):
                yield f"line {number}", name, []
    elif src.suffix.lower() in (".csv", ".tsv", ".jsonl"):
        yield from _table(src, video_column, caption_columns)
    else:
        raise VideoError(
            f"{src} ends in {src.suffix!r}; give a folder, or a .txt, .csv, .tsv or .jsonl file"
        )


def _table(src: Path, video_column: str, caption_columns: list[str]) -> Iterator[_Row]:
    for label, row in _records(src):
        if isinstance(row, dict) and row and video_column not in row:
            raise VideoError(
                f"{src}, {label}: there is no column {video_column!r} among "
                f"{', '.join(map(str, row))}; name it by --video-column"
            )
        if not isinstance(row, dict) or not isinstance(row.get(video_column), str):
            yield label, label, VideoError(f"{label} names no video")
            continue
        said = [row.get(column) for column in caption_columns]
        captions = [c for cell in said for c in (cell if isinstance(cell, list) else [cell])]
        yield label, row[video_column], [str(c) for c in captions if c is not None]


def _records(src: Path) -> Iterator[tuple[str, Any]]:
    if src.suffix.lower() == ".jsonl":
        for number, line in enumerate(_text(src).split("\n"), 1):
            if line.strip():
                try:
                    yield f"line {number}", json.loads(line)
                except ValueError:
                    yield f"line {number}", None
        return
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    delimiter = "\t" if src.suffix.lower() == ".tsv" else ","
    with src.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.DictReader(file, delimiter=delimiter)
        for row in reader:
            yield f"line {reader.line_num}", row


def _text(src: Path) -> str:
    return src.read_bytes().decode("utf-8-sig", errors="surrogateescape")
