"""What a diffusion decoder can do else: python -m benchmarks.diffusion_uses runs/demo/model.

Of a model folder with a decoder (configs/demo_decoder.yaml) it measures how windows join. The
recipes of configs/ for editing, control, few steps and cascades, twice the pixels and twice the
frames, are trained once, and each is measured on held-out captioned shapes beside an answer that
needs less, or one that takes longer.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from jaxtyping import Float, Int
from torch import Tensor

from benchmarks.comparison import Clips, Row, compare, psnr
from benchmarks.diffusion_measure import decoded, extractors_of, frechet, pixels
from benchmarks.train_once import train_once
from data.shapes import ALL_COMBINATIONS, Shapes
from data.video import to_model_range
from diffusion.control import edges
from diffusion.decoder import DiffusionDecoder
from diffusion.decoding import Joint
from evaluation.prompts import obedience
from layers.processes import local_device
from layers.resizing import enlarged, reduced
from pipeline import VideoPipeline
from tokenizer import Tokenizer

STRENGTHS = (0.25, 0.5, 0.75, 1.0)
SEAM_FRAMES, MANY_STEPS = 41, 50
HALF_RATE: dict[str, Any] = {"speed": (1.0, 1.5)}
TWICE_THE_SIZE: dict[str, Any] = {
    "size": 128,
    "object_diameter": (32.0, 48.0),
    "speed": (4.0, 6.0),
}
CASCADES = {"larger": ([1, 2], 17, TWICE_THE_SIZE), "faster": ([2, 1], 33, HALF_RATE)}
"""How many times the frames and the pixels of a side, the frames of a clip, and what it shows."""


class Uses:
    """Recipes that are trained on the tokens of a model, and clips to measure them on.

    Args:
        model: Model folder with a prior and a diffusion decoder.
        out: Where the trainings go.
        steps: Of each training.
        clips: How many are measured.
        decoder_steps: Calls of a decoder's network for a window.
    """

    def __init__(
        self, model: Path, out: Path, steps: int, clips: int, decoder_steps: int = 20
    ) -> None:
        self.model, self.out, self.steps, self.clips = model, out, steps, clips
        self.decoder_steps = decoder_steps

    def trained(self, name: str, recipe: str) -> VideoPipeline:
        """Train a recipe, unless that is done, and return its model.

        Raises:
            ValueError: What is done is of another number of steps or on another model.
        """
        config = yaml.safe_load(Path(f"configs/{recipe}.yaml").read_text())
        model = config["model"]["init_args"]
        model |= {"tokenizer_folder": str(self.model), "max_steps": self.steps}
        if "start_from" in model:
            model["start_from"] = str(self.model)
        if name in CASCADES:
            model["decoder"]["enlarge"], frames, scene = CASCADES[name]
            for split in ("train", "val"):
                shown = config["data"][split]["init_args"]
                for key in TWICE_THE_SIZE:
                    shown.pop(key, None)
                shown |= scene
            config["data"]["stages"][0]["num_frames"] = frames
        config["trainer"]["limit_val_batches"] = 1
        _require_as_asked(self.out / name, model)
        train_once(config, self.out / name)
        return opened(self.out / name / "model")

    def clip(self, num_frames: int, **scene: Any) -> Float[Tensor, "B 3 T H W"]:
        """Return held-out clips in [-1, 1]."""
        source = Shapes(self.clips, "val", **scene)
        frames = [source.read(i, num_frames).frames for i in range(self.clips)]
        return to_model_range(torch.stack(frames)).to(local_device())

    @torch.no_grad()
    def seams(self) -> list[Row]:
        """How wrong the change is where a window joins the one before, in levels of 255.

        Elsewhere: where no window but the next latent frame begins.
        """
        pipe = opened(self.model)
        decoder, truth = pipe.require_decoder(), self.clip(SEAM_FRAMES)[: max(1, self.clips // 4)]
        tokens, change = pipe.tokenizer.encode(truth), truth.diff(dim=2)
        begins = torch.arange(SEAM_FRAMES - 1) % decoder.temporal_stride == 0
        stride = decoder.temporal_stride * (decoder.window - decoder.overlap)
        seams = torch.zeros(SEAM_FRAMES - 1, dtype=torch.bool)
        seams[decoder.temporal_stride * (decoder.window - 1) :: stride] = True

        def errors(joint: Joint) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
            made = decoded(
                lambda part, rows: decoder.decode(
                    part, rows.start, self.decoder_steps, joint=joint
                ),
                tokens,
            )
            wrong = (made.diff(dim=2) - change).abs().mean(dim=(1, 3, 4)) * 127.5
            return wrong[:, seams].mean(1), wrong[:, begins & ~seams].mean(1)

        (given, elsewhere), (guided, _), (replaced, _) = map(
            errors, ("given", "guided", "replaced")
        )
        what = "error of the change at seams"
        lower = f"{what}; lower in {(guided < replaced).sum()} of {len(guided)} clips"
        pairs = (given, elsewhere), (guided, replaced)
        (at, off), (ours, other) = [(a.mean().item(), b.mean().item()) for a, b in pairs]
        return [
            Row("windows, frames given", what, at, "elsewhere", off),
            Row("windows, reconstruction guidance", lower, ours, "replacement", other),
        ]

    def edits(self) -> list[Row]:
        """Prompts obeyed after an edit, beside what is left of the clip.

        At strength 0 stand the clips as they are; the last row is of clips of other scenes.
        """
        pipe = self.trained("edit", "edit_decoder")
        truth = pixels(self.clip(17))
        wanted = [ALL_COMBINATIONS[(31 * i) % len(ALL_COMBINATIONS)] for i in range(self.clips)]
        prompts, steps = [one.caption for one in wanted], self.decoder_steps

        def row(name: str, made: Clips) -> Row:
            obeyed, likeness = obedience(made, wanted)["all"], psnr(made, truth)
            return Row(f"edit, {name}", "prompts obeyed", obeyed, "dB to the clip", likeness)

        def edited(strength: float) -> Clips:
            return decoded(
                lambda part, rows: pipe.edit(part, prompts[rows], strength, rows.start, 1.0, steps),
                truth,
            )

        changed = [row(f"strength {one:g}", edited(one)) for one in STRENGTHS]
        return [row("strength 0", truth), *changed, row("another clip", truth.roll(1, 0))]

    @torch.no_grad()
    def controls(self) -> list[Row]:
        """Edges of the control that are found again, beside the same decoder without control.

        First the control is of the clip whose tokens are decoded, then of another clip.
        """
        pipe, plain = self.trained("control", "control_decoder"), self.base_decoder()
        truth = self.clip(17)
        decoder, tokens = pipe.require_decoder(), pipe.tokenizer.encode(truth)

        def found(one: DiffusionDecoder, control: Tensor | None) -> Tensor:
            def draw(part: Tensor, rows: slice) -> Tensor:
                steering = None if control is None else control[rows]
                return one.decode(part, rows.start, self.decoder_steps, control=steering)

            return edges(decoded(draw, tokens))

        free = found(plain, None)
        controls = {"": edges(truth), " of another clip": edges(truth.roll(1, 0))}
        return [
            Row(
                f"control{whose}",
                "IoU of edges",
                overlap(found(decoder, control), control),
                "without control",
                overlap(free, control),
            )
            for whose, control in controls.items()
        ]

    @torch.no_grad()
    def fewer(self) -> list[Row]:
        """A decoder distilled to few steps, beside the one it learnt from in many and in as few."""
        pipe, teacher, truth = (
            self.trained("fewer", "distilled_decoder"),
            self.base_decoder(),
            self.clip(17),
        )
        student, tokens = pipe.require_decoder(), pipe.tokenizer.encode(truth)
        ours, task = _drawn(student, tokens, student.steps), f"distilled, {student.steps} steps"
        return [
            row
            for steps in (MANY_STEPS, student.steps)
            for row in _beside(
                task, ours, f"{steps} steps", _drawn(teacher, tokens, steps), truth, pipe
            )
        ]

    @torch.no_grad()
    def cascade(self, name: str) -> list[Row]:
        """Twice the pixels or the frames, beside what the smaller decoders give, enlarged."""
        factors, frames, scene = CASCADES[name]
        pipe, truth = self.trained(name, "cascade_decoder"), self.clip(frames, **scene)
        tokens, steps = pipe.tokenizer.encode(reduced(truth, *factors)), self.decoder_steps
        ours, task = _drawn(pipe.require_decoder(), tokens, steps), f"cascade, {name}"
        than = "bicubic" if name == "larger" else "blended frames"
        smaller = {
            f"CNN, {than}": decoded(lambda part, _: pipe.tokenizer.decode(part), tokens),
            f"diffusion, {than}": _drawn(self.base_decoder(), tokens, steps),
        }
        return [
            row
            for baseline, clip in smaller.items()
            for row in _beside(task, ours, baseline, enlarged(clip, *factors), truth, pipe)
        ]

    def base_decoder(self) -> DiffusionDecoder:
        """Return the decoder of the model that the recipes begin with."""
        return opened(self.model).require_decoder()


def _require_as_asked(root: Path, asked: dict[str, Any]) -> None:
    """Raise ValueError where a folder holds a training of other steps or on another model."""
    if not (path := root / "config.yaml").is_file():
        return
    held = yaml.safe_load(path.read_text())["model"]["init_args"]
    for name in ("max_steps", "tokenizer_folder"):
        if held[name] != asked[name]:
            raise ValueError(
                f"{root} holds a training with {name} {held[name]}, but {asked[name]} is asked "
                "for; give another --out"
            )


def opened(folder: Path) -> VideoPipeline:
    """Open a model folder where clips are decoded: on the GPU where there is one."""
    return VideoPipeline.from_pretrained(folder).to(local_device())


def _drawn(
    decoder: DiffusionDecoder, tokens: Int[Tensor, "B t h w"], steps: int
) -> Float[Tensor, "B 3 T H W"]:
    """Return what a decoder makes of tokens."""
    return decoded(lambda part, rows: decoder.decode(part, rows.start, steps), tokens)


def _beside(
    task: str, ours: Tensor, baseline: str, theirs: Tensor, truth: Tensor, pipe: VideoPipeline
) -> list[Row]:
    """Return how near to the truth our clips are, and those of a baseline."""
    assert isinstance(pipe.tokenizer, Tokenizer)
    made, base, real = map(pixels, (ours, theirs, truth))
    rows = [Row(task, "PSNR, dB", psnr(made, real), baseline, psnr(base, real))]
    for name, features in extractors_of(pipe.tokenizer).items():
        figure, other = (frechet(features, clips, real) for clips in (made, base))
        rows.append(Row(task, f"frechet_{name}", figure, baseline, other))
    return rows


def overlap(found: Tensor, wanted: Tensor) -> float:
    """Return the intersection of two pictures of edges over their union."""
    both, either = found * wanted, torch.maximum(found, wanted)
    return (both.sum() / either.sum().clamp(min=1)).item()


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("model", type=Path, help="model folder with a prior and a decoder")
    parser.add_argument("--out", type=Path, default=Path("runs/diffusion-uses"))
    parser.add_argument("--steps", type=int, default=600, help="of each training")
    parser.add_argument("--clips", type=int, default=128, help="that are measured")
    parser.add_argument("--decoder-steps", type=int, default=20, help="calls a window")
    parser.add_argument(
        "--uses", nargs="+", choices=["seams", "edit", "control", "fewer", *CASCADES]
    )
    parser.add_argument("--json", type=Path, help="file to write the rows into")
    return parser


def main(arguments: list[str] | None = None) -> list[Row]:
    """Run the command line."""
    args = parser().parse_args(arguments)
    uses = Uses(args.model, args.out, args.steps, args.clips, args.decoder_steps)
    measures: dict[str, Callable[[], list[Row]]] = {
        "seams": uses.seams,
        "edit": uses.edits,
        "control": uses.controls,
        "fewer": uses.fewer,
        **{name: partial(uses.cascade, name) for name in CASCADES},
    }
    return compare([measures[name] for name in args.uses or measures], args.json)


if __name__ == "__main__":
    main()
