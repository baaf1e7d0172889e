"""One training step over a long video: python -m benchmarks.long_context [--json FILE].

A prior with the demo's network reads clips of 128 latent frames of 4 x 4 to 16 x 16 tokens, the
last of them the 32,768 tokens of Large World Model (Liu et al. 2024, arXiv 2402.08268), and takes
one step in bfloat16 with checkpointed blocks: loss, gradients and update. Peak memory is that of a
process which does nothing else.
"""

import argparse
import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.tokenizer import resident
from lm import AutoregressivePrior, Condition, Transformer
from training.optimizer import MuonAdamW, split_parameters
from training.precision import autocast

FRAMES, SIDES, CODES = 128, (4, 8, 16), 8192


def step(side: int) -> dict[str, Any]:
    """Take a step over one clip and return what it took."""
    torch.manual_seed(0)
    grid = [FRAMES, side, side]
    network = Transformer(width=256, depth=6, num_heads=2, checkpointing=True)
    prior = AutoregressivePrior(network, CODES, grid).train()
    matrices, rest = split_parameters(prior)
    optimizer = MuonAdamW(matrices, rest, matrix_learning_rate=0.02, learning_rate=1e-3)
    tokens = torch.randint(CODES, (1, *grid))
    start = time.perf_counter()
    with autocast(tokens.device):
        loss = prior.loss(tokens, Condition([[]]))
    loss.backward()
    optimizer.step()
    seconds = time.perf_counter() - start
    return {
        "tokens": math.prod(grid),
        "parameters": sum(p.numel() for p in prior.parameters()),
        "seconds": seconds,
        "peak_gb": resident(),
        "nats": loss.item(),
    }


def apart(side: int) -> dict[str, Any]:
    """Take the step in a process of its own."""
    code = f"import json; from benchmarks.long_context import step; print(json.dumps(step({side})))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="A training step over a long video.")
    parser.add_argument("--json", type=Path, help="file to write the rows into")
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES, help="of a latent frame")
    args = parser.parse_args(arguments)
    rows, table = [], Table("tokens", "seconds a step", "tokens a second", "peak (GB)", "nats")
    for side in args.sides:
        row = apart(side)
        rows.append(row)
        rate = row["tokens"] / row["seconds"]
        figures = (row["seconds"], rate, row["peak_gb"], row["nats"])
        table.add_row(f"{row['tokens']:,}", *(f"{figure:.2f}" for figure in figures))
    Console().print(table)
    if args.json is not None:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
