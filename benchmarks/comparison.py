"""Rows of figures, each beside that of an answer that needs less, shown as they are measured."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from einops import repeat
from jaxtyping import Bool, UInt8
from rich.console import Console
from rich.table import Table
from torch import Tensor

from evaluation.pixel import FramePSNR

Clips = UInt8[Tensor, "B T H W 3"]


class Row(NamedTuple):
    """What was done, what was measured, and the same of something simpler."""

    task: str
    measure: str
    figure: float
    baseline: str
    baseline_figure: float


def compare(measures: Iterable[Callable[[], list[Row]]], path: Path | None) -> list[Row]:
    """Measure one after another, print the table and perhaps write it as JSON."""
    console, rows = Console(), []
    table = Table("task", "measure", "figure", "baseline", "its figure")
    for measure in measures:
        for row in measure():
            rows.append(row)
            console.print(
                f"{row.task}: {row.figure:.3g} ({row.baseline}: {row.baseline_figure:.3g})"
            )
            figures = f"{row.figure:.3g}", row.baseline, f"{row.baseline_figure:.3g}"
            table.add_row(row.task, row.measure, *figures)
    console.print(table)
    if path is not None:
        path.write_text(json.dumps([row._asdict() for row in rows], indent=2) + "\n")
    return rows


def psnr(made: Clips, truth: Clips, mask: Bool[Tensor, "H W"] | None = None) -> float:
    """Return the mean PSNR of frames, or of the pixels of a mask, in decibels."""
    metric = FramePSNR()
    places = None if mask is None else repeat(mask, "h w -> b t h w", b=len(made), t=made.shape[1])
    metric.update(made, truth, places)
    return metric.compute().item()
