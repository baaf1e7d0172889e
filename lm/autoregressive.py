"""The autoregressive prior: next-token prediction over text and video tokens.

VideoGPT (Yan et al. 2021, arXiv 2104.10157); VideoPoet (Kondratyuk et al. 2023, arXiv 2312.14125).
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from layers.configurable import Configurable
from lm.codes import CodeTable
from lm.logits import check_sampling, draw, probabilities
from lm.sequence import Vocabulary, positions, prefix
from lm.transformer import Transformer

Texts = list[list[int]]


class AutoregressivePrior(Configurable, nn.Module):
    """Models the tokens of a clip, given text, one after another.

    Args:
        transformer: The network.
        codebook_size: Codes of the tokenizer.
        grid: Token grid (t, h, w) of the trained window.
        text_size: Text pieces at most.
        text_window: Pieces of the longest prompt.
        levels: FSQ levels of the tokenizer; codes that share one then share a part of what is
            learnt about them (`CodeTable`).
        tied: Read and predict codes by the same vectors.
        places: "grid" gives video tokens their (t, h, w) as positions; "line" counts on from the
            text as a language model does, which `lm.export` needs.
    """

    def __init__(
        self,
        transformer: Transformer,
        codebook_size: int,
        grid: list[int],
        text_size: int = 320,
        text_window: int = 24,
        levels: list[int] | None = None,
        tied: bool = False,
        places: Literal["grid", "line"] = "grid",
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.vocabulary = Vocabulary(text_size, codebook_size)
        self.grid = (grid[0], grid[1], grid[2])
        self.text_window, self.prefix_length = text_window, text_window + 3
        self.places: Literal["grid", "line"] = places
        width = transformer.width
        # Vectors that also predict are as short as those of a head of their own.
        std = width**-0.5 if tied else 0.5
        self.embedding = nn.Embedding(self.vocabulary.first_code, width)
        nn.init.normal_(self.embedding.weight, std=std)
        self.codes = CodeTable(codebook_size, width, std, levels)
        self.head = None if tied else CodeTable(codebook_size, width, width**-0.5, levels)

    @property
    def num_tokens(self) -> int:
        """Tokens of the trained window."""
        return math.prod(self.grid)

    def logits(self, tokens: Int[Tensor, "B t h w"], texts: Texts) -> Float[Tensor, "B N V"]:
        """Return the logits of each token given the text and the tokens before it."""
        codes = rearrange(tokens, "b t h w -> b (t h w)") + self.vocabulary.first_code
        ids = torch.cat([self._prefix(texts), codes[:, :-1]], dim=1)
        x = F.embedding(ids, self.table())
        states = self.transformer(x, self._rotary_table(ids.shape[1]))
        return F.linear(states[:, self.prefix_length - 1 :], self.output_table())

    def loss(
        self, tokens: Int[Tensor, "B t h w"], texts: Texts, drop: Tensor | None = None
    ) -> Float[Tensor, ""]:
        """Mean cross-entropy of the video tokens in nats.

        Args:
            tokens: Tokens of clips.
            texts: Text pieces of each.
            drop: True where a clip's text is left out, so that guidance has an unconditional side.
        """
        if drop is not None:
            texts = [[] if out else text for text, out in zip(texts, drop.tolist(), strict=True)]
        logits = self.logits(tokens, texts)
        return F.cross_entropy(logits.flatten(0, 1).float(), tokens.flatten())

    @torch.no_grad()
    def score(self, tokens: Int[Tensor, "B t h w"], texts: Texts) -> Float[Tensor, "B N"]:
        """Return the log-likelihood of each token in nats."""
        chances = self.logits(tokens, texts).float().log_softmax(-1)
        return chances.gather(-1, tokens.flatten(1)[..., None])[..., 0]

    @torch.no_grad()
    def sample(
        self,
        texts: Texts,
        generators: list[torch.Generator],
        *,
        context: Int[Tensor, "B k h w"] | None = None,
        num_latent_frames: int | None = None,
        guidance_scale: float = 1.0,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Int[Tensor, "B t h w"]:
        """Draw tokens; sample i depends on `generators[i]` alone.

        Args:
            texts: Text pieces of each sample; none for an unconditional one.
            generators: A source of randomness a sample.
            context: Tokens of the first k latent frames, kept as they are.
            num_latent_frames: t; the trained window by default, at most that.
            guidance_scale: uncond + scale (cond - uncond); 1 is off and skips the second pass.
            temperature: 0 is greedy.
            top_k: Keep the k likeliest tokens.
            top_p: Keep the smallest set of tokens that has this probability.
        """
        check_sampling(temperature, top_k, top_p)
        t, h, w = num_latent_frames or self.grid[0], *self.grid[1:]
        known = context.flatten(1) if context is not None else self._prefix(texts)[:, :0]
        todo = t * h * w - known.shape[1]
        uniforms = torch.stack([torch.rand(todo, generator=g) for g in generators]).to(known.device)
        guided = guidance_scale != 1.0
        ids = torch.cat([self._prefix(texts), known + self.vocabulary.first_code], dim=1)
        if guided:
            bare = torch.cat([self._prefix([[] for _ in texts]), ids[:, self.prefix_length :]], 1)
            ids = torch.cat([ids, bare])
        rotary = self._rotary_table(self.prefix_length + t * h * w)
        table, head, place, drawn = self.table(), self.output_table(), 0, []
        x = F.embedding(ids, table)
        cache = self.transformer.new_cache(len(ids), rotary.shape[1], x)
        for step in range(todo):
            states = self.transformer(x, rotary[:, place : place + x.shape[1]], cache=cache)
            place += x.shape[1]
            logits = F.linear(states[:, -1], head).float()
            if guided:
                conditional, bare_logits = logits.chunk(2)
                logits = bare_logits + guidance_scale * (conditional - bare_logits)
            tokens = draw(probabilities(logits, temperature, top_k, top_p), uniforms[:, step])
            drawn.append(tokens)
            x = F.embedding(tokens + self.vocabulary.first_code, table)[:, None]
            x = torch.cat([x, x]) if guided else x
        flat = torch.cat([known, torch.stack(drawn, dim=1)], dim=1)
        return rearrange(flat, "b (t h w) -> b t h w", t=t, h=h)

    def table(self) -> Float[Tensor, "V D"]:
        """Return the vector that stands for each entry of the vocabulary."""
        return torch.cat([self.embedding.weight, self.codes()])

    def output_table(self) -> Float[Tensor, "K D"]:
        """Return the vector whose product with a state is the logit of each code."""
        return self.codes() if self.head is None else self.head()

    def _prefix(self, texts: Texts) -> Int[Tensor, "B P"]:
        ids = prefix(texts, self.vocabulary, self.text_window)
        return ids.to(self.embedding.weight.device)

    def _rotary_table(self, length: int) -> Float[Tensor, "two N head_dim"]:
        axes = positions(self.prefix_length, self.grid, self.places)[:length]
        return self.transformer.rotary_table(axes.to(self.embedding.weight.device))
