"""A video's surprise on a page: bits of each latent frame over time."""

import csv
import statistics
from pathlib import Path
from typing import Any

from data.video import iterate_frames
from evaluation.likelihood import Surprise, kind, surprise
from evaluation.plots import STYLE, Curve, plot
from evaluation.report import number, write_page

_FAR = 5  # mean absolute deviations from the median at which a latent frame stands out


def write_surprise(model: Any, video: Path, out: Path) -> list[Surprise]:
    """Judge a video and write surprise.csv and surprise.html.

    Args:
        model: A pipeline with a prior; the video is brought to its size and rate.
        video: The file.
        out: Folder to write into.
    """
    found = list(surprise(model, iterate_frames(video, model.size, fps=model.fps)))
    out.mkdir(parents=True, exist_ok=True)
    with (out / "surprise.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["seconds", *Surprise._fields])
        writer.writerows([row.first_frame / model.fps, *row] for row in found)
    bits = [row.bits for row in found]
    name = {"bits": "bits", "pseudo_bits": "pseudo-bits (Besag)"}[kind(model.prior) or "bits"]
    odd = [row for row in found[1:] if _stands_out(row.bits, bits[1:])]
    marked = "".join(
        f"<li>frames {row.first_frame} to {row.last_frame}, from "
        f"{row.first_frame / model.fps:.2f} s: {number(row.bits)} {name}</li>"
        for row in odd
    )
    parts = [
        "<h1>Surprise</h1>",
        f"<p>{name} of each latent frame, given those before it; {video.name} at {model.size} x "
        f"{model.size} pixels and {model.fps:g} frames a second.</p>",
        plot({name: Curve(bits, [None] * len(bits), [None] * len(bits))}, 0, name, "latent frame"),
        "<h2>What stands out</h2>",
        f"<ul>{marked}</ul>" if marked else "<p>Nothing does.</p>",
    ]
    write_page(out / "surprise.html", f"Surprise: {video.name}", parts, STYLE)
    return found


def _stands_out(value: float, values: list[float]) -> bool:
    """Compare with the median by the median deviation; the first latent frame has no past."""
    median = statistics.median(values)
    return value - median > _FAR * statistics.median(abs(v - median) for v in values)
