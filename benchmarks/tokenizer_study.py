"""Which bottleneck, at equal network, data and steps: python -m benchmarks.tokenizer_study.

Trains the demo's tokenizer with each one, on captioned shapes and on a folder of videos if one is
given, and writes a table of what survives on held-out clips. Goes on where it was stopped.
"""

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console

from data import Shapes, VideoFolder
from data.source import ClipSource
from data.video import to_model_range, to_uint8
from evaluation.codebook import CodebookUsage
from evaluation.pixel import FramePSNR, FrameSSIM
from pipeline import VideoPipeline

BOTTLENECKS: dict[str, dict[str, Any]] = {
    "FSQ": {"class_path": "FSQ", "init_args": {"levels": [8, 5, 5, 5]}},
    "LFQ": {"class_path": "LFQ", "init_args": {"bits": 10}},
    "VQ": {"class_path": "VQ", "init_args": {"codebook_size": 1024}},
    "KL": {"class_path": "KL", "init_args": {"dim": 4}},
}
COLUMNS = ["data", "bottleneck", "codes", "tokens", "psnr", "ssim", "usage", "perplexity", "rate"]
FRAMES, BATCH, CLIPS = 17, 8, 128
VIDEO_SIZE = 128  # real videos have details; as many pixels a step as the shapes
VIDEO_STAGES = [
    {"num_frames": 1, "batch_size": 8, "share": 0.25},
    {"num_frames": 9, "batch_size": 2, "share": 0.25},
    {"num_frames": 17, "batch_size": 2, "share": 0.5},
]


def train_one(root: Path, bottleneck: str, steps: int, videos: Path | None) -> float:
    """Train by the public command, unless that is done; return the seconds it took."""
    done = root / "seconds.json"
    if not done.is_file():
        source = Path("configs") / f"{'videos' if videos else 'demo'}_tokenizer.yaml"
        config = yaml.safe_load(source.read_text())
        model = config["model"]["init_args"]
        model["max_steps"] = steps
        model["tokenizer"]["quantizer"] = BOTTLENECKS[bottleneck]
        config["trainer"]["default_root_dir"] = str(root)
        config["export"] = str(root / "model")
        if videos:
            config["data"]["stages"] = VIDEO_STAGES
            for split in ("train", "val"):
                config["data"][split]["init_args"] |= {"path": str(videos), "size": VIDEO_SIZE}
        root.mkdir(parents=True, exist_ok=True)
        (root / "config.yaml").write_text(yaml.safe_dump(config))
        started = time.monotonic()
        command = [sys.executable, "train.py", "fit", f"--config={root / 'config.yaml'}"]
        subprocess.run(command, check=True)
        done.write_text(json.dumps(time.monotonic() - started))
    return json.loads(done.read_text())


@torch.inference_mode()
def measure(model: Path, source: ClipSource) -> dict[str, Any]:
    """Return figures over held-out clips; `rate` is bits a pixel, for KL nats a pixel."""
    tokenizer = VideoPipeline.from_pretrained(model).tokenizer
    psnr, ssim, figures = FramePSNR(), FrameSSIM(), []
    discrete = getattr(tokenizer.quantizer, "codebook_size", None)
    usage = CodebookUsage(discrete) if discrete else None
    count = min(CLIPS, len(source))
    for first in range(0, count, BATCH):
        reads = [source.read(i, FRAMES) for i in range(first, min(first + BATCH, count))]
        truth = torch.stack([sample.frames for sample in reads])
        quantized = tokenizer.encode_latents(to_model_range(truth))
        clips = to_uint8(tokenizer.decode_latents(quantized.latents).clamp(-1, 1))
        psnr.update(clips, truth)
        ssim.update(clips, truth)
        if usage is not None and quantized.tokens is not None:
            usage.update(quantized.tokens)
        figures.append({name: value.item() for name, value in quantized.stats.items()})
    row: dict[str, Any] = {"psnr": psnr.compute().item(), "ssim": ssim.compute().item()}
    positions = quantized.latents[0, 0].numel() / truth[0, ..., 0].numel()
    if usage is not None:
        used = usage.compute()
        row |= {"codes": discrete, "usage": used.share, "perplexity": used.perplexity}
        return row | {"tokens": used.num_tokens, "rate": math.log2(usage.codebook_size) * positions}
    means = {name: sum(f[name] for f in figures) / len(figures) for name in figures[0]}
    return row | {
        "rate": means["nats_per_latent"] * positions,
        "active_dims": f"{means['active_dims']:.1f} of {tokenizer.quantizer.dim}",
    }


def markdown(rows: list[dict[str, Any]], facts: str) -> str:
    """Return the table as Markdown."""
    lines = [facts, "", "| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for row in rows:
        cells = {**row, "codes": row.get("codes", f"{row.get('active_dims')} dims active")}
        unit = "bits" if "usage" in row else "nats"
        cells["rate"] = f"{row['rate']:.3f} {unit}/pixel"
        for name, places in (("psnr", 2), ("ssim", 3), ("usage", 3), ("perplexity", 0)):
            cells[name] = f"{row[name]:.{places}f}" if name in row else ""
        lines.append("| " + " | ".join(str(cells.get(name, "")) for name in COLUMNS) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/tokenizer-study"))
    parser.add_argument("--videos", type=Path, help="folder of videos to learn as well")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--bottlenecks", nargs="+", default=list(BOTTLENECKS), choices=BOTTLENECKS)
    args = parser.parse_args(arguments)
    sets: dict[str, ClipSource] = {"shapes": Shapes(split="val", num_clips=CLIPS)}
    if args.videos:
        sets["videos"] = VideoFolder(args.videos, split="val", size=VIDEO_SIZE)
    rows, seconds = [], 0.0
    for name, source in sets.items():
        for bottleneck in args.bottlenecks:
            root = args.out / f"{name}-{bottleneck}-{args.steps}"
            videos = args.videos if name == "videos" else None
            seconds += train_one(root, bottleneck, args.steps, videos)
            row = {"data": name, "bottleneck": bottleneck, **measure(root / "model", source)}
            rows.append(row)
            Console().print(row)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    facts = (
        f"{args.steps} steps each, {seconds / 60:.0f} minutes of training in all on {device} with "
        f"{os.cpu_count()} cores; held-out clips of {FRAMES} frames, shapes 64 x 64, "
        f"videos {VIDEO_SIZE} x {VIDEO_SIZE}."
    )
    (args.out / "table.json").write_text(json.dumps(rows, indent=2) + "\n")
    (args.out / "table.md").write_text(markdown(rows, facts))
    Console().print((args.out / "table.md").read_text(), highlight=False)


if __name__ == "__main__":
    main()
