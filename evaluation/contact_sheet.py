"""Clips as pictures for people: a contact sheet of still frames, and an animated grid."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from data.video import write_video

_BACKGROUND, _TEXT, _FAINT = (17, 19, 24), (236, 238, 242), (139, 146, 160)
_MARGIN, _GAP = 20, 4
_STILL = 8  # levels of 255 by which a pixel of an animation may be out of date


class Row(NamedTuple):
    """One prompt and its clips, drawn one below the other.

    `clips` maps a short tag, shown at the left ("truth", "prediction"), to the frames; the tag of
    a lone clip may be empty.
    """

    label: str
    clips: Mapping[str, UInt8[Tensor, "_ H W 3"]]


def contact_sheet(rows: Sequence[Row], path: str | Path, every: int = 4, scale: int = 2) -> None:
    """Write a PNG with frames 0, `every`, 2 `every`... of each clip below the row's label.

    Args:
        rows: What to show; all frames of one size.
        path: Where to write.
        every: Frames from one picture to the next.
        scale: Enlarges the frames by a whole factor.
    """
    if every < 1 or scale < 1:
        raise ValueError(f"every is {every} and scale is {scale}, but both must be at least 1")
    clips = [clip for row in rows for clip in row.clips.values()]
    height, width = (scale * length for length in _common_size(clips))
    numbers = range(0, max(len(clip) for clip in clips), every)
    small, left = _font(13), _MARGIN + _tag_width(rows, _font(13))
    inside = max(len(numbers) * (width + _GAP) - _GAP, 240)
    heights = [34 + len(row.clips) * (height + _GAP) + 12 for row in rows]
    size = (left + inside + _MARGIN, _MARGIN + 22 + sum(heights))
    sheet = Image.new("RGB", size, _BACKGROUND)
    for column, number in enumerate(numbers):
        place = (left + column * (width + _GAP) + width // 2, _MARGIN)
        ImageDraw.Draw(sheet).text(place, f"{number}", _FAINT, small, anchor="mt")
    for row, top in zip(rows, accumulate([_MARGIN + 22, *heights[:-1]]), strict=True):
        _draw_row(sheet, row, (left, top), every, scale)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def _draw_row(
    sheet: Image.Image, row: Row, corner: tuple[int, int], every: int, scale: int
) -> None:
    draw, font, (left, top) = ImageDraw.Draw(sheet), _font(17), corner
    label = _shorten(row.label, font, sheet.width - _MARGIN - left)
    draw.text((left, top + 15), label, _TEXT, font, anchor="lm")
    top += 34
    for tag, clip in row.clips.items():
        pictures = _enlarge(clip[::every], scale)
        height, width = pictures.shape[1:3]
        draw.text((left - 12, top + height // 2), tag, _FAINT, _font(13), anchor="rm")
        for column, picture in enumerate(pictures):
            sheet.paste(Image.fromarray(picture), (left + column * (width + _GAP), top))
        top += height + _GAP


def animated_grid(
    clips: Sequence[UInt8[Tensor, "_ _ _ 3"]],
    labels: Sequence[str],
    path: str | Path,
    fps: float = 8.0,
    columns: int = 4,
    scale: int = 2,
) -> None:
    """Write clips side by side, each above its label, as an animation (.gif, or .mp4).

    A clip shorter than the longest rests on its last frame. To keep the file small, a pixel stays
    as it is until it has changed by more than a few levels: a picture for people, not for metrics.
    """
    if len(labels) != len(clips):
        raise ValueError(f"there are {len(labels)} labels for {len(clips)} clips; give one each")
    if columns < 1 or scale < 1:
        raise ValueError(f"columns is {columns} and scale is {scale}; both must be at least 1")
    height, width = (scale * length for length in _common_size(clips))
    columns = min(columns, len(clips))
    page, corners = _captioned_page(labels, height, width, columns)
    frames = []
    for time in range(max(len(clip) for clip in clips)):
        frame = page.copy()
        for clip, (left, top) in zip(clips, corners, strict=True):
            now = clip[min(time, len(clip) - 1)][None]
            frame[top : top + height, left : left + width] = _enlarge(now, scale)[0]
        frames.append(_hold(frames[-1], frame) if frames else frame)
    write_video(path, torch.from_numpy(np.stack(frames)), fps)


def _hold(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    change = np.abs(now.astype(np.int16) - before).max(axis=-1, keepdims=True)
    return np.where(change > _STILL, now, before)


def _captioned_page(
    labels: Sequence[str], height: int, width: int, columns: int
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    font, gap, line = _font(12), 10, 14
    cell_width, cell_height = width + gap, height + 2 * line + 8 + gap
    num_rows = -(-len(labels) // columns)
    size = (columns * cell_width + gap, num_rows * cell_height + gap)
    page = Image.new("RGB", size, _BACKGROUND)
    draw = ImageDraw.Draw(page)
    corners = []
    for k, label in enumerate(labels):
        left, top = gap + k % columns * cell_width, gap + k // columns * cell_height
        corners.append((left, top))
        for number, text in enumerate(_two_lines(label, font, width)):
            draw.text((left, top + height + 5 + number * line), text, _TEXT, font)
    return np.asarray(page), corners


def _common_size(clips: Sequence[UInt8[Tensor, "_ _ _ 3"]]) -> tuple[int, int]:
    if not clips:
        raise ValueError("there are 0 clips to show; give at least 1")
    sizes = sorted({(clip.shape[1], clip.shape[2]) for clip in clips})
    if len(sizes) > 1:
        raise ValueError(f"clips have sizes {sizes}, but must share one; use resize_and_crop")
    return sizes[0]


def _enlarge(clip: UInt8[Tensor, "T H W 3"], scale: int) -> np.ndarray:
    large = clip.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    return large.cpu().numpy()


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def _tag_width(rows: Sequence[Row], font: ImageFont.FreeTypeFont) -> int:
    width = max((font.getlength(tag) for row in rows for tag in row.clips), default=0)
    return round(width) + 12 if width else 0


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text.rstrip() + "..."


def _two_lines(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    words, first = text.split(), ""
    while words and font.getlength(f"{first} {words[0]}".strip()) <= width:
        first = f"{first} {words.pop(0)}".strip()
    if not first:  # one word wider than the picture
        return [_shorten(text, font, width)]
    return [first, _shorten(" ".join(words), font, width)] if words else [first]
