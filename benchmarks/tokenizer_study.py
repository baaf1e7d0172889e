"""Which bottleneck and which network: python -m benchmarks.tokenizer_study [--videos FOLDER].

Trains the demo's tokenizer with each bottleneck for equally many steps, on captioned shapes and on
a folder of videos if one is given (no videos come with the project), then the sizes small and base
with more codes than they use, and writes a table of what survives on held-out clips. About an hour
on two CPU cores; goes on where it was stopped. So few steps do not tell the sizes apart:
`--sizes --videos FOLDER` trains these two alone, for longer, in two hours.
"""

import argparse
import copy
import json
import math
import os
import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from rich.console import Console

from benchmarks.train_once import train_once
from data import Shapes, VideoFolder
from data.source import ClipSource
from data.video import to_model_range, to_uint8
from evaluation.codebook import CodebookUsage
from evaluation.pixel import FramePSNR, FrameSSIM
from tokenizer import Tokenizer
from tokenizer.presets import PRESETS
from training.module import Recipe

BOTTLENECKS: dict[str, dict[str, Any]] = {
    # Without the entropies FSQ uses a fifth of its codes on real videos, and is no better.
    "FSQ": {
        "class_path": "FSQ",
        "init_args": {"levels": [8, 5, 5, 5], "entropy_weight": 0.2, "temperature": 0.25},
    },
    "LFQ": {"class_path": "LFQ", "init_args": {"bits": 10}},
    "VQ": {"class_path": "VQ", "init_args": {"codebook_size": 1024}},
    "KL": {"class_path": "KL", "init_args": {"dim": 4}},
}
# Networks are compared where codes do not bound them; the wider one takes half the rates.
MANY = {"FSQ-64000": {"class_path": "FSQ", "init_args": {"levels": [8, 8, 8, 5, 5, 5]}}}
CONTINUOUS = {"KL-16": {"class_path": "KL", "init_args": {"dim": 16}}}
RATES = {"small": 1.0, "base": 0.5}
STAGES = [
    {"num_frames": 1, "batch_size": 16, "share": 0.25},
    {"num_frames": 9, "batch_size": 4, "share": 0.75},
]
COLUMNS = ["data", "size", "network", "bottleneck", "steps", "codes", "tokens"]
COLUMNS += ["psnr", "ssim", "usage", "perplexity", "rate"]
PLACES = {"psnr": 2, "ssim": 3, "usage": 2, "perplexity": 0}
FRAMES, BATCH, CLIPS = 17, 8, 128


class Run(NamedTuple):
    """One training and its row of the table."""

    data: str
    size: int
    network: str
    bottleneck: str
    steps: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        return "-".join(str(part) for part in self)

    def source(self, videos: Path | None) -> ClipSource:
        """Return the held-out clips."""
        if self.data == "shapes" or videos is None:
            return Shapes(split="val", num_clips=CLIPS)
        return VideoFolder(videos, split="val", size=self.size)

    def config(self, videos: Path | None) -> dict[str, Any]:
        """Return what train.py is to do: a published recipe with another tokenizer."""
        recipe = "demo" if self.data == "shapes" else "videos"
        config = yaml.safe_load(Path(f"configs/{recipe}_tokenizer.yaml").read_text())
        model = config["model"]["init_args"]
        model["max_steps"] = self.steps
        if self.bottleneck == "LFQ":  # its entropies count three times at first, then less and less
            model["quantizer_anneal_steps"] = self.steps // 2
        quantizer = (BOTTLENECKS | MANY | CONTINUOUS)[self.bottleneck]
        model["tokenizer"] = {**PRESETS[self.network], "quantizer": quantizer}
        if self.bottleneck not in BOTTLENECKS:
            for name in ("learning_rate", "matrix_learning_rate"):
                model["recipe"][name] = RATES[self.network] * getattr(Recipe(), name)
            config["data"]["stages"] = copy.deepcopy(STAGES)
        if self.data == "videos":
            for split in ("train", "val"):
                config["data"][split]["init_args"] |= {"path": str(videos), "size": self.size}
        if self.bottleneck in CONTINUOUS:
            config["trainer"]["val_check_interval"] = max(1, self.steps // 4)
        else:  # as many pixels a step in every run of the table
            for stage in config["data"]["stages"]:
                stage["batch_size"] = max(1, stage["batch_size"] * 64**2 // self.size**2)
        return config


def runs(videos: Path | None, steps: int, network_steps: int) -> list[Run]:
    """Return the rows in order."""
    data = "videos" if videos else "shapes"
    bottlenecks = [Run("shapes", 64, "tiny", name, steps) for name in BOTTLENECKS]
    if videos:
        bottlenecks += [Run("videos", 128, "tiny", name, steps) for name in BOTTLENECKS]
    networks = [Run(data, 64, name, many, network_steps) for name in RATES for many in MANY]
    return bottlenecks + networks


def sizes(steps: int) -> list[Run]:
    """Return the rows that tell the sizes of networks apart, without a quantizer's bound."""
    return [
        Run("videos", 32, name, bottleneck, steps) for name in RATES for bottleneck in CONTINUOUS
    ]


@torch.inference_mode()
def measure(tokenizer: Tokenizer, source: ClipSource) -> dict[str, Any]:
    """Return figures over held-out clips; `rate` is bits a pixel, for KL nats a pixel."""
    psnr, ssim, stats = FramePSNR(), FrameSSIM(), []
    codes = getattr(tokenizer.quantizer, "codebook_size", None)
    usage = CodebookUsage(codes) if codes else None
    count, positions = min(CLIPS, len(source)), 0.0
    for first in range(0, count, BATCH):
        reads = [source.read(i, FRAMES) for i in range(first, min(first + BATCH, count))]
        truth = torch.stack([sample.frames for sample in reads])
        quantized = tokenizer.encode_latents(to_model_range(truth))
        clips = to_uint8(tokenizer.decode_latents(quantized.latents).clamp(-1, 1))
        psnr.update(clips, truth)
        ssim.update(clips, truth)
        if usage is not None and quantized.tokens is not None:
            usage.update(quantized.tokens)
        stats.append({name: value.item() for name, value in quantized.stats.items()})
        positions = quantized.latents[0, 0].numel() / truth[0, ..., 0].numel()
    row: dict[str, Any] = {"psnr": psnr.compute().item(), "ssim": ssim.compute().item()}
    if usage is not None:
        used = usage.compute()
        row |= {"codes": codes, "usage": used.share, "perplexity": used.perplexity}
        return row | {"tokens": used.num_tokens, "rate": math.log2(usage.codebook_size) * positions}
    means = {name: sum(f[name] for f in stats) / len(stats) for name in stats[0]}
    active = f"{means['active_dims']:.0f} of {tokenizer.quantizer.dim} dims active"
    return row | {"codes": active, "rate": means["nats_per_latent"] * positions}


def markdown(rows: list[dict[str, Any]], facts: str) -> str:
    """Return the table as Markdown."""
    lines = [facts, "", "| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for row in rows:
        cells = {name: f"{row[name]:.{places}f}" for name, places in PLACES.items() if name in row}
        cells["rate"] = f"{row['rate']:.3f} {'bits' if 'usage' in row else 'nats'}/pixel"
        cells = {**row, **cells}
        lines.append("| " + " | ".join(str(cells.get(name, "")) for name in COLUMNS) + " |")
    return "\n".join(lines) + "\n"


def train(todo: list[Run], out: Path, videos: Path | None) -> float:
    """Train what is not trained yet, the longest first; return the seconds of all.

    On CPUs two train at a time with half of the cores each, which waste less of them.
    """
    jobs = 1 if torch.cuda.is_available() else 2
    threads = max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else None
    with ThreadPoolExecutor(jobs) as pool:
        started = [
            pool.submit(train_once, run.config(videos), out / run.name, threads)
            for run in reversed(todo)
        ]
        try:
            return sum(one.result() for one in started)
        finally:  # after Ctrl-C, or where one stopped, no other begins
            pool.shutdown(cancel_futures=True)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/tokenizer-study"))
    parser.add_argument("--videos", type=Path, help="folder of videos to learn as well")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--network-steps", type=int, default=240)
    parser.add_argument("--sizes", action="store_true", help="small and base alone, on the videos")
    parser.add_argument("--size-steps", type=int, default=700)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    args = parser().parse_args(arguments)
    if args.sizes and args.videos is None:
        raise SystemExit("--sizes compares networks on real clips; give a folder of them: --videos")
    rows, todo = [], runs(args.videos, args.steps, args.network_steps)
    if args.sizes:
        todo, args.out = sizes(args.size_steps), args.out / "sizes"
    seconds = train(todo, args.out, args.videos)
    for run in todo:
        tokenizer = Tokenizer.from_pretrained(args.out / run.name / "model")
        rows.append({**run._asdict(), **measure(tokenizer, run.source(args.videos))})
        Console().print(rows[-1])
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    facts = (
        f"{seconds / 60:.0f} minutes of training, on CPUs two at a time, on {device} with "
        f"{os.cpu_count()} cores; held-out clips of {FRAMES} frames."
    )
    (args.out / "table.json").write_text(json.dumps(rows, indent=2) + "\n")
    (args.out / "table.md").write_text(markdown(rows, facts))
    Console().print(f"{args.out / 'table.md'} and table.json hold the table")


if __name__ == "__main__":
    main()
