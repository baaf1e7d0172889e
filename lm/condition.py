"""What a batch is conditioned on: texts, a task, classes, actions, a guide, features.

Everything that stands before the tokens of a clip, or among them, without being predicted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from layers.configurable import Configurable
from lm.actions import NONE, to_bins

Texts = list[list[int]]
Task = Literal["generate", "interpolate", "inpaint", "outpaint", "control", "upscale", "caption"]


class Inputs(Configurable):
    """What a prior can be told beside text.

    Args:
        tasks: The tasks that it is trained for; "generate" is text-to-video, and what needs no
            guide: classes, continuation, actions, features.
        num_classes: Classes of clips; 0 leaves their place out of the sequence.
        action_ranges: Least and largest value of each dimension of an action; none without actions.
        action_bins: Bins into which each range is cut.
        guide_codebook_size: Codes of the tokenizer that encodes guides, where it is another one;
            the clip that a caption is written of keeps the video's own.
        feature_size: Numbers in each row of features; 0 without.
        state_size: Numbers in each state of a text encoder that reads the prompts; 0 without one.
        state_window: States of the longest prompt.
    """

    def __init__(
        self,
        tasks: list[Task] | None = None,
        num_classes: int = 0,
        action_ranges: list[list[float]] | None = None,
        action_bins: int = 16,
        guide_codebook_size: int | None = None,
        feature_size: int = 0,
        state_size: int = 0,
        state_window: int = 64,
    ) -> None:
        self.tasks: list[Task] = ["generate"] if tasks is None else tasks
        self.num_classes, self.action_bins = num_classes, action_bins
        self.action_ranges = action_ranges or []
        self.guide_codebook_size, self.feature_size = guide_codebook_size, feature_size
        self.state_size, self.state_window = state_size, state_window if state_size else 0
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks are {self.tasks}; name one or more, each once")
        for low, high in self.action_ranges:
            if not low < high:
                raise ValueError(f"an action range is ({low}, {high}); give the least value first")
        if action_bins < 2:
            raise ValueError(f"action_bins is {action_bins}, but a range needs 2 or more")

    @property
    def guided(self) -> bool:
        """Whether any task has a guide."""
        return self.tasks != ["generate"]

    def bins(self, actions: Float[Tensor, "B T A"]) -> Int[Tensor, "B T A"]:
        """Return actions as the prior reads them.

        Raises:
            ValueError: The prior knows none, others, or not these values.
        """
        if not self.action_ranges:
            raise ValueError("this prior was trained without actions; leave them out")
        return to_bins(actions, self.action_ranges, self.action_bins)

    def check_task(self, task: Task) -> None:
        """Raise ValueError where a prior with these inputs was not trained for a task."""
        if task not in self.tasks:
            raise ValueError(
                f"the task is {task!r}, but this prior was trained for {', '.join(self.tasks)}; "
                "choose one of them, or train with that task"
            )

    def check_guide_codes(self, codebook_size: int, made: int) -> None:
        """Raise ValueError where guides are other codes than a prior with these inputs reads.

        Args:
            codebook_size: Codes of the video.
            made: Codes of the tokenizer that encodes guides.
        """
        read = self.guide_codebook_size or codebook_size
        if self.guided and made != read:
            raise ValueError(
                f"this prior reads guides of {read} codes, but the tokenizer that encodes them has "
                f"{made}; give a guide tokenizer of {read} codes, or train with "
                f"guide_codebook_size {made}"
            )

    def check(self, condition: "Condition") -> None:
        """Refuse what a prior with these inputs cannot be told.

        Raises:
            ValueError: The condition asks for a task or brings an input that was not trained, has
                values out of range, or lacks its guide.
        """
        task, guide = condition.task, condition.guide
        self.check_task(task)
        if (guide is None) != (task == "generate"):
            needs = "needs a guide" if guide is None else "has no guide"
            raise ValueError(f"the task {task!r} {needs}; see lm.tasks for what each is given")
        for number in condition.classes or []:
            if number is not None and not 0 <= number < self.num_classes:
                raise ValueError(
                    f"class {number} is asked for, but this prior knows {self.num_classes} "
                    "classes, numbered from 0"
                )
        if condition.actions is not None:
            self._check_actions(condition.actions)
        if condition.features is None and self.feature_size and task != "caption":
            raise ValueError(
                "this prior reads features; give a row of "
                f"{self.feature_size} numbers for each latent frame"
            )
        size = self.feature_size if condition.features is None else condition.features.shape[-1]
        if size != self.feature_size:
            raise ValueError(
                f"features have {size} numbers a row, but this prior was trained with "
                f"{self.feature_size}"
            )
        if condition.features is not None and not bool(condition.features.isfinite().all()):
            raise ValueError("features hold nan or infinite numbers; give finite ones")
        if condition.states is not None:
            shape = tuple(condition.states.shape[1:])
            if shape != (self.state_window, self.state_size):
                raise ValueError(
                    f"the prompts are {shape[0]} states of {shape[1]} numbers, but this prior "
                    f"reads {self.state_window} of {self.state_size}; take the text encoder of "
                    "training"
                )
        counts = condition.counts()
        if len(set(counts.values())) > 1:
            raise ValueError(f"a condition speaks of different numbers of clips: {counts}")

    def _check_actions(self, actions: Int[Tensor, "B t s A"]) -> None:
        if not self.action_ranges:
            raise ValueError("this prior was trained without actions; leave them out")
        known = bool(((actions >= NONE) & (actions < self.action_bins)).all())
        if actions.shape[-1] != len(self.action_ranges) or not known:
            raise ValueError(
                f"actions have {actions.shape[-1]} dimensions and bins from {int(actions.min())} "
                f"to {int(actions.max())}, but this prior knows {len(self.action_ranges)} "
                f"dimensions of {self.action_bins} bins from 0, and {NONE} for none; cut them by "
                "lm.actions"
            )


@dataclass(frozen=True)
class Guide:
    """Tokens of another clip, at places on the grid of the video.

    Args:
        tokens: Of the end frame, of the clip with a hole, of its edges, of a small copy.
        hole: True where a token says nothing, for what it shows is to be made; None for nowhere.
        start: Latent frame of the video at which they begin.
        step: From one of them to the next along h and w, in tokens of the video.
    """

    tokens: Int[Tensor, "B t h w"]
    hole: Bool[Tensor, "B t h w"] | None = None
    start: int = 0
    step: int = 1

    def twice(self) -> "Guide":
        """Return the guide of each sample, then of each again."""
        hole = None if self.hole is None else torch.cat([self.hole] * 2)
        return replace(self, tokens=torch.cat([self.tokens] * 2), hole=hole)


@dataclass(frozen=True)
class Condition:
    """What each clip of a batch is conditioned on; all of them have one task.

    Args:
        texts: Text pieces of each; none for a clip without text.
        task: What is to be done.
        classes: Class of each, None for a clip without; None alone where no clip has one.
        actions: Bins of the s actions of A dimensions that lead to each latent frame; -1 for none.
        guide: Tokens of another clip.
        features: Rows of numbers, such as the loudness of each latent frame's time.
        states: Of a text encoder that has read the prompts; None for no prompts.
    """

    texts: Texts
    task: Task = "generate"
    classes: list[int | None] | None = None
    actions: Int[Tensor, "B t s A"] | None = None
    guide: Guide | None = None
    features: Float[Tensor, "B n F"] | None = None
    states: Float[Tensor, "B m S"] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def counts(self) -> dict[str, int]:
        """Return how many clips each part speaks of."""
        guide = None if self.guide is None else self.guide.tokens
        parts = {"classes": self.classes, "actions": self.actions, "features": self.features}
        parts |= {"texts": self.texts, "guides": guide, "states": self.states}
        return {name: len(part) for name, part in parts.items() if part is not None}

    @property
    def is_bare(self) -> bool:
        """Say whether no clip has a text or a class, which are what guidance strengthens."""
        told = any(self.texts) or self.states is not None
        return not told and all(one is None for one in self.classes or [])

    def dropped(self, drop: Bool[Tensor, "B"] | None) -> "Condition":
        """Leave out what guidance strengthens, text and class, where `drop` is True."""
        if drop is None:
            return self
        out = drop.tolist()
        texts = [[] if gone else text for gone, text in zip(out, self.texts, strict=True)]
        classes = self.classes
        if classes is not None:
            classes = [None if gone else one for gone, one in zip(out, classes, strict=True)]
        states = self.states
        if states is not None:
            states = states * ~drop[:, None, None].to(states.device)
        return replace(self, texts=texts, classes=classes, states=states)

    def with_bare(self) -> "Condition":
        """Return the conditions of a batch, then again without text and class, for guidance."""
        bare = self.dropped(torch.ones(len(self), dtype=torch.bool))
        classes = None if self.classes is None else [*self.classes, *(bare.classes or [])]
        actions, features = (
            None if x is None else torch.cat([x, x]) for x in (self.actions, self.features)
        )
        guide = None if self.guide is None else self.guide.twice()
        texts, states = [*self.texts, *bare.texts], None
        if self.states is not None and bare.states is not None:
            states = torch.cat([self.states, bare.states])
        return Condition(texts, self.task, classes, actions, guide, features, states)


def class_numbers(classes: Sequence[str | int] | None, known: list[str]) -> list[int | None] | None:
    """Return the number of each class, by its name or, where none is called so, by its number."""
    if classes is None:
        return None
    numbers: list[int | None] = []
    for one in classes:
        if isinstance(one, str) and one not in known and not one.isdecimal():
            names = ", ".join(known[:8]) or "none"
            raise ValueError(f"{one!r} is no class of this model; it knows {names}")
        numbers.append(known.index(one) if one in known else int(one))
    return numbers
