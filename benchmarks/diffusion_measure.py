"""What the study of the diffusion decoder reads off clips, and how rows become a table."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Float64, Int, UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.comparison import Clips, Row
from benchmarks.comparison import psnr as frame_psnr
from data.shapes import Shapes
from data.video import to_model_range, to_uint8
from evaluation.bootstrap import Estimate, Figure, estimate, weighted_mean
from evaluation.extractors import EncoderFeatures
from evaluation.frechet import RandomFeatures3D, feature_distance
from evaluation.pixel import frame_change, frame_mse, psnr
from evaluation.shapes_judge import judge
from layers.processes import local_device
from tokenizer import Tokenizer
from training.precision import autocast

FRAMES, BATCH = 17, 16
Arm = Callable[[Int[Tensor, "B t h w"], int], Clips]
"""One way from tokens to pixels; the second argument is the number of the first clip."""


class Truth(NamedTuple):
    """Held-out clips, their tokens, and who tells them from others."""

    clips: UInt8[Tensor, "N T H W 3"]
    tokens: Int[Tensor, "N t h w"]
    combinations: list[Any]
    extractors: dict[str, nn.Module]
    tokenizer: Tokenizer


@torch.inference_mode()
def read_truth(tokenizer: Tokenizer, source: Shapes) -> Truth:
    """Read all clips of a source and encode them."""
    num_clips = len(source)
    clips = torch.stack([source.read(i, FRAMES).frames for i in range(num_clips)])
    tokens = torch.cat([tokenizer.encode(to_model_range(part)) for part in clips.split(BATCH)])
    combinations = [source.scene(i).combination for i in range(num_clips)]
    return Truth(clips, tokens, combinations, extractors_of(tokenizer), tokenizer)


def extractors_of(tokenizer: Tokenizer) -> dict[str, nn.Module]:
    """Return a network that has learnt nothing, and one that knows the clips: the tokenizer's."""
    name = f"tokenizer-{tokenizer.fingerprint()[:8]}"
    encoder = EncoderFeatures(tokenizer.encoder, tokenizer.encoder.norm_out, name)
    return {str(one.extractor_id): one for one in (RandomFeatures3D(), encoder)}


@torch.inference_mode()
def read_arm(truth: Truth, arm: Arm, path: Path) -> dict[str, Tensor]:
    """Decode all clips one way and keep what is read off each, unless that is done."""
    if not path.is_file():
        parts: list[dict[str, Tensor]] = []
        tokens = truth.tokens.to(local_device())
        for first in range(0, len(truth.tokens), BATCH):
            rows = slice(first, first + BATCH)
            started = time.monotonic()
            with autocast(tokens.device):
                clips = arm(tokens[rows], first)
            seconds = (time.monotonic() - started) / len(clips)
            read = _rows(truth, rows, clips)
            parts.append(read | {"seconds": torch.full((len(clips),), seconds).double()})
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: torch.cat([part[name] for part in parts]) for name in parts[0]}, path)
    return load_file(path)


def _rows(truth: Truth, rows: slice, clips: Clips) -> dict[str, Tensor]:
    again = truth.tokenizer.encode(to_model_range(clips))
    pairs = zip(clips, truth.combinations[rows], strict=True)
    obeyed = [float(judge(clip)[:3] == tuple(combination)) for clip, combination in pairs]
    read = {
        "mse": frame_mse(clips, truth.clips[rows]).mean(1),
        "change": frame_change(clips).mean(1),
        "agreement": (again == truth.tokens[rows]).double().mean(dim=(1, 2, 3)),
        "obeyed": torch.tensor(obeyed, dtype=torch.float64),
    }
    features = {name: extract(clips).double() for name, extract in truth.extractors.items()}
    return read | features


def row_of(
    name: str,
    arm: dict[str, Tensor],
    real: dict[str, Tensor],
    rival: dict[str, Tensor],
    extractors: list[str],
) -> dict[str, Any]:
    """Return the figures of one arm, each with its interval.

    `gain` is the share of the rival's Frechet distance that is gone, on the same draws of clips.
    """

    def mean(column: str, side: dict[str, Tensor] = arm) -> Figure:
        return lambda weights: weighted_mean(side[column], weights)

    figures: dict[str, Figure] = {
        "psnr": lambda weights: psnr(mean("mse")(weights)),
        "flicker": lambda weights: (mean("change")(weights) - mean("change", real)(weights)).abs(),
        "agreement": mean("agreement"),
        "obeyed": mean("obeyed"),
        "seconds": mean("seconds"),
    }
    for key in extractors:
        figures[f"frechet_{key}"] = _distance(arm[key], real[key])
        figures[f"gain_{key}"] = _gain(arm[key], rival[key], real[key])
    count = len(arm["mse"])
    rows = {column: _plain(estimate(figure, count)) for column, figure in figures.items()}
    return {"name": name, "clips": count, **rows}


def _distance(fake: Tensor, real: Tensor) -> Figure:
    return lambda weights: feature_distance(real, fake, weights, weights)


def _gain(fake: Tensor, rival: Tensor, real: Tensor) -> Figure:
    return lambda weights: 1 - _distance(fake, real)(weights) / _distance(rival, real)(weights)


def _plain(found: Estimate) -> list[float]:
    return [float(found.value), float(found.low), float(found.high)]


def markdown(rows: list[dict[str, Any]], facts: str) -> str:
    """Return the table as Markdown: each figure with its interval."""
    columns = [name for name in rows[-1] if name not in ("name", "clips")]
    lines = [facts, "", "| decoder | " + " | ".join(columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for row in rows:
        cells = [_cell(row[name]) if name in row else "" for name in columns]
        lines.append("| " + " | ".join([row["name"], *cells]) + " |")
    return "\n".join(lines) + "\n"


def _cell(figure: list[float]) -> str:
    value, low, high = figure
    return f"{value:.3g} ({low:.3g} to {high:.3g})"


def with_noise(clips: Clips, deviation: float, first: int) -> Clips:
    """Add Gaussian noise, in levels of 255."""
    generator = torch.Generator().manual_seed(first)
    noise = torch.randn(clips.shape, generator=generator) * deviation
    return (clips.float() + noise).round().clamp(0, 255).to(torch.uint8)


def sharpened(clips: Clips, amount: float) -> Clips:
    """Add so many times what a 3 x 3 mean takes away."""
    frames = rearrange(clips.float(), "b t h w c -> (b t) c h w")
    blurred = F.avg_pool2d(F.pad(frames, [1] * 4, mode="replicate"), 3, 1)
    frames = (frames + amount * (frames - blurred)).round().clamp(0, 255)
    return rearrange(frames, "(b t) c h w -> b t h w c", b=len(clips)).to(torch.uint8)


def pixels(clip: Float[Tensor, "B 3 T H W"]) -> Clips:
    """Bring decoded clips to uint8, on the CPU, where everything is read off them."""
    return to_uint8(clip.float().clamp(-1, 1)).cpu()


def frechet(features: nn.Module, made: Clips, real: Clips) -> float:
    """Return the Frechet distance over features, which are read off some clips at a time."""
    features.to(local_device())
    true, drawn = (
        batched(lambda part, _: features(part.to(local_device())).double().cpu(), clips)
        for clips in (real, made)
    )
    return float(feature_distance(true, drawn))


def batched(call: Callable[[Tensor, slice], Tensor], rows: Tensor) -> Tensor:
    """Call on so many rows at a time."""
    slices = [slice(start, start + BATCH) for start in range(0, len(rows), BATCH)]
    return torch.cat([call(rows[part], part) for part in slices])


def decoded(call: Callable[[Tensor, slice], Tensor], rows: Tensor) -> Tensor:
    """Call on so many rows at a time, in the precision that the machine is fast in."""
    with autocast(torch.device(local_device())):
        return batched(call, rows)


def beside(
    task: str, ours: Tensor, baselines: dict[str, Tensor], truth: Tensor, tokenizer: Tokenizer
) -> list[Row]:
    """Return how near to the truth our clips are, beside those of each baseline."""
    extractors, real = extractors_of(tokenizer), pixels(truth)

    def figures(clips: Clips) -> dict[str, float]:
        distances = {f"frechet_{k}": frechet(one, clips, real) for k, one in extractors.items()}
        return {"PSNR, dB": frame_psnr(clips, real), **distances}

    found = figures(pixels(ours))
    return [
        Row(task, measure, found[measure], baseline, figure)
        for baseline, theirs in baselines.items()
        for measure, figure in figures(pixels(theirs)).items()
    ]


def overlap(found: Tensor, wanted: Tensor) -> float:
    """Return the intersection of two pictures of edges over their union."""
    both, either = found * wanted, torch.maximum(found, wanted)
    return (both.sum() / either.sum().clamp(min=1)).item()


def store(rows: list[dict[str, Any]], facts: str, out: Path) -> None:
    """Write the table as JSON and as Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.json").write_text(json.dumps(rows, indent=2) + "\n")
    (out / "table.md").write_text(markdown(rows, facts))


def real_rows(truth: Truth, path: Path) -> dict[str, Float64[Tensor, "N *D"]]:
    """Read off the truth what is read off every arm."""
    starts = truth.clips.split(BATCH)
    return read_arm(truth, lambda tokens, first: starts[first // BATCH], path)
