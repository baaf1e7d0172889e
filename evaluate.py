"""Evaluate by a protocol: python evaluate.py captioned-shapes runs/demo/model --out runs/result.

Writes result.json, report.html and the clips that the page shows. `torchrun --nproc-per-node 2
evaluate.py ...` shares the clips over processes and gives the same numbers.

    evaluate.py PROTOCOL MODEL [DATA]     a model folder or hub id, or a .npy of uint8 clips
    evaluate.py compare RESULT RESULT     two results side by side, or why not
    evaluate.py surprise MODEL VIDEO      bits of each latent frame over time
    evaluate.py blind RESULT RESULT       a page on which people choose the better clip
    evaluate.py votes KEY FILE...         what they chose
    evaluate.py --self-test               oracles, and golden values where weights are given
"""

import argparse
import atexit
import math
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, distributed

from data.container import VideoError
from diffusion.sampler import Solver
from evaluation import result
from evaluation.blind import collect_votes, write_blind_page
from evaluation.experiment import Files, Found, Options, evaluate
from evaluation.measures import TextEncoder
from evaluation.protocol import Protocol
from evaluation.protocol_report import write_result_page
from evaluation.protocols import PROTOCOLS
from evaluation.run import REAL
from evaluation.self_test import self_test
from evaluation.surprise import write_surprise
from layers.processes import device, local_device
from pipeline import VideoPipeline

SAMPLING = {
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "min_p": float,
    "guidance_scale": float,
    "steps": int,
    "choice_temperature": float,
    "decoder": Literal["cnn", "diffusion"],
    "decoder_steps": int,
    "decoder_guidance": float,
    "decoder_solver": Solver,
}
console = Console(width=None if sys.stdout.isatty() else 140)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--self-test", action="store_true", help="check the metrics, then stop")
    parser.add_argument("--i3d", type=Path, help="I3D for the self-test's golden values")
    commands = parser.add_subparsers(dest="command", metavar="PROTOCOL or command")
    for protocol in PROTOCOLS.values():
        _protocol_parser(commands.add_parser(protocol.name, help=protocol.data), protocol)
    for name in ("compare", "blind"):
        command = commands.add_parser(name)
        command.add_argument("results", nargs=2, type=Path, help="result.json or its folder")
        command.add_argument("--seed", type=int, default=0, help="which side is which")
        command.add_argument("--out", type=Path, default=Path(f"{name}.html"))
    votes = commands.add_parser("votes")
    votes.add_argument("key", type=Path, help="the .key.json beside the page")
    votes.add_argument("files", nargs="+", type=Path, help="what the blind page saved")
    surprise = commands.add_parser("surprise")
    surprise.add_argument("model", help="model folder or hub id")
    surprise.add_argument("video", type=Path)
    surprise.add_argument("--out", type=Path, default=Path("surprise"), help="folder")
    surprise.add_argument("--device", type=device, default=local_device())
    return parser


def _protocol_parser(parser: argparse.ArgumentParser, protocol: Protocol) -> None:
    parser.add_argument("model", help="model folder, hub id, .npy of clips, or 'none'")
    parser.add_argument("data", nargs="?", type=Path, help="the benchmark, or any folder of videos")
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--clips", type=int, help="fewer units than the protocol says")
    parser.add_argument("--batch-size", type=int, default=8, help="units at a time")
    parser.add_argument("--device", type=device, default=local_device())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--replicates", type=int, default=200, help="draws of the bootstrap")
    parser.add_argument("--i3d", type=Path, help="I3D weights: then, and only then, FVD")
    parser.add_argument("--i3d-sha256", help="what the hash of that file must be")
    parser.add_argument("--features", type=Path, help="another video network, as TorchScript")
    parser.add_argument("--frame-features", type=Path, help="Inception for FID, as TorchScript")
    parser.add_argument("--classifier", type=Path, help="C3D for the video IS, as TorchScript")
    parser.add_argument("--lpips", type=Path, help="perceptual distance, as TorchScript")
    parser.add_argument("--clip", type=Path, help="folder of a CLIP model")
    parser.add_argument("--train-data", type=Path, help="what the model was trained on")
    if protocol.is_open:
        held = "all videos, or those that training holds out"
        parser.add_argument("--split", choices=["all", "val"], default=protocol.split, help=held)
    for name, kind in SAMPLING.items():
        option, choices = f"--{name.replace('_', '-')}", get_args(kind) or None
        kind = str if choices else kind
        parser.add_argument(option, type=kind, choices=choices, help="of generate")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    command_line = parser()
    args = command_line.parse_args(arguments)
    if args.self_test:
        sys.exit(self_test(console, args.i3d))
    if args.command is None:
        command_line.error("give a protocol, a command or --self-test")
    elif args.command == "compare":
        compare(*args.results)
    elif args.command == "blind":
        write_blind_page(args.out, *args.results, seed=args.seed)
    elif args.command == "votes":
        console.print_json(data=collect_votes(args.key, args.files))
    elif args.command == "surprise":
        model = VideoPipeline.from_pretrained(args.model, args.device)
        write_surprise(model, args.video, args.out)
    else:
        run(args)


def run(args: argparse.Namespace) -> None:
    """Run a protocol; the first process writes."""
    rank, world_size = _join()
    given = Path(args.model)
    file = given if given.is_file() or given.suffix == ".npy" else None
    model = None
    if file is None and args.model != "none":
        model = VideoPipeline.from_pretrained(args.model, args.device)
    files = Files(
        args.i3d,
        args.i3d_sha256,
        args.features,
        args.frame_features,
        args.classifier,
        args.lpips,
        _text_encoder(args.clip),
        args.train_data,
    )
    sampling = {n: getattr(args, n) for n in SAMPLING if getattr(args, n) is not None}
    how = args.clips, args.batch_size, args.seed, args.replicates, sampling, rank, world_size
    options = Options(*how, args.device)
    protocol = PROTOCOLS[args.command]
    if protocol.is_open:
        protocol = replace(protocol, split=args.split)
    found = evaluate(protocol, model, args.data, files, options, file)
    if found is not None:
        write(args.out, found)


def write(out: Path, found: Found) -> None:
    """Write result.json, the kept clips and the page; print the figures."""
    result.write(out / "result.json", found.result)
    clips = kept_clips(found)
    for name, kept in clips.items():
        np.save(out / f"{name}.npy", kept.numpy())
    fps = found.result["counts"]["fps"]
    write_result_page(out / "report.html", result.read(out), clips, fps)
    show(found.result["systems"])
    console.print(f"{out / 'report.html'} shows all of it")


def kept_clips(found: Found) -> dict[str, Tensor]:
    """Return the clips of the model and of the truth that were kept."""
    size, frames = found.result["counts"]["size"], found.result["protocol"]["num_frames"]
    return {
        name: rows.to(torch.uint8).reshape(-1, frames, size, size, 3)
        for (name, what), rows in found.rows.items()
        if what == "clips" and name in ("model", REAL)
    }


def compare(first: Path, second: Path) -> None:
    """Print the figures of two models side by side, or refuse.

    Raises:
        ValueError: They do not belong to one protocol, one set of clips and one extractor.
    """
    found = [result.read(path) for path in (first, second)]
    result.require_comparable(*found)
    paths = zip((first, second), found, strict=True)
    show({str(path): one["systems"]["model"] for path, one in paths})


def show(systems: dict[str, Any]) -> None:
    """Print figures with their intervals, a system a column."""
    table = Table("figure", *systems)
    for name in dict.fromkeys(f for system in systems.values() for f in system["figures"]):
        found = [system["figures"].get(name) for system in systems.values()]
        table.add_row(name, *map(_cell, found))
    console.print(table)


def _cell(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return ""
    known = {key: math.nan if number is None else number for key, number in figure.items()}
    value, low, high = (known[key] for key in ("value", "low", "high"))
    return f"{value:.4g}" if math.isnan(low) else f"{value:.4g} ({low:.3g}..{high:.3g})"


def _join() -> tuple[int, int]:
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size > 1 and not distributed.is_initialized():
        distributed.init_process_group("gloo")
        atexit.register(distributed.destroy_process_group)  # or its threads outlive the interpreter
    return int(os.environ.get("RANK", "0")), world_size


def _text_encoder(folder: Path | None) -> TextEncoder | None:
    if folder is None:
        return None
    try:
        from evaluation.clip import CLIPFeatures
    except ImportError as error:
        raise ValueError("--clip needs transformers: pip install transformers") from error
    return CLIPFeatures(folder)


if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")
    try:
        main()
    except (ValueError, VideoError) as error:
        sys.exit(f"evaluate.py: {error}")
