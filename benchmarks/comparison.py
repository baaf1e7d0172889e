"""Rows of figures, each beside that of an answer that needs less, shown as they are measured."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table


class Row(NamedTuple):
    """What was done, what was measured, and the same of something simpler."""

    task: str
    measure: str
    figure: float
    baseline: str
    baseline_figure: float


def compare(measures: Mapping[str, Callable[[], list[Row]]], path: Path | None) -> list[Row]:
    """Measure one after another, print the table and perhaps write it as JSON."""
    console, rows = Console(), []
    table = Table("task", "measure", "figure", "baseline", "its figure")
    for measure in measures.values():
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
