"""What one multi-task model can do: python -m benchmarks.tasks runs/demo/tasks.

Every task on held-out captioned shapes, its figure beside that of an answer that needs no model.
With --key-frames, a long video is made of sparse key frames and what lies between them; without,
each window goes on from the one before: from its tokens with a prior that slides, else from its
frames, encoded again.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from einops import rearrange, reduce
from torch import Tensor

from benchmarks.comparison import Clips, Row, compare, psnr
from data.shapes import Rendered, Shapes, render
from evaluation.baselines import copy_last
from evaluation.prompts import obedience
from evaluation.shapes_judge import judge
from layers.resizing import enlarged, reduced
from pipeline import VideoPipeline

NUM_FRAMES, CONTEXT_FRAMES, BATCH_SIZE = 17, 5, 18
Part = TypeVar("Part", list[str], Tensor)
STORY = ("left", "up", "right", "down")


class Study:
    """A model and the held-out scenes that it is measured on.

    Args:
        pipe: The model.
        num_clips: How many scenes.
    """

    def __init__(self, pipe: VideoPipeline, num_clips: int) -> None:
        self.pipe, self.source = pipe, Shapes(1000, "val", size=pipe.size)
        drawn = [self.source.scene(i) for i in range(num_clips)]
        self.scenes = [render(scene, NUM_FRAMES, pipe.size) for scene in drawn]
        self.combinations = [scene.combination for scene in drawn]
        self.captions = [combination.caption for combination in self.combinations]
        self.truth = torch.stack([scene.frames for scene in self.scenes])

    def made(
        self,
        task: str,
        prompts: list[str] | None = None,
        classes: list[str] | None = None,
        context: Tensor | None = None,
        guide: Tensor | None = None,
        mask: Tensor | None = None,
        actions: Tensor | None = None,
    ) -> Clips:
        """Return what the model makes of each scene; clip i draws from seed i."""
        parts = []
        for start in range(0, len(self.truth), BATCH_SIZE):
            rows = slice(start, min(start + BATCH_SIZE, len(self.truth)))
            clips = self.pipe.generate(
                cut(prompts, rows),
                NUM_FRAMES,
                list(range(rows.start, rows.stop)),
                cut(context, rows),
                task=task,
                classes=cut(classes, rows),
                actions=cut(actions, rows),
                mask=cut(mask, rows),
                guide=cut(guide, rows),
            )
            parts.append(clips)
        return torch.cat(parts)


def cut(part: Part | None, rows: slice) -> Part | None:
    """Return what some of the scenes are given."""
    return None if part is None else part[rows]


def text(study: Study) -> Row:
    """Prompts obeyed in colour, shape and direction."""
    figures = obedience(study.made("generate", prompts=study.captions), study.combinations)
    return Row("generate", "all obeyed", figures["all"], "chance", figures["shuffled_all"])


def classes(study: Study) -> Row:
    """Classes obeyed; a class here is a combination of words."""
    figures = obedience(study.made("class", classes=study.captions), study.combinations)
    return Row("class", "all obeyed", figures["all"], "chance", figures["shuffled_all"])


def prediction(study: Study) -> Row:
    """Frames behind a context against the true ones."""
    context = study.truth[:, :CONTEXT_FRAMES]
    made = study.made("predict", prompts=study.captions, context=context)
    still = copy_last(context, NUM_FRAMES - CONTEXT_FRAMES)
    new = study.truth[:, CONTEXT_FRAMES:]
    figure, baseline = psnr(made[:, CONTEXT_FRAMES:], new), psnr(still, new)
    return Row("predict", "PSNR", figure, "copy last frame", baseline)


def interpolation(study: Study) -> Row:
    """Frames between a first and a last one against the true ones."""
    ends = study.truth[:, [0, -1]]
    made = study.made("interpolate", prompts=study.captions, guide=ends)
    share = torch.linspace(0, 1, NUM_FRAMES)[:, None, None, None]
    blend = (ends[:, :1] * (1 - share) + ends[:, 1:] * share).round().to(torch.uint8)
    inner = slice(1, -1)
    figure, baseline = (psnr(clip[:, inner], study.truth[:, inner]) for clip in (made, blend))
    return Row("interpolate", "PSNR", figure, "linear blend", baseline)


def filling(study: Study, task: str) -> Row:
    """Pixels of a hole over the middle, or of all but the middle, against the true ones."""
    size = study.pipe.size
    hole = torch.zeros(size, size, dtype=torch.bool)
    hole[size // 4 : -size // 4, size // 4 : -size // 4] = True
    hole = hole if task == "inpaint" else ~hole
    mask = hole.expand(*study.truth.shape[:4])
    made = study.made(task, prompts=study.captions, guide=study.truth, mask=mask)
    known = (~hole).float()[None, None, :, :, None]
    mean = reduce(study.truth * known, "b t h w c -> b t 1 1 c", "sum") / known.sum()
    grey = mean.round().to(torch.uint8).expand_as(study.truth)
    figure, baseline = (psnr(clip, study.truth, hole) for clip in (made, grey))
    return Row(task, "PSNR in the hole", figure, "mean of the rest", baseline)


def control(study: Study) -> Row:
    """Clips made from edges and a prompt against those that the edges were taken from."""
    made = study.made("control", prompts=study.captions, guide=study.truth)
    free = study.made("generate", prompts=study.captions)
    figure, baseline = (psnr(clip, study.truth) for clip in (made, free))
    return Row("control", "PSNR", figure, "the prompt alone", baseline)


def upscaling(study: Study) -> Row:
    """Clips made from others of half the size, against the true ones."""
    small = reduced(rearrange(study.truth, "b t h w c -> b c t h w").float(), 1, 2).round()
    large = enlarged(small, 1, 2).round().clamp(0, 255)
    small, large = (rearrange(x, "b c t h w -> b t h w c").to(torch.uint8) for x in (small, large))
    made = study.made("upscale", prompts=study.captions, guide=small)
    figure, baseline = (psnr(clip, study.truth) for clip in (made, large))
    return Row("upscale", "PSNR", figure, "bicubic", baseline)


def rollout(study: Study) -> Row:
    """Frames led to by actions against the true ones; then by the actions of other clips."""
    centers = torch.stack([scene.centers for scene in study.scenes])
    actions = centers.diff(dim=1, prepend=centers[:, :1])
    made = partial(study.made, "rollout")
    others = actions[np.random.default_rng(0).permutation(len(actions))]
    figure, baseline = (
        psnr(made(actions=some, context=study.truth[:, :1])[:, 1:], study.truth[:, 1:])
        for some in (actions, others)
    )
    return Row("rollout", "PSNR", figure, "others' actions", baseline)


def captioning(study: Study) -> Row:
    """Captions exactly right; the baseline always says what is most common."""
    said = study.pipe.caption(study.truth)
    right = np.mean([a == b for a, b in zip(said, study.captions, strict=True)])
    common = max(study.captions.count(caption) for caption in set(study.captions))
    return Row("caption", "exact", float(right), "most common", common / len(said))


def story(study: Study) -> Row:
    """Directions obeyed after each switch of a story."""
    obeyed = []
    for number, scene in enumerate(study.scenes[: len(study.scenes) // 2]):
        first = study.combinations[number]
        turns = [first._replace(direction=direction) for direction in STORY]
        parts = [
            (turn.caption, NUM_FRAMES if k == 0 else NUM_FRAMES - 1) for k, turn in enumerate(turns)
        ]
        start = _centred(scene, study)
        clip = study.pipe.generate(story=parts, seed=number, context=start)[0]
        for k, turn in enumerate(turns[1:], 1):
            begin = k * (NUM_FRAMES - 1)
            seen = judge(clip[begin : begin + NUM_FRAMES]).direction
            obeyed.append(seen == turn.direction)
    return Row("story", "switch obeyed", float(np.mean(obeyed)), "chance", 1 / len(STORY))


def _centred(scene: Rendered, study: Study) -> Clips:
    """Return the first frame of a scene, its object moved to the middle of the picture."""
    dx, dy = (study.pipe.size / 2 - scene.centers[0]).round().int().tolist()
    change = scene.frames[0].short() - scene.background.short()
    moved = torch.roll(change, (dy, dx), (0, 1)) + scene.background.short()
    return moved.to(torch.uint8)[None, None]


def likelihood(study: Study, order: str) -> Row:
    """Pairs in which the true frames are likelier than the same in another order."""
    later = np.arange(CONTEXT_FRAMES, NUM_FRAMES)
    later = later[::-1] if order == "reversed" else np.random.default_rng(0).permutation(later)
    other = study.truth[:, [*range(CONTEXT_FRAMES), *later]]
    score = study.pipe.score
    above = score(study.truth, study.captions) > score(other, study.captions)
    return Row(
        f"score, {order} frames", "pairs in order", above.float().mean().item(), "chance", 0.5
    )


def long_video(study: Study, key_frames: VideoPipeline | None, num_frames: int) -> Row:
    """Colour and shape in the last ten windows of a long video, over those in the first ten."""
    prompts, combinations = study.captions[:4], study.combinations[:4]
    if key_frames is None:
        made = study.pipe.generate(prompts, num_frames)
    else:
        gaps = (num_frames - 1) // (NUM_FRAMES - 1)
        keys = key_frames.generate(prompts, gaps + 1)
        # What the captions say of the start does not hold for each gap; the key frames show it.
        made = study.pipe.generate(None, num_frames, task="interpolate", guide=keys)
    windows = made[:, : num_frames // NUM_FRAMES * NUM_FRAMES]
    windows = rearrange(windows, "b (n t) h w c -> b n t h w c", t=NUM_FRAMES)
    right = np.array(
        [
            [(seen := judge(window)).color == c.color and seen.shape == c.shape for window in clip]
            for clip, c in zip(windows, combinations, strict=True)
        ]
    )
    way = "tokens" if study.pipe.require_prior().slides else "windows"
    way = way if key_frames is None else "key frames"
    name, first, last = f"{num_frames} frames by {way}", right[:, :10].mean(), right[:, -10:].mean()
    return Row(name, "last ten windows", last, "first ten", first)


ROWS: dict[str, Callable[[Study], Row]] = {
    "generate": text,
    "class": classes,
    "predict": prediction,
    "interpolate": interpolation,
    "inpaint": lambda study: filling(study, "inpaint"),
    "outpaint": lambda study: filling(study, "outpaint"),
    "control": control,
    "upscale": upscaling,
    "rollout": rollout,
    "caption": captioning,
    "story": story,
    "score": lambda study: likelihood(study, "shuffled"),
    "reversed": lambda study: likelihood(study, "reversed"),
}


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description="Measure every task of a model.")
    parser.add_argument("model", help="model folder")
    parser.add_argument("--key-frames", help="model folder that makes sparse frames")
    parser.add_argument("--tasks", nargs="+", choices=[*ROWS, "long"], default=[*ROWS, "long"])
    parser.add_argument("--clips", type=int, default=72, help="held-out scenes")
    parser.add_argument("--long-frames", type=int, default=1009, help="of the long video")
    parser.add_argument(
        "--from-frames", action="store_true", help="encode frames again even where the prior slides"
    )
    parser.add_argument("--json", type=Path, help="file to write the rows into")
    return parser


def main(arguments: list[str] | None = None) -> list[Row]:
    """Run the command line."""
    args = parser().parse_args(arguments)
    study = Study(VideoPipeline.from_pretrained(args.model), args.clips)
    keys = None if args.key_frames is None else VideoPipeline.from_pretrained(args.key_frames)
    study.pipe.require_prior().slides &= not args.from_frames
    rows = ROWS | {"long": partial(long_video, key_frames=keys, num_frames=args.long_frames)}
    return compare([lambda task=task: [rows[task](study)] for task in args.tasks], args.json)


if __name__ == "__main__":
    main()
