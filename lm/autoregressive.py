"""The autoregressive prior: next-token prediction over text and video tokens.

VideoGPT (Yan et al. 2021, arXiv 2104.10157); VideoPoet (Kondratyuk et al. 2023, arXiv 2312.14125).
"""

from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from layers.linear import linear
from lm.codes import CodeTable
from lm.condition import Condition, Inputs
from lm.decoder import Decoder
from lm.factors import Choice, DepthHead
from lm.logits import choose, guided
from lm.loss import cross_entropy
from lm.packing import Quantization
from lm.prior import Places, Prior
from lm.sampling import Sampling
from lm.sequence import given_tokens, of_codes
from lm.transformer import Table, Transformer

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
        inputs: What it can be told beside text: tasks, classes, actions, features.
        slides: Train on windows at any place of longer clips, of which all but the first begin with
            a latent frame that is like any other. Videos then go on from tokens where only texts
            and classes tell what they show and the tokenizer makes the pixels; otherwise, and from
            part to part of a story, from frames that are encoded again.
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
        inputs: Inputs | None = None,
        slides: bool = False,
    ) -> None:
        super().__init__(
            transformer,
            codebook_size,
            grid,
            text_size,
            text_window,
            levels,
            tied,
            places,
            factors,
            inputs,
            slides,
        )
        self.prefix_attention: PrefixAttention = prefix_attention
        # Predicts text pieces, and the end of a text.
        self.text_head = None
        if "caption" in self.inputs.tasks:
            self.text_head = CodeTable(text_size + 1, transformer.width, transformer.width**-0.5)

    def logits(
        self, tokens: Int[Tensor, "B t h w"], condition: Condition
    ) -> Float[Tensor, "B N V"]:
        """Return the logits of each token given the condition and the tokens before it."""
        return linear(self._states(tokens, condition), self.output_table())

    def loss(
        self,
        tokens: Int[Tensor, "B t h w"],
        condition: Condition,
        drop: Bool[Tensor, "B"] | None = None,
        generator: torch.Generator | None = None,
        given: Int[Tensor, " B"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean cross-entropy of the video tokens that are not given, in nats; draws nothing."""
        nats = self._nats(tokens, condition.dropped(drop))
        if given is not None:
            nats = nats[~given_tokens(tokens.shape, given).to(nats.device)]
        return nats.mean()

    @torch.no_grad()
    def score(self, tokens: Int[Tensor, "B t h w"], condition: Condition) -> Float[Tensor, "B N"]:
        """Return the log-likelihood of each token in nats.

        Raises:
            ValueError: The tokens do not fit the trained window.
        """
        self.require_fit(tokens)
        return -self._nats(tokens, condition)

    @torch.no_grad()
    def sample(
        self,
        condition: Condition,
        generators: list[torch.Generator],
        *,
        sampling: Sampling = Sampling(),
        context: Int[Tensor, "B k h w"] | None = None,
        num_latent_frames: int | None = None,
    ) -> Int[Tensor, "B t h w"]:
        """Draw tokens one after another; sample i depends on `generators[i]` alone."""
        t, h, w = self.window(condition, generators, context, num_latent_frames)
        empty = torch.zeros(len(condition), 0, h, w, dtype=torch.long)
        known = empty.to(self.embedding.weight.device) if context is None else context
        todo, digits = (t - known.shape[1]) * h * w, len(self.factors or [0])
        self.check_sampling(sampling, todo)
        uniforms = torch.stack([torch.rand(todo, digits, generator=g) for g in generators])
        uniforms = uniforms.to(known.device)
        both = condition if sampling.guidance_scale == 1.0 else condition.with_bare()
        dtype = self.sampling_dtype(sampling.quantize)
        with torch.inference_mode(), torch.autocast(known.device.type, enabled=False):
            decoder, given = self._decoder(known, both, t, dtype, sampling.quantize)
            drawn = [
                decoder.step(uniforms[:, i], chosen(sampling), given.get(i)) for i in range(todo)
            ]
        flat = torch.cat([known.flatten(1), *(tokens[:, None] for tokens in drawn)], dim=1)
        return rearrange(flat, "b (t h w) -> b t h w", t=t, h=h)

    def check_sampling(self, sampling: Sampling, num_unknown: int) -> None:
        if sampling.steps is not None:
            raise ValueError("this prior takes one step a token; leave steps out")
        if sampling.choice_temperature != Sampling.choice_temperature:
            raise ValueError("this prior keeps every token; leave choice_temperature out")

    def _decoder(
        self,
        known: Int[Tensor, "B k h w"],
        condition: Condition,
        t: int,
        dtype: torch.dtype,
        quantize: Quantization | None,
    ) -> tuple[Decoder, dict[int, Tensor]]:
        """Return a decoder that has read what is known, and what to give it after which step."""
        read, (k, h, w) = self.codes.reader(dtype), known.shape[1:]
        codes = read(rearrange(known, "b k h w -> b k (h w)"))
        codes = codes.repeat(len(condition) // len(known), 1, 1, 1)
        lead, actions = self.lead(condition).to(dtype), self.actions(condition)
        x = torch.cat([lead, self.body(codes, condition).to(dtype)], dim=1)
        given: dict[int, Tensor] = {}
        if actions is not None:
            actions = actions.to(dtype)
            x = torch.cat([x, actions[:, k]], dim=1)
            given = {(i - k) * h * w - 1: actions[:, i] for i in range(k + 1, t)}
        head = self.head if isinstance(self.head, DepthHead) else self.output_table()
        places = self.positions(condition, t)
        mask = self.mask(len(places), lead.shape[1])
        rotary, mask = self.rotary(places), self.seen(mask, places, self.on_grid(condition, t))
        return Decoder(self.transformer, head, read, x, rotary, mask, quantize), given

    def _nats(self, tokens: Int[Tensor, "B t h w"], condition: Condition) -> Float[Tensor, "B N"]:
        """Return -log p of each token, given the condition and the tokens before it."""
        states, codes = self._states(tokens, condition).flatten(0, 1), tokens.flatten()
        if isinstance(self.head, DepthHead):
            nats = self.head.nats(states, codes)
        else:
            nats = cross_entropy(states, self.output_table(), codes)
        return nats.view(len(tokens), -1)

    def _states(self, tokens: Tensor, condition: Condition) -> Float[Tensor, "B N D"]:
        """Return the state from which each token is predicted."""
        codes = self.codes.read(rearrange(tokens, "b t h w -> b t (h w)"))
        lead, body = self.lead(condition), self.body(codes, condition)
        x = torch.cat([lead, body[:, :-1]], dim=1)
        places = self.positions(condition, codes.shape[1])[:-1]
        on_grid = self.on_grid(condition, codes.shape[1])[:-1]
        mask = self.seen(self.mask(x.shape[1], lead.shape[1]), places, on_grid)
        states = self.transformer(x, self.rotary(places), mask)
        return of_codes(states[:, lead.shape[1] - 1 :], *codes.shape[1:3])

    def sampling_dtype(self, quantize: Quantization | None) -> torch.dtype:
        """Return the type of the weights, or under autocast the one that it asks for."""
        if quantize is not None:
            return torch.bfloat16
        weight = self.embedding.weight
        if torch.is_autocast_enabled(weight.device.type):
            return torch.get_autocast_dtype(weight.device.type)
        return weight.dtype

    def mask(self, length: int, lead_length: int) -> Table:
        """Return who sees whom: everyone those before, and the lead perhaps itself whole."""
        if self.prefix_attention == "causal":
            return "causal"
        places = torch.arange(length, device=self.embedding.weight.device)
        return (places[:, None] >= places) | (places < lead_length)


def chosen(sampling: Sampling) -> Choice:
    """Return the function that draws from logits, of both sides where there is guidance."""
    return lambda logits, uniform: choose(
        guided(logits.float(), sampling.guidance_scale), uniform, sampling
    )
