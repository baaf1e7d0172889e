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

import torch
from jaxtyping import Float, Int
from torch import Tensor

from benchmarks.comparison import Clips, Row, compare, psnr
from benchmarks.diffusion_measure import beside, decoded, overlap, pixels
from benchmarks.diffusion_recipes import CASCADES, Recipes, opened
from data.shapes import COLORS, SHAPES, Combination
from diffusion.control import edges
from diffusion.decoder import DiffusionDecoder
from diffusion.decoding import Joint
from evaluation.prompts import obedience
from layers.resizing import enlarged, reduced
from tokenizer import Tokenizer

STRENGTHS, EDIT_GUIDANCE = (0.25, 0.5, 0.75, 1.0), 4.0
FRAMES, SEAM_FRAMES, KNOWN_FRAMES, MANY_STEPS = 17, 41, 5, 50
AT_SEAMS = "error of the change at seams"


class Uses(Recipes):
    """What the recipes and the decoder they begin with are measured by: each returns rows."""

    @torch.no_grad()
    def seams(self) -> list[Row]:
        """How wrong the change is where a window joins the one before, in levels of 255.

        Elsewhere: where no window but the next latent frame begins.
        """
        pipe = opened(self.model)
        decoder, truth = pipe.require_decoder(), self.clip(SEAM_FRAMES)[: max(1, self.clips // 4)]
        tokens = pipe.tokenizer.encode(truth)
        begins = torch.arange(SEAM_FRAMES - 1) % decoder.temporal_stride == 0
        stride = decoder.temporal_stride * (decoder.window - decoder.overlap)
        seams = torch.zeros(SEAM_FRAMES - 1, dtype=torch.bool)
        seams[decoder.temporal_stride * (decoder.window - 1) :: stride] = True

        def errors(joint: Joint) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
            wrong = _change_error(_drawn(decoder, tokens, self.decoder_steps, joint), truth)
            return wrong[:, seams].mean(1), wrong[:, begins & ~seams].mean(1)

        (given, elsewhere), (guided, _), (replaced, _) = map(
            errors, ("given", "guided", "replaced")
        )
        at, off = given.mean().item(), elsewhere.mean().item()
        return [
            Row("windows, frames given", AT_SEAMS, at, "elsewhere", off),
            _by_guidance("windows", guided, replaced),
        ]

    @torch.no_grad()
    def extension(self) -> list[Row]:
        """How wrong the change is where frames end that are known; the others are told by a text.

        By the decoder for edits, without tokens, so that only these frames say what is where.
        """
        pipe, truth = self.trained("edit", "edit_decoder"), self.clip(FRAMES)
        decoder, scenes = pipe.require_decoder(), map(self.source().scene, range(self.clips))
        texts = pipe.condition([one.combination.caption for one in scenes], self.clips).texts

        def errors(joint: Joint) -> Float[Tensor, "B"]:
            made = decoded(
                lambda part, rows: decoder.edit(
                    part,
                    texts[rows],
                    1.0,
                    rows.start,
                    self.decoder_steps,
                    kept=torch.arange(FRAMES) < KNOWN_FRAMES,
                    joint=joint,
                ),
                truth,
            )
            return _change_error(made, truth)[:, KNOWN_FRAMES - 1]

        return [_by_guidance("extension without tokens", errors("guided"), errors("replaced"))]

    def edits(self) -> list[Row]:
        """Prompts obeyed after an edit, beside what is left of the clip.

        A prompt asks for another colour and shape that move as the clip's own do. At strength 0
        stand the clips as they are; the last row is of clips of other scenes.
        """
        pipe, truth = self.trained("edit", "edit_decoder"), pixels(self.clip(FRAMES))
        wanted = [_repainted(self.source().scene(i).combination) for i in range(self.clips)]
        prompts, steps = [one.caption for one in wanted], self.decoder_steps

        def row(name: str, made: Clips) -> Row:
            words, likeness = obedience(made, wanted), psnr(made, truth)
            told = ", ".join(f"{word} {words[word]:.2f}" for word in Combination._fields)
            measure = f"prompts obeyed; {told}"
            return Row(f"edit, {name}", measure, words["all"], "dB to the clip", likeness)

        def edited(strength: float) -> Clips:
            return decoded(
                lambda part, rows: pipe.edit(
                    part, prompts[rows], strength, rows.start, EDIT_GUIDANCE, steps
                ),
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
        truth = self.clip(FRAMES)
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
        pipe, teacher = self.trained("fewer", "distilled_decoder"), self.base_decoder()
        student, tokenizer, truth = pipe.require_decoder(), pipe.tokenizer, self.clip(FRAMES)
        assert isinstance(tokenizer, Tokenizer)
        tokens = tokenizer.encode(truth)
        few = student.steps
        longer = {f"{n} steps": _drawn(teacher, tokens, n) for n in (MANY_STEPS, few)}
        ours = _drawn(student, tokens, few)
        return beside(f"distilled, {few} steps", ours, longer, truth, tokenizer)

    @torch.no_grad()
    def cascade(self, name: str) -> list[Row]:
        """Twice the pixels or the frames, beside what the smaller decoders give, enlarged."""
        factors, frames, scene = CASCADES[name]
        pipe, truth = self.trained(name, "cascade_decoder"), self.clip(frames, **scene)
        assert isinstance(pipe.tokenizer, Tokenizer)
        tokens, steps = pipe.tokenizer.encode(reduced(truth, *factors)), self.decoder_steps
        ours = _drawn(pipe.require_decoder(), tokens, steps)
        than = "bicubic" if name == "larger" else "blended frames"
        smaller = {
            f"CNN, {than}": decoded(lambda part, _: pipe.tokenizer.decode(part), tokens),
            f"diffusion, {than}": _drawn(self.base_decoder(), tokens, steps),
        }
        baselines = {who: enlarged(clip, *factors) for who, clip in smaller.items()}
        return beside(f"cascade, {name}", ours, baselines, truth, pipe.tokenizer)


def _change_error(
    made: Float[Tensor, "B 3 T H W"], truth: Float[Tensor, "B 3 T H W"]
) -> Float[Tensor, "B T1"]:
    """Return how far each frame's change from the one before is from the true one."""
    return (made.diff(dim=2) - truth.diff(dim=2)).abs().mean(dim=(1, 3, 4)) * 127.5


def _repainted(shown: Combination) -> Combination:
    """Return the next colour and the next shape, moving as before."""
    color, shape = (
        names[(names.index(name) + 1) % len(names)]
        for names, name in (([*COLORS], shown.color), (SHAPES, shown.shape))
    )
    return Combination(color, shape, shown.direction)


def _by_guidance(task: str, guided: Float[Tensor, "B"], replaced: Float[Tensor, "B"]) -> Row:
    """Return the errors of reconstruction guidance beside those of replacement."""
    measure = f"{AT_SEAMS}; lower in {(guided < replaced).sum()} of {len(guided)} clips"
    errors = guided.mean().item(), "replacement", replaced.mean().item()
    return Row(f"{task}, reconstruction guidance", measure, *errors)


def _drawn(
    decoder: DiffusionDecoder, tokens: Int[Tensor, "B t h w"], steps: int, joint: Joint = "given"
) -> Float[Tensor, "B 3 T H W"]:
    """Return what a decoder makes of tokens."""
    return decoded(lambda part, rows: decoder.decode(part, rows.start, steps, joint=joint), tokens)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("model", type=Path, help="model folder with a prior and a decoder")
    parser.add_argument("--out", type=Path, default=Path("runs/diffusion-uses"))
    parser.add_argument("--steps", type=int, default=600, help="of each training")
    parser.add_argument("--clips", type=int, default=128, help="that are measured")
    parser.add_argument("--decoder-steps", type=int, default=20, help="calls a window")
    named = ["seams", "extension", "edit", "control", "fewer", *CASCADES]
    parser.add_argument("--uses", nargs="+", choices=named)
    parser.add_argument("--json", type=Path, help="file to write the rows into")
    return parser


def main(arguments: list[str] | None = None) -> list[Row]:
    """Run the command line."""
    args = parser().parse_args(arguments)
    uses = Uses(args.model, args.out, args.steps, args.clips, args.decoder_steps)
    measures: dict[str, Callable[[], list[Row]]] = {
        "seams": uses.seams,
        "extension": uses.extension,
        "edit": uses.edits,
        "control": uses.controls,
        "fewer": uses.fewer,
        **{name: partial(uses.cascade, name) for name in CASCADES},
    }
    return compare([measures[name] for name in args.uses or measures], args.json)


if __name__ == "__main__":
    main()
