"""What a user asks for: a task and what it is given, checked before anything is sampled."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

NEEDS = {
    "generate": (),
    "image-to-video": ("context",),
    "predict": ("context",),
    "class": ("classes",),
    "rollout": ("actions",),
    "interpolate": ("guide",),
    "inpaint": ("guide", "mask"),
    "outpaint": ("guide", "mask"),
    "control": ("guide",),
    "upscale": ("guide",),
}
"""The tasks, and what each cannot be done without."""

_HINTS = {
    "context": "frames to go on from",
    "classes": "a class for each sample",
    "actions": "a row of actions for each frame",
    "guide": "the frames to pass through, the video to fill, follow or enlarge",
    "mask": "True where the video is to be made",
}


@dataclass(frozen=True)
class Request:
    """A batch of videos to be made.

    Args:
        prompts: What to show; None for unconditional samples.
        num_frames: 1 + s k, the context included; by default as many as guide, actions or story
            have, else 17.
        seed: Sample i draws from seed + i, or from seed[i], whatever batch it is in.
        context: Frames to continue.
        task: What is to be done, a key of `NEEDS`.
        classes: Class of each sample, by name or number.
        actions: Row k leads to frame k.
        mask: True where the guide is to be made anew: a picture, a video, or one a sample.
        story: Prompts one after another with the number of frames of each; one continuous video.
        guide: Key frames to pass through at equal distances (interpolate), or a video: to fill in
            (inpaint, outpaint), whose edges to follow (control), of half the size (upscale).
        features: A row for each latent frame.
        control: A video that a diffusion decoder trained for it follows, its edges for example, of
            the length and size that it makes.

    Raises:
        ValueError: The task lacks what it needs, or is given what it has no use for.
    """

    prompts: list[str] | None = None
    num_frames: int | None = None
    seed: int | Sequence[int] = 0
    context: UInt8[Tensor, "B T H W 3"] | None = None
    task: str = "generate"
    classes: Sequence[str | int] | None = None
    actions: Float[Tensor, "B T2 A"] | None = None
    mask: Bool[Tensor, "*frames H2 W2"] | None = None
    story: list[tuple[str, int]] | None = None
    guide: UInt8[Tensor, "B T3 H3 W3 3"] | None = None
    features: Float[Tensor, "B t F"] | None = None
    control: UInt8[Tensor, "B T4 H4 W4 3"] | None = None

    def __post_init__(self) -> None:
        for name in ("prompts", "classes"):
            if isinstance(getattr(self, name), str):
                raise ValueError(f"{name} is one text; give a list, one for each sample")
        if self.task not in NEEDS:
            raise ValueError(
                f"task is {self.task!r}; use one of {', '.join(NEEDS)}; captions are written by "
                "pipe.caption, videos changed by pipe.edit"
            )
        for name in NEEDS[self.task]:
            if getattr(self, name) is None:
                raise ValueError(f"the task {self.task} needs {name}: {_HINTS[name]}")
        for name in ("guide", "mask"):
            if getattr(self, name) is not None and name not in NEEDS[self.task]:
                users = [task for task, needs in NEEDS.items() if name in needs]
                raise ValueError(
                    f"the task {self.task} has no use for a {name}; leave it out, or choose "
                    f"{', '.join(users)}"
                )
        if self.story is not None and self.prompts is not None:
            raise ValueError("a story has its own prompts; leave prompts out")
        if self.story is not None and self.task == "interpolate":
            raise ValueError(
                "the parts of a story and the gaps between key frames divide a video in two ways; "
                "leave the story out and give each sample one prompt, or choose generate"
            )
        if self.task == "image-to-video" and self.context is not None and self.context.shape[1] > 1:
            raise ValueError(
                f"image-to-video starts from one picture, but the context has "
                f"{self.context.shape[1]} frames; give its last one, or choose predict"
            )
        if self.task == "interpolate" and self.context is not None:
            raise ValueError("the first key frame is the context; give it in the guide alone")
        shapes = dict.fromkeys(("context", "guide", "control"), "B T H W 3")
        for name, shape in {**shapes, "actions": "B T A", "features": "B t F"}.items():
            if (part := getattr(self, name)) is None:
                continue
            if part.ndim != len(shape.split()) or (name in shapes and part.shape[-1] != 3):
                raise ValueError(f"{name} is {tuple(part.shape)}, but must be {shape}")
        self._check_counts()
        rows = {
            "actions": self.actions,
            "guide": None if self.task == "interpolate" else self.guide,
        }
        for name, part in rows.items():
            if part is not None and part.shape[1] != self.length:
                raise ValueError(
                    f"num_frames is {self.length}, but {name} has {part.shape[1]} frames; "
                    "give one for each frame"
                )

    def known(self, stride: int) -> UInt8[Tensor, "B T H W 3"] | None:
        """Return the frames to go on from: the last 1 + s k of the context, or the first key frame.

        Raises:
            ValueError: They are already as many as the video is to have.
        """
        if self.guide is not None and self.task == "interpolate":
            return self.guide[:, :1]
        if self.context is None:
            return None
        given = self.context.shape[1]
        frames = 1 + (given - 1) // stride * stride
        rows = {"actions": self.actions, "guide": self.guide, "features": self.features}
        moved = [name for name, part in rows.items() if part is not None]
        if frames != given and moved:
            raise ValueError(
                f"the context has {given} frames, of which the last {frames} can be read, but "
                f"{moved[0]} count from its first; give {frames} or {frames + stride} frames"
            )
        if frames >= self.length:
            raise ValueError(
                f"context has {given} frames and num_frames is {self.length}; "
                f"ask for at least {frames + stride}"
            )
        return self.context[:, -frames:]

    def hole(self, size: int) -> Bool[Tensor, "B T {size} {size}"] | None:
        """Return where the guide is to be made anew, for each frame of each sample.

        Raises:
            ValueError: Guide or mask are not of the trained size, or of other lengths; since every
                known pixel is kept, neither is resized.
        """
        if self.mask is None or self.guide is None:
            return None
        if self.mask.dtype != torch.bool:
            raise ValueError(f"the mask is {self.mask.dtype}; give booleans, as mask > 127 makes")
        count, frames, *sides = self.guide.shape[:4]
        mask = self.mask.expand(*[1] * (4 - self.mask.ndim), *self.mask.shape)
        fits = mask.shape[0] in (1, count) and mask.shape[1] in (1, frames)
        if not fits and list(mask.shape[2:]) == sides:
            raise ValueError(
                f"the mask has {mask.shape[1]} frames for {mask.shape[0]} samples, but the guide "
                f"{frames} for {count}; give one of them, or as many"
            )
        if sides != [size, size] or list(mask.shape[2:]) != sides or not fits:
            raise ValueError(
                f"the mask is {tuple(self.mask.shape)} and the guide {tuple(self.guide.shape)}, "
                f"but this model fills {count} x {frames} x {size} x {size}; resize both"
            )
        return mask.expand(count, frames, size, size)

    def _check_counts(self) -> None:
        counts = self._counts()
        if len(set(counts.values())) > 1:
            raise ValueError(
                "different numbers of samples are asked for: "
                f"{', '.join(f'{count} {name}' for name, count in counts.items())}; give one each"
            )
        if self.count < 1:
            raise ValueError("no sample is asked for; give one prompt or seed at least")

    def _counts(self) -> dict[str, int]:
        """Return how many samples each input speaks of."""
        parts = {
            "prompts": self.prompts,
            "contexts": self.context,
            "guides": self.guide,
            "classes": self.classes,
            "actions": self.actions,
            "features": self.features,
            "controls": self.control,
            "seeds": [*self.seed] if isinstance(self.seed, Iterable) else None,
        }
        return {name: len(part) for name, part in parts.items() if part is not None}

    @property
    def count(self) -> int:
        """Samples asked for; one where nothing says how many."""
        return next(iter(self._counts().values()), 1)

    @property
    def seeds(self) -> list[int]:
        """The seed of each sample."""
        if isinstance(self.seed, Iterable):
            return [int(one) for one in self.seed]
        return [int(self.seed) + i for i in range(self.count)]

    @property
    def parts(self) -> list[list[str] | None]:
        """The prompts of each part of the video; one part, unless there is a story."""
        if self.story is None:
            return [self.prompts]
        return [[prompt] * self.count for prompt, _ in self.story]

    @property
    def length(self) -> int:
        """Frames of each video."""
        if self.num_frames is not None:
            return self.num_frames
        if self.story is not None:
            return sum(duration for _, duration in self.story)
        if self.task == "interpolate":
            raise ValueError("the task interpolate needs num_frames, the key frames included")
        lengths = [part.shape[1] for part in (self.guide, self.actions) if part is not None]
        return next(iter(lengths), 17)

    def ends(self, stride: int, window: int) -> list[int]:
        """Return the frames up to the end of each part: prompts of a story, gaps of key frames.

        Raises:
            ValueError: A part has a length that the tokenizer or the prior does not make.
        """
        if self.story is not None:
            return self._story_ends(stride)
        if self.task == "interpolate":
            return self._gap_ends(stride, window)
        return [self.length]

    def _story_ends(self, stride: int) -> list[int]:
        assert self.story is not None
        ends = [0]
        for number, (prompt, duration) in enumerate(self.story):
            rest = duration - 1 if number == 0 else duration
            if rest < 0 or duration < 1 or rest % stride:
                form = f"1 + {stride} k" if number == 0 else f"a multiple of {stride}"
                raise ValueError(
                    f"the story gives {prompt!r} {duration} frames, but part {number + 1} needs "
                    f"{form}"
                )
            ends.append(ends[-1] + duration)
        if len(ends) == 1 or ends[-1] != self.length:
            raise ValueError(
                f"the story has {ends[-1]} frames, but num_frames is {self.length}; "
                "leave num_frames out"
            )
        return ends[1:]

    def _gap_ends(self, stride: int, window: int) -> list[int]:
        assert self.guide is not None
        gaps = self.guide.shape[1] - 1
        if gaps < 1:
            raise ValueError(
                "the task interpolate needs two key frames or more, but the guide has one; "
                "give a first and a last one"
            )
        gap, rest = divmod(self.length - 1, gaps)
        if rest or gap % stride or not 0 < gap < window:
            raise ValueError(
                f"num_frames is {self.length} with {gaps + 1} key frames, but from one to the next "
                f"are a multiple of {stride} frames, at most {window - 1}; "
                f"use {1 + gaps * stride} to {1 + gaps * (window - 1)} frames"
            )
        return [1 + gap * (number + 1) for number in range(gaps)]


def parse_story(text: str) -> list[tuple[str, int]]:
    """Read "prompt A:17; prompt B:32".

    Raises:
        ValueError: A part has no number of frames behind its last colon.
    """
    story = []
    for part in text.split(";"):
        prompt, _, duration = part.rpartition(":")
        if not prompt.strip() or not duration.strip().isdecimal():
            raise ValueError(
                f"the part {part.strip()!r} of the story is not of the form prompt:frames; "
                'write "a red circle moving left:17; a red circle moving up:16"'
            )
        story.append((prompt.strip(), int(duration)))
    return story
