"""A plain folder of videos, with captions beside them, as a source of clips."""

import json
import warnings
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from data.source import ClipSource, Place, Sample, fit_window
from data.split import held_out
from data.video import VideoError, iterate_frames

SUFFIXES = (".avi", ".gif", ".mkv", ".mov", ".mp4", ".webm")
FEW_VIDEOS = 10  # below this, holding out whole videos leaves too few to learn from
_NAMED = 10  # names in one warning


class _Video(NamedTuple):
    path: Path
    caption: str
    num_frames: int
    frames: UInt8[Tensor, "T H W 3"] | None  # None where memory did not reach: decoded on demand


class _Span(NamedTuple):
    video: _Video
    begin: int
    end: int


class VideoFolder(ClipSource):
    """Every video in a folder and its subfolders, resampled, resized and kept in memory.

    A video `name.mp4` may have its caption beside it, as `name.txt` or as the "caption" of
    `name.json`. Hidden files and folders are passed over. Videos that are broken, have a broken
    caption or are too short are left out, named in one warning and listed with the reason in
    `skipped`.

    The videos held out for validation are a tenth of the files, or, with fewer than ten files,
    the last fifth of each; `split_rule` says which. Training windows never touch them. The
    validation split counts windows of `min_frames` frames laid end to end, and reads those.

    Args:
        path: The folder.
        split: "train", or "val" for what is held out.
        size: Side of the square frames.
        fps: Frames a second after resampling; slower videos keep the frames they have.
        min_frames: The shortest video that is used, and the length of a validation window.
        seed: Chooses the files held out.
        memory_limit: Bytes of decoded frames to keep; what does not fit is decoded at each read.
    """

    def __init__(
        self,
        path: str | Path,
        split: Literal["train", "val"] = "train",
        size: int = 64,
        fps: float = 8.0,
        min_frames: int = 17,
        seed: int = 0,
        memory_limit: int = 2_000_000_000,
    ) -> None:
        if split not in ("train", "val"):
            raise ValueError(f"split is {split!r}, but must be 'train' or 'val'")
        if min_frames < 1:
            raise ValueError(f"min_frames is {min_frames}, but must be at least 1")
        self.path, self.split = Path(path), split
        self.size, self.min_frames, self._fps = size, min_frames, fps
        self.skipped: dict[str, str] = {}
        videos, names = self._load(memory_limit)
        if len(names) >= FEW_VIDEOS:
            spans, self._split_rule = self._by_file(videos, names, seed)
        else:
            spans, self._split_rule = self._by_time(videos)
        self._spans = spans if split == "train" else self._windows(spans)
        if not self._spans:
            warnings.warn(f"{self.path} has no validation clips: {self._split_rule}", stacklevel=2)

    @property
    def fps(self) -> float:
        return self._fps

    @property
    def captions(self) -> list[str]:
        """The distinct captions of this split, sorted."""
        return sorted({span.video.caption for span in self._spans} - {""})

    @property
    def split_rule(self) -> str:
        """Say in words what is held out for validation."""
        return self._split_rule

    @property
    def shortest(self) -> int | None:
        return min((end - begin for _, begin, end in self._spans), default=None)

    def __len__(self) -> int:
        return len(self._spans)

    def place(self, index: int, num_frames: int, offset: float = 0.0, stride: int = 1) -> Place:
        """Lay the window; the validation split has fixed windows and ignores `offset`."""
        video, begin, end = self._spans[index]
        if not 1 <= num_frames <= end - begin:
            raise ValueError(
                f"num_frames is {num_frames}, but clip {index} of the {self.split} split "
                f"({video.path.name}) has {end - begin}; set min_frames to the length you read"
            )
        start, stride = fit_window(end - begin, num_frames, offset, stride)
        begin += start if self.split == "train" else 0
        return Place(video.path.relative_to(self.path).as_posix(), begin, stride)

    def read(self, index: int, num_frames: int, offset: float = 0.0, stride: int = 1) -> Sample:
        """Cut one clip out of memory, or out of the file where memory did not reach."""
        video = self._spans[index].video
        place = self.place(index, num_frames, offset, stride)
        if video.frames is not None:
            last = place.start + place.stride * (num_frames - 1)
            frames = video.frames[place.start : last + 1 : place.stride].clone()
            return Sample(frames, video.caption, place)
        decoded = iterate_frames(video.path, self.size, place.start, place.stride, self.fps)
        pictures = list(islice(decoded, num_frames))
        if len(pictures) < num_frames:
            raise VideoError(f"{video.path} is shorter than when it was listed; start again")
        return Sample(torch.from_numpy(np.stack(pictures)), video.caption, place)

    def _load(self, memory_limit: int) -> tuple[list[_Video], list[str]]:
        """Return the videos that can be used and the names of all that can be read."""
        files, videos, names = find_videos(self.path), [], []
        for file in files:
            name = self._name(file)
            try:
                video = self._load_one(file, memory_limit)
            except VideoError as error:
                self.skipped[name] = str(error)
                continue
            names.append(name)
            if video.num_frames < self.min_frames:
                self.skipped[name] = (
                    f"{file.name} has {video.num_frames} frames at {self.fps:g} a second, but "
                    f"min_frames is {self.min_frames}; give a longer video, lower min_frames or "
                    "raise fps"
                )
                continue
            memory_limit -= 0 if video.frames is None else video.frames.nbytes
            videos.append(video)
        if self.skipped:
            self._report(len(files))
        return videos, names

    def _name(self, file: Path) -> str:
        return file.relative_to(self.path).as_posix()

    def _load_one(self, file: Path, room: int) -> _Video:
        caption = read_caption(file)
        kept, num_frames = [], 0
        for picture in iterate_frames(file, self.size, fps=self.fps):
            num_frames += 1
            if num_frames * picture.nbytes <= room:
                kept.append(picture)
        whole = len(kept) == num_frames
        frames = torch.from_numpy(np.stack(kept)) if whole else None
        return _Video(file, caption, num_frames, frames)

    def _report(self, num_files: int) -> None:
        names = [f"{name} ({reason})" for name, reason in self.skipped.items()]
        more = f"; and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        text = f"{len(names)} of {num_files} videos in {self.path} cannot be used: "
        text += "; ".join(names[:_NAMED]) + more
        if len(names) == num_files:
            raise VideoError(text)
        warnings.warn(text, stacklevel=4)

    def _by_file(
        self, videos: list[_Video], names: list[str], seed: int
    ) -> tuple[list[_Span], str]:
        held, wanted = held_out(names, seed), self.split == "val"
        chosen = [video for video in videos if (self._name(video.path) in held) == wanted]
        rule = f"{len(held)} of {len(names)} videos, chosen by seed {seed}, are held out whole"
        return [_Span(video, 0, video.num_frames) for video in chosen], rule

    def _by_time(self, videos: list[_Video]) -> tuple[list[_Span], str]:
        spans, num_cut = [], 0
        for video in videos:
            end = cut = video.num_frames
            if end >= 2 * self.min_frames:
                cut -= max(self.min_frames, end // 5)
                num_cut += 1
            begin, end = (0, cut) if self.split == "train" else (cut, end)
            if begin < end:
                spans.append(_Span(video, begin, end))
        rule = (
            f"the last fifth (at least {self.min_frames} frames) of {num_cut} of {len(videos)} "
            f"videos is held out; videos under {2 * self.min_frames} frames are for training only"
        )
        return spans, rule

    def _windows(self, spans: list[_Span]) -> list[_Span]:
        length = self.min_frames
        return [
            _Span(video, start, start + length)
            for video, begin, end in spans
            for start in range(begin, end - length + 1, length)
        ]


def find_videos(folder: Path) -> list[Path]:
    """List the videos of a folder and its subfolders, in order of their names."""
    if not folder.is_dir():
        raise VideoError(f"{folder} is not a folder; give the folder that holds the videos")
    files = sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in SUFFIXES
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )
    if not files:
        raise VideoError(f"{folder} holds no video; accepted are {', '.join(SUFFIXES)}")
    return files


def read_caption(file: Path) -> str:
    """Read what is said beside a video, in one line; "" where nothing is."""
    text, table = file.with_suffix(".txt"), file.with_suffix(".json")
    try:
        if text.is_file():
            caption = text.read_text(encoding="utf-8")
        elif table.is_file():
            caption = json.loads(table.read_text(encoding="utf-8")).get("caption", "")
        else:
            caption = ""
        return " ".join(caption.split())
    except (AttributeError, ValueError) as error:
        raise VideoError(f"the caption beside {file.name} cannot be read: {error}") from error
