"""All figures of a model folder: what its tokens keep, what its prior knows, what it generates."""

from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from data.folder import VideoFolder
from data.shapes import ALL_COMBINATIONS, HELD_OUT, Combination, Shapes, render
from evaluation import continuation, likelihood, prompts
from evaluation.contact_sheet import Row
from evaluation.reconstruction import reconstruction_figures

NUM_CLIPS, NUM_FRAMES, CONTEXT_FRAMES, BATCH_SIZE = 64, 17, 5, 32
Figures = dict[str, float]


@runtime_checkable
class Model(Protocol):
    """What is measured: `pipeline.VideoPipeline`."""

    tokenizer: Any
    prior: Any
    text: Any
    size: int
    fps: float

    def encode(self, videos: Tensor, /) -> Tensor: ...

    def decode(self, tokens: Tensor, /) -> Tensor: ...

    def generate(
        self,
        prompts: list[str] | None = None,
        num_frames: int = 17,
        seed: int | list[int] = 0,
        context: UInt8[Tensor, "B T H W 3"] | None = None,
    ) -> UInt8[Tensor, "B T2 H2 W2 3"]: ...


class Measured(NamedTuple):
    """Figures by name, and clips to look at: made from prompts, and beside the truth."""

    figures: Figures
    generated: list[Row]
    compared: list[Row]


def measure_shapes(model: Model) -> Measured:
    """Measure everything that held-out captioned shapes allow."""
    source = Shapes(1000, "val", size=model.size)
    drawn = [source.scene(i) for i in range(NUM_CLIPS)]
    scenes = [render(scene, NUM_FRAMES, model.size) for scene in drawn]
    truth = torch.stack([scene.frames for scene in scenes])
    objects = torch.stack([scene.mask for scene in scenes])
    captions = [scene.combination.caption for scene in drawn]
    figures, reconstructed, continued = _measure(model, truth, captions, objects)
    figures |= _named(
        "continuation", continuation.shapes_figures(continued, scenes, CONTEXT_FRAMES)
    )
    obeyed, generated = _prompts(model, source)
    return Measured(figures | obeyed, generated, _rows(captions, truth, reconstructed, continued))


def measure_videos(model: Model, folder: Path) -> Measured:
    """Measure what the held-out part of any folder of videos allows; no prompt is judged.

    Raises:
        ValueError: Nothing is held out.
    """
    source = VideoFolder(folder, "val", model.size, model.fps, NUM_FRAMES)
    samples = [source.read(i, NUM_FRAMES) for i in range(min(NUM_CLIPS, len(source)))]
    if not samples:
        raise ValueError(f"{folder} has no clip to measure on: {source.split_rule}")
    truth = torch.stack([sample.frames for sample in samples])
    captions = [sample.caption for sample in samples]
    figures, reconstructed, continued = _measure(model, truth, captions, None)
    labels = [caption or f"held-out clip {i}" for i, caption in enumerate(captions)]
    return Measured(figures, [], _rows(labels, truth, reconstructed, continued))


def _measure(
    model: Model,
    truth: UInt8[Tensor, "B T H W 3"],
    captions: list[str],
    objects: Bool[Tensor, "B T H W"] | None,
) -> tuple[Figures, UInt8[Tensor, "B T H W 3"], UInt8[Tensor, "B T H W 3"]]:
    """Reconstruct, score and continue clips; return figures and the clips of both."""
    reconstructed, tokens = _reconstruct(model, truth)
    size = model.tokenizer.codebook_size
    figures = _named(
        "tokenizer", reconstruction_figures(reconstructed, truth, tokens, size, objects)
    )
    bits, continued = 0.0, []
    for start in range(0, len(truth), BATCH_SIZE):
        clips = truth[start : start + BATCH_SIZE]
        texts = captions[start : start + BATCH_SIZE] if model.text is not None else None
        bits += likelihood.bits_of(model, clips, texts).sum().item()
        context = clips[:, :CONTEXT_FRAMES]
        continued.append(model.generate(texts, NUM_FRAMES, start, context))
    figures[f"prior.{likelihood.kind(model.prior)}_per_token"] = bits / tokens.numel()
    clips = torch.cat(continued)
    figures |= _named(
        "continuation", continuation.continuation_figures(clips, truth, CONTEXT_FRAMES)
    )
    return figures, reconstructed, clips


def _prompts(model: Model, source: Shapes) -> tuple[Figures, list[Row]]:
    wanted, unseen = [*ALL_COMBINATIONS] * 2, [*HELD_OUT] * 8
    clips = prompts.prompted(model.generate, wanted, 0)
    unseen_clips = prompts.prompted(model.generate, unseen, len(wanted))
    true = prompts.true_clips(source, wanted)
    reconstructed, _ = _reconstruct(model, true)
    figures = prompts.obedience(clips, wanted) | {
        "held_out_all": prompts.obedience(unseen_clips, unseen)["all"],
        "ceiling_all": prompts.obedience(true, wanted)["all"],
        "ceiling_reconstructed": prompts.obedience(reconstructed, wanted)["all"],
        "with_context": prompts.obeyed_from_one_frame(model.generate, source),
        "start_spread": prompts.spread_of_starts(model.generate, wanted[0], source),
    }
    # Thirteen prompts spread over colours, shapes and directions, and three never trained on.
    rows = [_row(wanted[i], clips[i]) for i in range(0, 65, 5)]
    rows += [_row(unseen[i], unseen_clips[i], " (new)") for i in range(3)]
    return _named("prompts", figures), rows


def _reconstruct(
    model: Model, truth: UInt8[Tensor, "B T H W 3"]
) -> tuple[UInt8[Tensor, "B T H W 3"], Int[Tensor, "B t h w"]]:
    tokens = [model.encode(part) for part in truth.split(BATCH_SIZE)]
    return torch.cat([model.decode(part) for part in tokens]), torch.cat(tokens).cpu()


def _named(group: str, figures: Figures) -> Figures:
    return {f"{group}.{name}": value for name, value in figures.items()}


def _row(combination: Combination, clip: UInt8[Tensor, "T H W 3"], remark: str = "") -> Row:
    return Row(combination.caption + remark, {"": clip})


def _rows(
    labels: list[str], truth: Tensor, reconstructed: Tensor, continued: Tensor, count: int = 8
) -> list[Row]:
    return [
        Row(
            f"{labels[i]}: continued from {CONTEXT_FRAMES} frames",
            {"truth": truth[i], "tokens": reconstructed[i], "model": continued[i]},
        )
        for i in range(min(count, len(labels)))
    ]
