"""What every prior is: a network between the vectors of one vocabulary, a loss, a way to sample."""

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from layers.configurable import Configurable
from lm.codes import CodeTable
from lm.factors import DepthHead, FactorTable
from lm.sampling import Sampling
from lm.sequence import Vocabulary, positions, prefix
from lm.transformer import Transformer

Texts = list[list[int]]
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
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.vocabulary = Vocabulary(text_size, codebook_size)
        self.grid = (grid[0], grid[1], grid[2])
        self.text_window, self.prefix_length = text_window, text_window + 3
        self.places: Places = places
        width = transformer.width
        # Vectors that also predict are as short as those of a head of their own.
        std = width**-0.5 if tied else 0.5
        self.embedding = nn.Embedding(self.vocabulary.first_code, width)
        nn.init.normal_(self.embedding.weight, std=std)
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
        texts: Texts,
        drop: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, ""]:
        """Return what training minimises, in nats.

        Args:
            tokens: Tokens of clips.
            texts: Text pieces of each.
            drop: True where a clip's text is left out, so that guidance has an unconditional side.
            generator: Source of randomness, for a prior that draws what it hides.
        """

    @abstractmethod
    def sample(
        self,
        texts: Texts,
        generators: list[torch.Generator],
        *,
        context: Int[Tensor, "B k h w"] | None = None,
        num_latent_frames: int | None = None,
        sampling: Sampling = Sampling(),
    ) -> Int[Tensor, "B t h w"]:
        """Draw tokens; sample i depends on `generators[i]` alone.

        Args:
            texts: Text pieces of each sample; none for an unconditional one.
            generators: A source of randomness a sample.
            context: Tokens of the first k latent frames, kept as they are.
            num_latent_frames: t; the trained window by default, at most that.
            sampling: How they are drawn.
        """

    def window(
        self,
        texts: Texts,
        generators: list[torch.Generator],
        context: Int[Tensor, "B k h w"] | None,
        num_latent_frames: int | None,
    ) -> tuple[int, int, int]:
        """Return the token grid to sample.

        Raises:
            ValueError: The arguments of `sample` do not fit each other or the trained window.
        """
        known = 0 if context is None else context.shape[1]
        t = self.grid[0] if num_latent_frames is None else num_latent_frames
        if not known < t <= self.grid[0]:
            raise ValueError(
                f"{t} latent frames are asked for, {known} of them given, but this prior makes "
                f"{known + 1} to {self.grid[0]} then; continue longer videos window by window"
            )
        counts = {len(texts), len(generators), len(texts) if context is None else len(context)}
        if len(counts) > 1:
            raise ValueError(
                f"there are {len(texts)} texts and {len(generators)} generators"
                f"{'' if context is None else f' and {len(context)} contexts'}; give one a sample"
            )
        if context is not None and context.shape[2:] != self.grid[1:]:
            raise ValueError(
                f"the context has {tuple(context.shape[2:])} tokens a latent frame, but this prior "
                f"reads {self.grid[1:]}; encode frames of the trained size"
            )
        return t, self.grid[1], self.grid[2]

    @property
    def num_tokens(self) -> int:
        """Tokens of the trained window."""
        return math.prod(self.grid)

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

    def prefix(self, texts: Texts) -> Int[Tensor, "B P"]:
        """Return the entries of the vocabulary that stand before the video."""
        ids = prefix(texts, self.vocabulary, self.text_window)
        return ids.to(self.embedding.weight.device)

    def rotary_table(self, length: int) -> Float[Tensor, "two N head_dim"]:
        """Return the rotary table of the first positions of prefix and video."""
        axes = positions(self.prefix_length, self.grid, self.places)[:length]
        return self.transformer.rotary_table(axes.to(self.embedding.weight.device))


def dropped(texts: Texts, drop: Tensor | None) -> Texts:
    """Return the texts, empty where `drop` is True."""
    if drop is None:
        return texts
    return [[] if out else text for text, out in zip(texts, drop.tolist(), strict=True)]


def guided(
    logits: Float[Tensor, "twice_B *rest"], guidance_scale: float
) -> Float[Tensor, "B *rest"]:
    """Return uncond + scale (cond - uncond) of a batch that holds cond and uncond in this order."""
    if guidance_scale == 1.0:
        return logits
    conditional, bare = logits.chunk(2)
    return bare + guidance_scale * (conditional - bare)
