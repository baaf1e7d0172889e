"""What each task gives the prior: guides made of pixels, for training and for use.

MAGVIT (Yu et al. 2022, arXiv 2212.05199), VideoPoet (Kondratyuk et al. 2023, arXiv 2312.14125).
A hole is grey before it is encoded, and every token that touches it is replaced by one learnt
vector; the target is the whole clip, and known pixels are put back over it afterwards. So are the
means of four pixels that a small copy shows.
"""

from collections.abc import Callable, Mapping
from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from jaxtyping import Bool, Float
from torch import Tensor

from layers.resizing import enlarged, reduced
from lm.condition import Guide, Inputs, Task
from lm.sequence import Grid

Encode = Callable[[Tensor], Tensor]
"""From a clip B 3 T H W in [-1, 1] to tokens B t h w."""

TrainingTask = Literal[
    "generate",
    "class",
    "rollout",
    "interpolate",
    "inpaint",
    "outpaint",
    "control",
    "upscale",
    "caption",
]
"""Classes and actions are trained without text, so that they alone decide."""

PIXEL_TASKS = ("rollout", "interpolate", "inpaint", "outpaint", "control", "upscale")
"""Tasks that need the clip itself or its actions, which cached tokens have not."""

UPSCALE = 2
"""How much larger the video of the task "upscale" is than its guide."""

_PROJECTIONS = 3  # at most a sixth is left of what these miss


def prior_task(task: str) -> Task:
    """Return the task of the prior: classes and actions are given to plain generation."""
    return cast(Task, task) if task in get_args(Task) else "generate"


def check_training(tasks: Mapping[TrainingTask, float], inputs: Inputs) -> None:
    """Refuse a mixture of tasks that a prior with these inputs cannot learn.

    Raises:
        ValueError: A weight is not above 0, or a task's input was not given to the prior.
    """
    if not tasks or min(tasks.values()) <= 0:
        raise ValueError(f"tasks are {dict(tasks)}; name one or more, with weights above 0")
    for task in tasks:
        if prior_task(task) not in inputs.tasks:
            raise ValueError(
                f"the task {task} is to be trained, but the prior's inputs.tasks are "
                f"{inputs.tasks}; add {prior_task(task)}"
            )
    if "class" in tasks and not inputs.num_classes:
        raise ValueError("the task class needs inputs.num_classes; set it to the classes' number")
    if "rollout" in tasks and not inputs.action_ranges:
        raise ValueError("the task rollout needs inputs.action_ranges; give one for each dimension")


def is_sliding(task: TrainingTask, inputs: Inputs) -> bool:
    """Say whether any window of a longer clip teaches a task: nothing is told of single frames."""
    return task in ("generate", "class") and not inputs.feature_size


def check_sliding(
    tasks: Mapping[TrainingTask, float], inputs: Inputs, num_frames: int, window: int
) -> None:
    """Refuse training in which a prior that slides would learn no window but the first.

    Args:
        tasks: What is trained.
        inputs: Of the prior.
        num_frames: Of the longest clips.
        window: Frames of the prior's window.
    """
    if num_frames <= window or not any(is_sliding(task, inputs) for task in tasks):
        raise ValueError(
            f"the prior slides over clips longer than its {window} frames, but the longest in "
            f"training have {num_frames}, and the tasks are {list(tasks)}; give longer clips and "
            "generate or class without features, or leave slides out"
        )


def end_guide(encode: Encode, frame: Float[Tensor, "B 3 1 H W"], start: int) -> Guide:
    """Return the end frame, encoded as an image of its own, at its latent frame."""
    return Guide(encode(frame), start=start)


def hole_guide(
    encode: Encode, clip: Float[Tensor, "B 3 T H W"], hole: Bool[Tensor, "B T H W"]
) -> Guide:
    """Return a clip's tokens without those that touch its hole."""
    tokens = encode(clip.masked_fill(hole[:, None], 0))
    _, t, h, w = tokens.shape
    return Guide(tokens, touched(hole, (t, h, w)))


def edge_guide(encode: Encode, clip: Float[Tensor, "B 3 T H W"]) -> Guide:
    """Return the tokens of a clip's edges."""
    return Guide(encode(edges(clip)))


def small_guide(encode: Encode, small: Float[Tensor, "B 3 T H W"]) -> Guide:
    """Return the tokens of a small clip, spread over the grid of the large one."""
    return Guide(encode(small), step=UPSCALE)


def touched(hole: Bool[Tensor, "B T H W"], grid: Grid) -> Bool[Tensor, "B t h w"]:
    """Return which tokens stand for a pixel of the hole; the first latent frame is one frame."""
    t, h, w = grid
    parts = [reduce(hole[:, :1].float(), "b t (h y) (w x) -> b t h w", "max", h=h, w=w)]
    if t > 1:
        rest = hole[:, 1:].float()
        parts.append(reduce(rest, "b (t s) (h y) (w x) -> b t h w", "max", t=t - 1, h=h, w=w))
    return torch.cat(parts, dim=1).bool()


def edges(clip: Float[Tensor, "B 3 T H W"]) -> Float[Tensor, "B 3 T H W"]:
    """Return the length of the brightness gradient by Sobel's filters, clamped to [-1, 1].

    -1 is flat, 1 a step of half the range or more.
    """
    across = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]], device=clip.device) / 4
    kernel = rearrange(torch.stack([across, across.T]), "two y x -> two 1 y x").to(clip.dtype)
    grey = rearrange(clip.mean(dim=1), "b t h w -> (b t) 1 h w")
    gradient = F.conv2d(F.pad(grey, (1, 1, 1, 1), mode="replicate"), kernel)
    length = torch.linalg.vector_norm(gradient, dim=1)
    picture = (2 * length - 1).clamp(max=1)
    return repeat(picture, "(b t) h w -> b three t h w", b=len(clip), three=3)


def shrink(clip: Float[Tensor, "B 3 T H W"]) -> Float[Tensor, "B 3 T H2 W2"]:
    """Return a clip of half the height and width, each pixel the mean of four."""
    return reduced(clip, 1, UPSCALE)


def with_means(
    clip: Float[Tensor, "B 3 T H W"], small: Float[Tensor, "B 3 T H2 W2"]
) -> Float[Tensor, "B 3 T H W"]:
    """Bring the mean of each four pixels of a clip to what a small copy of it shows.

    What is missing is spread smoothly, again and again (back-projection, Irani and Peleg 1991,
    "Improving resolution by image registration"); the little that is left, evenly.
    """
    for _ in range(_PROJECTIONS):
        clip = clip + enlarged(small - shrink(clip), 1, UPSCALE)
    missing = small - shrink(clip)
    return clip + repeat(missing, "b c t h w -> b c t (h y) (w x)", y=UPSCALE, x=UPSCALE)


def training_guide(
    task: str,
    clip: Float[Tensor, "B 3 T H W"],
    encode: Encode,
    num_latent_frames: int,
    generator: torch.Generator,
) -> Guide | None:
    """Make the guide of a task from the clip that is to be learnt; None where it has none.

    Args:
        task: One of `TrainingTask`.
        clip: Pixels in [-1, 1].
        encode: Of the tokenizer of guides.
        num_latent_frames: Of the clip.
        generator: Draws what is hidden.
    """
    if task == "interpolate":
        return end_guide(encode, clip[:, :, -1:], num_latent_frames - 1)
    if task == "inpaint":
        return hole_guide(encode, clip, random_boxes(clip, (0.25, 0.6), generator))
    if task == "outpaint":
        return hole_guide(encode, clip, ~random_boxes(clip, (0.4, 0.9), generator))
    if task == "control":
        return edge_guide(encode, clip)
    if task == "upscale":
        return small_guide(encode, shrink(clip))
    return None


def random_boxes(
    clip: Float[Tensor, "B 3 T H W"], sides: tuple[float, float], generator: torch.Generator
) -> Bool[Tensor, "B T H W"]:
    """Draw a box for each clip, the same in all frames.

    Args:
        clip: Of the size asked for.
        sides: Least and largest side, as a share of the picture's.
        generator: Source of randomness.
    """
    low, high = sides
    size, place = torch.rand(2, 2, len(clip), generator=generator)
    size = low + (high - low) * size
    inside = [
        _between(place[k] * (1 - size[k]), size[k], length)
        for k, length in enumerate(clip.shape[3:])
    ]
    box = inside[0][:, :, None] & inside[1][:, None, :]
    return repeat(box, "b h w -> b t h w", t=clip.shape[2]).to(clip.device)


def _between(
    first: Float[Tensor, "B"], size: Float[Tensor, "B"], length: int
) -> Bool[Tensor, "B L"]:
    """Return which of `length` pixels have their centre in [first, first + size)."""
    centre = (torch.arange(length) + 0.5) / length
    return (centre >= first[:, None]) & (centre < (first + size)[:, None])
