"""The autoregressive prior: next-token prediction over text and video tokens.

VideoGPT (Yan et al. 2021, arXiv 2104.10157); VideoPoet (Kondratyuk et al. 2023, arXiv 2312.14125).
"""

from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from layers.linear import linear
from lm.factors import Choice, DepthHead
from lm.logits import choose
from lm.loss import cross_entropy
from lm.packing import Quantization, pack, packed
from lm.prior import Places, Prior, Texts, dropped, guided
from lm.sampling import Sampling
from lm.transformer import Mask, Transformer

PrefixAttention = Literal["causal", "bidirectional"]


class AutoregressivePrior(Prior):
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
        prefix_attention: "bidirectional" lets the prefix see itself whole (T5, Raffel et al. 2019,
            arXiv 1910.10683), "causal" only what stands before.
        factors: Sizes of sub-tokens whose product is `codebook_size`: each code is then predicted
            as so many digits, one after another (`DepthHead`). For codebooks above 2^16.
    """

    measure = "bits_per_token"

    def __init__(
        self,
        transformer: Transformer,
        codebook_size: int,
        grid: list[int],
        text_size: int = 320,
        text_window: int = 24,
        levels: list[int] | None = None,
        tied: bool = False,
        places: Places = "grid",
        prefix_attention: PrefixAttention = "causal",
        factors: list[int] | None = None,
    ) -> None:
        super().__init__(
            transformer, codebook_size, grid, text_size, text_window, levels, tied, places, factors
        )
        self.prefix_attention: PrefixAttention = prefix_attention

    def logits(self, tokens: Int[Tensor, "B t h w"], texts: Texts) -> Float[Tensor, "B N V"]:
        """Return the logits of each token given the text and the tokens before it."""
        return linear(self._states(tokens, texts), self.output_table())

    def loss(
        self,
        tokens: Int[Tensor, "B t h w"],
        texts: Texts,
        drop: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, ""]:
        """Mean cross-entropy of the video tokens in nats; draws nothing."""
        return self._nats(tokens, dropped(texts, drop)).mean()

    @torch.no_grad()
    def score(self, tokens: Int[Tensor, "B t h w"], texts: Texts) -> Float[Tensor, "B N"]:
        """Return the log-likelihood of each token in nats."""
        return -self._nats(tokens, texts)

    @torch.no_grad()
    def sample(
        self,
        texts: Texts,
        generators: list[torch.Generator],
        *,
        context: Int[Tensor, "B k h w"] | None = None,
        num_latent_frames: int | None = None,
        sampling: Sampling = Sampling(),
    ) -> Int[Tensor, "B t h w"]:
        """Draw tokens one after another; sample i depends on `generators[i]` alone."""
        if sampling.steps is not None:
            raise ValueError("this prior takes one step a token; leave steps out")
        t, h, w = self.window(texts, generators, context, num_latent_frames)
        known = context.flatten(1) if context is not None else self.prefix(texts)[:, :0]
        todo, digits = t * h * w - known.shape[1], len(self.factors or [0])
        uniforms = torch.stack([torch.rand(todo, digits, generator=g) for g in generators])
        sides = [texts] if sampling.guidance_scale == 1.0 else [texts, [[] for _ in texts]]

        def choose_guided(logits: Tensor, uniform: Tensor) -> Tensor:
            return choose(guided(logits.float(), sampling.guidance_scale), uniform, sampling)

        dtype = torch.bfloat16 if sampling.quantize else self._sampling_dtype()
        with torch.inference_mode(), torch.autocast(known.device.type, enabled=False):
            decoder = Decoder(self, sides, known, t * h * w, dtype, sampling.quantize)
            uniforms = uniforms.to(known.device)
            drawn = [decoder.step(uniforms[:, i], choose_guided) for i in range(todo)]
        flat = torch.cat([known, *(tokens[:, None] for tokens in drawn)], dim=1)
        return rearrange(flat, "b (t h w) -> b t h w", t=t, h=h)

    def _nats(self, tokens: Int[Tensor, "B t h w"], texts: Texts) -> Float[Tensor, "B N"]:
        """Return -log p of each token, given the text and the tokens before it."""
        states, codes = self._states(tokens, texts).flatten(0, 1), tokens.flatten()
        if isinstance(self.head, DepthHead):
            nats = self.head.nats(states, codes)
        else:
            nats = cross_entropy(states, self.output_table(), codes)
        return nats.view(len(tokens), -1)

    def _states(self, tokens: Tensor, texts: Texts) -> Float[Tensor, "B N D"]:
        """Return the state from which each token is predicted."""
        codes = rearrange(tokens, "b t h w -> b (t h w)")[:, :-1]
        x = torch.cat([self.embedding(self.prefix(texts)), self.codes.read(codes)], dim=1)
        length = x.shape[1]
        states = self.transformer(x, self.rotary_table(length), self.mask(length))
        return states[:, self.prefix_length - 1 :]

    def _sampling_dtype(self) -> torch.dtype:
        """Return the type of the weights, or under autocast the one that it asks for."""
        weight = self.embedding.weight
        if torch.is_autocast_enabled(weight.device.type):
            return torch.get_autocast_dtype(weight.device.type)
        return weight.dtype

    def mask(self, length: int) -> Mask:
        """Return who sees whom: everyone those before, and the prefix perhaps itself whole."""
        if self.prefix_attention == "causal":
            return "causal"
        places = torch.arange(length, device=self.embedding.weight.device)
        return (places[:, None] >= places) | (places < self.prefix_length)


class Decoder:
    """An autoregressive prior that makes one token after another.

    Everything that a step needs is laid out before: weights in the order in which they are read
    fastest, keys and values in buffers of their final size, the table of rotary positions.

    Args:
        prior: Whose weights are used; not kept in step with later changes.
        sides: Texts of the batch; for guidance a second time without.
        known: Tokens given at the start.
        num_tokens: Tokens at the end.
        dtype: Of everything that is computed.
        quantize: "int8" for weights of one byte.
    """

    def __init__(
        self,
        prior: AutoregressivePrior,
        sides: list[Texts],
        known: Int[Tensor, "B n"],
        num_tokens: int,
        dtype: torch.dtype,
        quantize: Quantization | None,
    ) -> None:
        self.sides, rows = len(sides), len(sides) * len(known)
        self.network = packed(prior.transformer, dtype, quantize)
        self.read = prior.codes.reader(dtype)
        self.head: nn.Module | DepthHead
        if isinstance(prior.head, DepthHead):
            self.head = packed(prior.head, dtype, quantize)
        else:
            self.head = pack(prior.output_table().to(dtype), quantize)
        prompts = torch.cat([prior.embedding(prior.prefix(side)) for side in sides]).to(dtype)
        self.x = torch.cat([prompts, self.read(known).repeat(self.sides, 1, 1)], dim=1)
        self.rotary = prior.rotary_table(prior.prefix_length + num_tokens).to(dtype)
        self.cache = self.network.new_cache(rows, self.rotary.shape[1], self.x)
        self.mask = prior.mask(self.x.shape[1])

    def step(self, uniforms: Float[Tensor, "B K"], choose: Choice) -> Int[Tensor, "B"]:
        """Return the next token of each sample."""
        start = self.cache.length
        rotary = self.rotary[:, start : start + self.x.shape[1]]
        states = self.network(self.x, rotary, self.mask, self.cache)[:, -1]
        if isinstance(self.head, DepthHead):
            tokens = self.head.draw(states, uniforms, choose)
        else:
            tokens = choose(self.head(states), uniforms[:, 0])
        self.x = self.read(tokens)[:, None].repeat(self.sides, 1, 1)
        self.mask = "causal"
        return tokens
