"""What every prior is: a network between the vectors of one vocabulary, a loss, a way to sample."""

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from layers.configurable import Configurable
from layers.linear import Linear
from lm.codes import CodeTable
from lm.condition import Condition, Inputs
from lm.factors import DepthHead, FactorTable
from lm.guide import GuideTable
from lm.patterns import narrowed
from lm.sampling import Sampling
from lm.sequence import PAD, VIDEO, Grid, Vocabulary, frames_to_sample, head, lattice, line
from lm.transformer import Masks, Table, Transformer

Places = Literal["grid", "line"]


class Prior(Configurable, nn.Module, ABC):
    """A model of the tokens of a clip, given text.

    Args:
        transformer: The network.
        codebook_size: Codes of the tokenizer.
        grid: Token grid (t, h, w) of the trained window.
        text_size: Text pieces at most.
        text_window: Pieces of the longest prompt.
        levels: FSQ levels of the tokenizer, or None.
        tied: Read and predict codes by the same vectors.
        places: Positions of video tokens, on a grid or on a line.
        factors: Sizes of sub-tokens whose product is `codebook_size`, or None.
        inputs: What it can be told beside text.
        slides: Trained on windows at any place of longer clips.
    """

    measure: str
    """What `loss` is, in bits: the name under which it is logged."""

    def __init__(
        self,
        transformer: Transformer,
        codebook_size: int,
        grid: list[int],
        text_size: int,
        text_window: int,
        levels: list[int] | None,
        tied: bool,
        places: Places,
        factors: list[int] | None,
        inputs: Inputs | None,
        slides: bool,
    ) -> None:
        super().__init__()
        self.slides = slides
        self.transformer, self.inputs = transformer, inputs or Inputs()
        self.vocabulary = Vocabulary.of(text_size, codebook_size, self.inputs)
        self.grid = (grid[0], grid[1], grid[2])
        self.text_window, self.places = text_window, places
        width = transformer.width
        # Vectors that also predict are as short as those of a head of their own.
        std = width**-0.5 if tied else 0.5
        self.embedding = nn.Embedding(self.vocabulary.first_code, width)
        nn.init.normal_(self.embedding.weight, std=std)
        size = self.inputs.guide_codebook_size
        self.guide = GuideTable(width, std, size) if self.inputs.guided else None
        size = self.inputs.feature_size
        self.features = Linear(size, width) if size else None
        size = self.inputs.state_size
        self.states = Linear(size, width) if size else None
        self.factors = factors
        if factors is None:
            self.codes = CodeTable(codebook_size, width, std, levels)
            self.head = None if tied else CodeTable(codebook_size, width, width**-0.5, levels)
            return
        if tied or levels is not None:
            raise ValueError(
                "factors share parts of codes by themselves; leave levels and tied out"
            )
        if math.prod(factors) != codebook_size:
            raise ValueError(
                f"factors {factors} make {math.prod(factors)} codes, but codebook_size is "
                f"{codebook_size}; take sizes with that product"
            )
        self.codes = FactorTable(factors, width, std)
        self.head = DepthHead(factors, width, transformer.num_heads)

    @abstractmethod
    def loss(
        self,
        tokens: Int[Tensor, "B t h w"],
        condition: Condition,
        drop: Bool[Tensor, "B"] | None = None,
        generator: torch.Generator | None = None,
        given: Int[Tensor, " B"] | None = None,
    ) -> Float[Tensor, ""]:
        """Return what training minimises, in nats.

        Args:
            tokens: Tokens of clips.
            condition: What each is conditioned on.
            drop: True where a clip's text and class are left out, so that guidance has an
                unconditional side.
            generator: Source of randomness, for a prior that draws what it hides.
            given: First latent frames of each clip that are not to be learnt; none by default.
        """

    @abstractmethod
    def sample(
        self,
        condition: Condition,
        generators: list[torch.Generator],
        *,
        sampling: Sampling = Sampling(),
        context: Int[Tensor, "B k h w"] | None = None,
        num_latent_frames: int | None = None,
    ) -> Int[Tensor, "B t h w"]:
        """Draw tokens; sample i depends on `generators[i]` alone.

        Args:
            condition: What each sample is conditioned on.
            generators: A source of randomness a sample.
            sampling: How tokens are drawn.
            context: Tokens of the first k latent frames, kept as they are.
            num_latent_frames: t; the trained window by default, at most that.
        """

    @abstractmethod
    def check_sampling(self, sampling: Sampling, num_unknown: int) -> None:
        """Raise ValueError where this prior does not draw so many unknown tokens so."""

    def window(
        self,
        condition: Condition,
        generators: list[torch.Generator],
        context: Int[Tensor, "B k h w"] | None,
        num_latent_frames: int | None,
    ) -> Grid:
        """Return the token grid to sample.

        Raises:
            ValueError: The arguments of `sample` do not fit each other or the trained window.
        """
        self.inputs.check(condition)
        known = 0 if context is None else context.shape[1]
        t = frames_to_sample(num_latent_frames, known, self.grid[0])
        count = len(condition)
        counts = {count, len(generators), count if context is None else len(context)}
        if len(counts) > 1:
            raise ValueError(
                f"there are {count} conditions and {len(generators)} generators"
                f"{'' if context is None else f' and {len(context)} contexts'}; give one a sample"
            )
        if context is not None and context.shape[2:] != self.grid[1:]:
            raise ValueError(
                f"the context has {tuple(context.shape[2:])} tokens a latent frame, but this prior "
                f"reads {self.grid[1:]}; encode frames of the trained size"
            )
        if condition.actions is not None and condition.actions.shape[1] < t:
            raise ValueError(
                f"{t} latent frames are asked for, but actions lead to "
                f"{condition.actions.shape[1]}; give more of them"
            )
        return t, self.grid[1], self.grid[2]

    def require_fit(self, tokens: Int[Tensor, "B t h w"]) -> None:
        """Raise ValueError where tokens are none of a clip within the trained window."""
        _, t, h, w = tokens.shape
        if (h, w) != self.grid[1:] or not 1 <= t <= self.grid[0]:
            raise ValueError(
                f"the tokens are {t} x {h} x {w}, but this prior reads up to {self.grid[0]} latent "
                f"frames of {self.grid[1]} x {self.grid[2]}; encode clips of the trained size"
            )

    @property
    def num_tokens(self) -> int:
        """Tokens of the trained window."""
        return math.prod(self.grid)

    @property
    def prefix_length(self) -> int:
        """Positions before the video where there is no guide."""
        return self.text_window + self.inputs.state_window + 3 + (self.inputs.num_classes > 0)

    def table(self) -> Float[Tensor, "V D"]:
        """Return the vector that stands for each entry of the vocabulary."""
        return torch.cat([self.embedding.weight, self.codes()])

    def output_table(self) -> Float[Tensor, "K D"]:
        """Return the vector whose product with a state is the logit of each code."""
        if isinstance(self.head, DepthHead):
            raise ValueError(
                f"a prior with factors {self.factors} makes no table of all logits; "
                "read its loss, score and sample"
            )
        return self.codes() if self.head is None else self.head()

    def check_condition(self, condition: Condition) -> None:
        """Raise ValueError where this prior cannot be told that."""
        self.prefix(condition)

    def prefix(self, condition: Condition, marker: int = VIDEO) -> Int[Tensor, "B P"]:
        """Return the entries of the vocabulary before what is predicted, `marker` the last."""
        self.inputs.check(condition)
        ids = head(condition, self.vocabulary, self.text_window)
        ids = F.pad(ids, (0, 1), value=marker)
        return ids.to(self.embedding.weight.device)

    def lead(self, condition: Condition, marker: int = VIDEO) -> Float[Tensor, "B L D"]:
        """Return the vectors before what is predicted: prompt, guide, features, `marker`."""
        vectors = self.embedding(self.prefix(condition, marker))
        parts = [vectors[:, :-1]]
        if self.states is not None:
            shape = len(vectors), self.inputs.state_window, self.inputs.state_size
            told = condition.states
            told = vectors.new_zeros(shape) if told is None else told.to(vectors.dtype)
            parts.append(self.states(told))
        if condition.guide is not None and self.guide is not None:
            # What a caption is written of is the video itself.
            parts.append(self.guide(condition.guide, self.codes, condition.task == "caption"))
        if condition.features is not None and self.features is not None:
            parts.append(self.features(condition.features.to(vectors.dtype)))
        return torch.cat([*parts, vectors[:, -1:]], dim=1)

    def actions(self, condition: Condition) -> Float[Tensor, "B t a D"] | None:
        """Return the vectors before each latent frame's tokens; None without actions."""
        if condition.actions is None:
            return None
        bins, dimensions = condition.actions, condition.actions.shape[-1]
        first = torch.arange(dimensions, device=bins.device) * self.inputs.action_bins
        ids = torch.where(bins < 0, PAD, self.vocabulary.first_action + first + bins)
        return rearrange(self.embedding(ids), "b t s a d -> b t (s a) d")

    def body(self, codes: Float[Tensor, "B t n D"], condition: Condition) -> Float[Tensor, "B N D"]:
        """Return the vectors behind the lead: frame by frame, what leads to it and its tokens."""
        actions = self.actions(condition)
        if actions is not None:
            codes = torch.cat([actions[:, : codes.shape[1]], codes], dim=2)
        return rearrange(codes, "b t n d -> b (t n) d")

    def positions(self, condition: Condition, num_latent_frames: int) -> Int[Tensor, "N 3"]:
        """Return the positions (t, h, w) of lead and body."""
        frames = [lattice((num_latent_frames, *self.grid[1:]), self.prefix_length)]
        if condition.actions is not None:
            _, _, count, dimensions = condition.actions.shape
            slots = (num_latent_frames, count, dimensions)
            frames = [lattice(slots, self.prefix_length), *frames]
        body = rearrange(torch.cat(frames, dim=1), "t n three -> (t n) three")
        return torch.cat([self.lead_places(condition), body])

    def on_grid(self, condition: Condition, num_latent_frames: int = 0) -> Bool[Tensor, "N"]:
        """Return which positions of lead and body are tokens of a video or of its guide."""
        features = 0 if condition.features is None else condition.features.shape[1]
        guide = 0 if condition.guide is None else condition.guide.tokens[0].numel()
        actions = 0 if condition.actions is None else condition.actions[0, 0].numel()
        frame = [False] * actions + [True] * (self.grid[1] * self.grid[2])
        lead = [False] * (self.prefix_length - 1) + [True] * guide + [False] * (features + 1)
        return torch.tensor(lead + frame * num_latent_frames)

    def seen(self, mask: Table, places: Int[Tensor, "M 3"], on_grid: Bool[Tensor, "M"]) -> Masks:
        """Return who sees whom in a sequence of N positions, layer by layer where they differ.

        Args:
            mask: Who would see whom if all layers were alike.
            places: Position (t, h, w) of each, and perhaps of more behind.
            on_grid: Which of them are tokens of a video or of its guide.
        """
        if not self.transformer.cells:
            return mask
        device = self.embedding.weight.device
        table = torch.ones(len(places), len(places), dtype=torch.bool, device=device)
        if mask is not None:
            table = mask if isinstance(mask, Tensor) else table.tril()
        count, origin = len(table), self.prefix_length
        places, on_grid = places[:count].to(device) - origin, on_grid[:count].to(device)
        return narrowed(table, self.transformer.cells, places, on_grid)

    def lead_places(self, condition: Condition) -> Int[Tensor, "L 3"]:
        """Return the positions of `lead`; those of a guide lie on the video's grid."""
        origin, parts = self.prefix_length, [line(self.prefix_length - 1)]
        if (guide := condition.guide) is not None:
            grid = (guide.tokens.shape[1], guide.tokens.shape[2], guide.tokens.shape[3])
            parts.append(lattice(grid, origin, guide.start, guide.step).flatten(0, 1))
        if condition.features is not None:
            parts.append(line(condition.features.shape[1], origin))
        return torch.cat([*parts, line(1, origin - 1)])

    def rotary(self, places: Int[Tensor, "N 3"]) -> Float[Tensor, "two N head_dim"]:
        """Return the rotary table of positions, counted on where the prior knows no grid."""
        places = line(len(places)) if self.places == "line" else places
        return self.transformer.rotary_table(places.to(self.embedding.weight.device))
