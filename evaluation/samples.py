"""Sampled videos as files, written while they are made."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from data.video import MAX_GIF_FPS, VideoWriter, write_video
from evaluation.contact_sheet import Row, contact_sheet

SHORT = 128
"""Frames up to which a video also becomes a gif and a row of the contact sheet."""


def write_samples(
    chunks: Iterator[UInt8[Tensor, "B _ H W 3"]],
    labels: list[str],
    num_frames: int,
    out: Path,
    fps: float,
) -> None:
    """Write each video as mp4 while it is made; of short ones also gifs and a contact sheet."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file, but videos go into a folder; give another name")
    kept = []
    with ExitStack() as stack:
        paths = [out / f"{i:03d}.mp4" for i in range(len(labels))]
        writers = [stack.enter_context(VideoWriter(path, fps)) for path in paths]
        for chunk in chunks:
            for writer, clip in zip(writers, chunk, strict=True):
                writer.write(clip)
            if num_frames <= SHORT:
                kept.append(chunk)
    if kept:
        videos = torch.cat(kept, dim=1)
        for path, video in zip(paths, videos, strict=True):
            write_video(path.with_suffix(".gif"), video, min(fps, MAX_GIF_FPS))
        rows = [Row(label, {"": video}) for label, video in zip(labels, videos, strict=True)]
        contact_sheet(rows, out / "samples.png")
    print(f"{len(labels)} videos written to {out}")
