"""Ways to draw a clip: python -m benchmarks.decoding runs/demo/model [runs/demo/maskgit ...].

Each model draws the prompts of captioned shapes without and with guidance, a masked one in as
many steps as asked for, an autoregressive one with int8 weights too, one with a diffusion decoder
by that too. The judge says how many are obeyed; the seconds are those of one clip of 17 frames at
batch 1, median, the contestants in turns.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.sampling import medians
from data.shapes import ALL_COMBINATIONS
from evaluation.prompts import obedience, prompted
from lm import AutoregressivePrior, MaskGITPrior
from pipeline import VideoPipeline

WORDS = ("color", "shape", "direction", "all")


class Row(NamedTuple):
    """A model, how it was asked, prompts obeyed in each word and in all, seconds a clip."""

    model: str
    way: str
    color: float
    shape: float
    direction: float
    obeyed: float
    seconds: float


def ways(pipe: VideoPipeline, scales: list[float], steps: list[int]) -> dict[str, dict[str, Any]]:
    """Return what `generate` is told, by name."""
    found: dict[str, dict[str, Any]] = {"plain": {}}
    found |= {f"guidance {scale:g}": {"guidance_scale": scale} for scale in scales}
    if isinstance(pipe.prior, MaskGITPrior):
        counted = [(count, way, told) for count in steps for way, told in found.items()]
        found |= {f"{way}, {count} steps": {**told, "steps": count} for count, way, told in counted}
    if isinstance(pipe.prior, AutoregressivePrior):
        found["int8"] = {"quantize": "int8"}
    if pipe.decoder is not None:
        found["diffusion decoder"] = {"decoder": "diffusion"}
    return found


def measure(
    folders: list[Path], scales: list[float], steps: list[int], repeats: int, rounds: int
) -> list[Row]:
    """Draw every prompt some times in every way, and one clip in turns."""
    calls: dict[str, tuple[str, str, Callable[..., Tensor]]] = {}
    for folder in folders:
        pipe = VideoPipeline.from_pretrained(folder)
        for way, told in ways(pipe, scales, steps).items():
            calls[f"{folder} {way}"] = str(folder), way, partial(pipe.generate, **told)
    wanted = [*ALL_COMBINATIONS] * repeats
    one = [wanted[0].caption]
    seconds = medians({name: partial(call, one, 17) for name, (*_, call) in calls.items()}, rounds)
    rows = []
    for name, (folder, way, call) in calls.items():
        words = obedience(prompted(call, wanted, 0), wanted)
        color, shape, direction, obeyed = (words[key] for key in WORDS)
        rows.append(Row(folder, way, color, shape, direction, obeyed, seconds[name]))
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("models", nargs="+", type=Path, help="model folders with a prior")
    parser.add_argument("--guidance", nargs="*", type=float, default=[2.0], help="scales")
    parser.add_argument("--steps", nargs="*", type=int, default=[], help="of masked priors")
    parser.add_argument("--repeats", type=int, default=2, help="clips of each prompt")
    parser.add_argument("--rounds", type=int, default=5, help="clips that are timed")
    parser.add_argument("--json", type=Path, help="file to write the rows into")
    args = parser.parse_args(arguments)
    rows = measure(args.models, args.guidance, args.steps, args.repeats, args.rounds)
    table = Table("model", "way", *WORDS, "seconds a clip")
    for row in rows:
        table.add_row(row.model, row.way, *(f"{share:.3f}" for share in row[2:6]), f"{row[6]:.2f}")
    Console().print(table)
    if args.json is not None:
        args.json.write_text(json.dumps([row._asdict() for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
