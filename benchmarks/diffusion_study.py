"""Is the diffusion decoder worth it: python -m benchmarks.diffusion_study [--minutes 60].

Trains a tokenizer that is deliberately small (4 x 16 x 16, 240 codes) and finetunes its decoder on
clips; then on the same tokens a diffusion decoder and, for as long, the CNN decoder further. Both
are measured on held-out captioned shapes beside what noise and sharpening alone would win. Goes on
where it was stopped.
"""

import argparse
import json
import os
import platform
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console

from benchmarks.diffusion_measure import (
    Arm,
    pixels,
    read_arm,
    read_truth,
    real_rows,
    row_of,
    sharpened,
    store,
    with_noise,
)
from benchmarks.train_once import train_once
from data.backgrounds import Difficulty
from data.shapes import Shapes
from demo import probe
from layers.processes import local_device
from layers.storage import load_module
from tokenizer import Tokenizer

TOKENIZER = {
    "quantizer": {"class_path": "FSQ", "init_args": {"levels": [8, 6, 5]}},
    "patch": [2, 4],
    "channels": [128, 256],
    "strides": [[2, 4]],
    "encoder_depths": [1, 2],
    "decoder_depths": [2, 3],
}
DIFFICULTY: Difficulty = "grained"  # more than so few tokens can hold
STEPS = (1, 4, 8, 20, 50)
SHARES = {"tokenizer": 0.15, "finetuned": 0.3, "decoder": 0.23, "longer": 0.23, "distilled": 0.09}
CNN = "CNN, finetuned longer"
Config = dict[str, Any]


def tokenizer_config(root: Path) -> Config:
    """Return the demo's recipe with the small tokenizer."""
    config = _recipe("demo_tokenizer", root)
    config["model"]["init_args"]["tokenizer"] = TOKENIZER
    return config


def finetuned_config(root: Path, tokenizer: Path) -> Config:
    """Return the recipe that trains its decoder further, on clips."""
    config = tokenizer_config(root)
    config["model"]["init_args"] |= {"trained": "decoder", "start_from": str(tokenizer)}
    config["data"]["stages"] = [{"num_frames": 17, "batch_size": 8, "share": 1.0}]
    return config


def decoder_config(recipe: str, root: Path, tokenizer: Path) -> Config:
    """Return a recipe of a diffusion decoder, for the small tokenizer."""
    config = _recipe(recipe, root)
    model = config["model"]["init_args"]
    model["tokenizer_folder"] = str(tokenizer)
    model["decoder"] |= {"codebook_size": 240, "strides": [4, 16]}
    return config


def distilled_config(root: Path, tokenizer: Path, decoder: Path) -> Config:
    """Return the recipe that distils the decoder to 8 steps."""
    config = decoder_config("distilled_decoder", root, tokenizer)
    config["model"]["init_args"]["start_from"] = str(decoder)
    return config


def _recipe(name: str, root: Path) -> Config:
    config = yaml.safe_load(Path(f"configs/{name}.yaml").read_text())
    config["trainer"] |= {"default_root_dir": str(root), "limit_val_batches": 2}
    config["export"] = str(root / "model")
    for split in ("train", "val"):
        config["data"][split]["init_args"]["difficulty"] = DIFFICULTY
    return config


def recipes(out: Path) -> dict[str, Config]:
    """Return the recipe of every training, in the order in which they need each other."""
    roots = {name: out / name for name in SHARES}
    plain, tuned, decoder = (roots[n] / "model" for n in ("tokenizer", "finetuned", "decoder"))
    return {
        "tokenizer": tokenizer_config(roots["tokenizer"]),
        "finetuned": finetuned_config(roots["finetuned"], plain),
        "decoder": decoder_config("demo_decoder", roots["decoder"], tuned),
        "longer": finetuned_config(roots["longer"], tuned),
        "distilled": distilled_config(roots["distilled"], tuned, decoder),
    }


def train(config: Config, root: Path, seconds: float) -> float:
    """Train for so many seconds by the public command, unless that is done; return the seconds.

    How many steps fit is decided once.
    """
    path = root / "steps.json"
    if not path.is_file():
        root.mkdir(parents=True, exist_ok=True)
        tried = root / "tried.yaml"
        tried.write_text(yaml.safe_dump(config))
        path.write_text(json.dumps(max(24, int(seconds / probe([f"--config={tried}"])))))
    config["model"]["init_args"]["max_steps"] = json.loads(path.read_text())
    return train_once(config, root)


def arms(out: Path) -> dict[str, Arm]:
    """Return every way from tokens to pixels that is compared."""
    device = local_device()
    tuned, longer = (
        Tokenizer.from_pretrained(out / name / "model").to(device)
        for name in ("finetuned", "longer")
    )
    decoder, student = (
        load_module(out / name / "model" / "decoder").to(device)
        for name in ("decoder", "distilled")
    )
    decoder.attach(tuned)
    student.attach(tuned)
    found: dict[str, Arm] = {
        "CNN, which diffusion refines": lambda tokens, first: pixels(tuned.decode(tokens)),
        CNN: lambda tokens, first: pixels(longer.decode(tokens)),
    }
    for deviation in (2, 4, 8):
        found[f"{CNN} + noise {deviation}"] = lambda tokens, first, d=deviation: with_noise(
            pixels(longer.decode(tokens)), d, first
        )
    for amount in (0.5, 1.0, 2.0, 4.0):
        found[f"{CNN} + sharpening {amount:g}"] = lambda tokens, first, a=amount: sharpened(
            pixels(longer.decode(tokens)), a
        )
    for steps in STEPS:
        found[f"diffusion, {steps} steps"] = lambda tokens, first, s=steps: pixels(
            decoder.decode(tokens, seed=first, steps=s)
        )
    found["distilled, 8 steps"] = lambda tokens, first: pixels(
        student.decode(tokens, seed=first, steps=8)
    )
    return found


def measure(out: Path, num_clips: int) -> list[dict[str, Any]]:
    """Decode held-out clips every way and return the rows of the table."""
    tokenizer = Tokenizer.from_pretrained(out / "tokenizer" / "model")
    truth = read_truth(tokenizer, Shapes(num_clips, "val", difficulty=DIFFICULTY))
    models = [(out / name / "model" / "manifest.json").read_bytes() for name in SHARES]
    folder = out / f"measured-{num_clips}-{sha256(b''.join(models)).hexdigest()[:8]}"
    real = real_rows(truth, folder / "truth.safetensors")
    ways = arms(out)
    rival = read_arm(truth, ways[CNN], folder / f"{CNN}.safetensors")
    rows = []
    for name, arm in ways.items():
        read = read_arm(truth, arm, folder / f"{name}.safetensors")
        rows.append(row_of(name, read, real, rival, list(truth.extractors)))
        Console().print(rows[-1])
    return rows


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/diffusion-study"))
    parser.add_argument("--minutes", type=float, default=60, help="of training, in all")
    parser.add_argument("--clips", type=int, default=128, help="held-out clips, at least 70")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    args = parser().parse_args(arguments)
    budget = {name: 60 * args.minutes * share for name, share in SHARES.items()}
    configs, roots = recipes(args.out), {name: args.out / name for name in SHARES}
    seconds = {name: train(configs[name], roots[name], budget[name]) for name in SHARES}
    rows = measure(args.out, args.clips)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    spent = ", ".join(f"{name} {value / 60:.1f}" for name, value in seconds.items())
    facts = (
        f"Minutes of training on {device} with {os.cpu_count()} cores: {spent}. {args.clips} "
        "held-out clips of 17 frames; in brackets 95 % intervals by the bootstrap over clips. "
        "`flicker` is how far the change from frame to frame is from the truth's, in levels of "
        f"255; `gain` is the share of the Frechet distance of the {CNN} that is gone."
    )
    store(rows, facts, args.out)
    Console().print(f"{args.out / 'table.md'} and table.json hold the table")


if __name__ == "__main__":
    main()
