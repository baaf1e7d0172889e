"""How well clips obey their prompts: figures by the analytic judge of captioned shapes."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from data.shapes import (
    DIRECTIONS,
    Combination,
    Shapes,
    render,
)
from evaluation.shapes_judge import accuracy, judge, start_spread

BATCH_SIZE = 36


Generate = Callable[..., UInt8[Tensor, "B T H W 3"]]
"""`VideoPipeline.generate`, at its defaults."""


def prompted(
    generate: Generate,
    combinations: Sequence[Combination],
    first_seed: int,
    contexts: UInt8[Tensor, "B k H W 3"] | None = None,
    num_frames: int = 17,
) -> UInt8[Tensor, "B T H W 3"]:
    """Generate one clip for each combination, in batches; clip i draws from `first_seed` + i."""
    parts = [
        generate(
            [c.caption for c in combinations[start : start + BATCH_SIZE]],
            num_frames=num_frames,
            seed=first_seed + start,
            context=contexts[start : start + BATCH_SIZE] if contexts is not None else None,
        )
        for start in range(0, len(combinations), BATCH_SIZE)
    ]
    return torch.cat(parts)


def obedience(
    clips: UInt8[Tensor, "B T H W 3"], combinations: Sequence[Combination], seed: int = 0
) -> dict[str, float]:
    """Return shares of clips whose words are right.

    `shuffled_all` compares the same verdicts with the captions in random order: chance.
    """
    verdicts = [judge(clip) for clip in clips]
    color, shape, direction, whole = accuracy(verdicts, combinations)
    order = np.random.default_rng(seed).permutation(len(combinations))
    shuffled = accuracy(verdicts, [combinations[i] for i in order])
    return {
        "color": color,
        "shape": shape,
        "direction": direction,
        "all": whole,
        "shuffled_all": shuffled.all,
    }


def true_clips(
    source: Shapes, combinations: Sequence[Combination], num_frames: int = 17
) -> UInt8[Tensor, "B T H W 3"]:
    """Render one scene for each combination: what a perfect model could give."""
    scenes = [source.scene(i, combination) for i, combination in enumerate(combinations)]
    return torch.stack([render(scene, num_frames, source.size).frames for scene in scenes])


def spread_of_starts(
    generate: Generate, combination: Combination, source: Shapes, num_seeds: int = 16
) -> float:
    """Return how much first frames of one prompt vary over seeds, over how much true ones do."""
    frames = prompted(generate, [combination] * num_seeds, 0, num_frames=1)
    starts = np.array([source.scene(i, combination).start for i in range(len(source))])
    return start_spread([judge(frame) for frame in frames]) / float(starts.std(axis=0).mean())


def obeyed_from_one_frame(
    generate: Generate, source: Shapes, num_scenes: int = 12, first_seed: int = 0
) -> float:
    """Return the share of clips that leave the same first frame in the direction of the prompt.

    Scenes start in the middle of the picture, where all four directions are possible.
    """
    combinations, contexts = [], []
    for i in range(num_scenes):
        scene = replace(source.scene(i), start=(source.size / 2, source.size / 2))
        frame = render(scene, 1, source.size).frames
        for direction in DIRECTIONS:
            combinations.append(scene.combination._replace(direction=direction))
            contexts.append(frame)
    clips = prompted(generate, combinations, first_seed, torch.stack(contexts))
    verdicts = [judge(clip) for clip in clips]
    return accuracy(verdicts, combinations).direction
