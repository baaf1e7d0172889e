"""How unknown tokens are drawn in a few steps, and what a step need not compute again.

Drawing again what was least sure: ReMDM (Wang et al. 2025, arXiv 2503.00307), there anything.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from layers.linear import linear
from lm.condition import Condition
from lm.logits import draw, guided, probabilities
from lm.masking import Schedule, gumbel, lowest, still_masked
from lm.packing import packed
from lm.sampling import Sampling
from lm.sequence import of_codes

if TYPE_CHECKING:
    from lm.maskgit import MaskGITPrior

_MANY = 8  # so many steps of a part are enough for some that draw again


def draw_masked(
    ask: Callable[[Tensor, Tensor], Tensor],
    tokens: Int[Tensor, "B N"],
    masked: Bool[Tensor, "B N"],
    steps: Int[Tensor, "B"],
    schedule: Schedule,
    redrawn: list[float],
    generators: list[torch.Generator],
    sampling: Sampling,
) -> Int[Tensor, "B N"]:
    """Draw the masked tokens; each step keeps those of which the network is surest.

    Args:
        ask: From tokens and what is masked to logits, of both sides where there is guidance.
        tokens: Where masked, any.
        masked: True where a token is to be drawn.
        steps: Calls of the network for each sample; with fewer it waits for the others.
        schedule: How many stay masked from step to step.
        redrawn: Shares of the tokens that the last steps draw again, where steps are many.
        generators: A source of randomness a sample.
        sampling: How tokens are drawn.
    """
    num_unknown, sides = masked.sum(1), 1 if sampling.guidance_scale == 1.0 else 2
    waits = torch.zeros(2, tokens.shape[1])  # nor does one that waits use up randomness
    unknown, kept = masked, torch.full(masked.shape, torch.inf, device=masked.device)
    shares = torch.tensor([*redrawn, 0.0], dtype=torch.double, device=masked.device)
    first, counts = steps - len(redrawn) * (steps >= _MANY), steps.tolist()
    for step in range(max(counts)):
        share = shares[(step - first).clamp(0, len(redrawn))] * (steps >= _MANY)
        again = lowest(kept.masked_fill(~unknown, torch.inf), (num_unknown * share).ceil().long())
        masked = torch.where((step >= first)[:, None], again, masked)
        logits = ask(tokens.repeat(sides, 1), masked.repeat(sides, 1)).float()
        logits = guided(logits, sampling.guidance_scale)
        draws = zip(generators, counts, strict=True)
        noise = [torch.rand(waits.shape, generator=g) if step < s else waits for g, s in draws]
        uniforms, choice = torch.stack(noise).to(tokens.device).unbind(1)
        chances = probabilities(logits.flatten(0, 1), sampling)
        guesses = draw(chances, uniforms.flatten()).view_as(tokens)
        tokens = torch.where(masked, guesses, tokens)
        sureness = logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
        kept = torch.where(masked, sureness, kept)
        ratio = (torch.tensor(step + 1, dtype=torch.double) / first).clamp(max=1)
        weight = sampling.choice_temperature * (1 - ratio).float()
        sureness = sureness + weight[:, None] * gumbel(choice)
        count = still_masked(schedule, ratio, num_unknown, masked.sum(1))
        masked = lowest(sureness.masked_fill(~masked, torch.inf), count)
    return tokens


class FrameReader:
    """A causal masked prior that keeps the keys and values of the latent frames before.

    Args:
        prior: The network.
        condition: What each sample is conditioned on; for guidance the batch and its other side.
        shape: Of the tokens, B t h w.
    """

    def __init__(self, prior: "MaskGITPrior", condition: Condition, shape: torch.Size) -> None:
        self.prior, self.shape = prior, shape
        self.actions, self.table = prior.actions(condition), prior.output_table()
        lead, places = prior.lead(condition), prior.positions(condition, shape[1])
        self.lead, self.frame = lead.shape[1], (len(places) - lead.shape[1]) // shape[1]
        self.rotary = prior.rotary(places)
        mask = prior.visible(self.lead, shape[1], self.frame)
        self.mask = prior.seen(mask, places, prior.on_grid(condition, shape[1]))
        self.cache = prior.transformer.new_cache(len(lead), len(places), lead)
        self.num_read = 0
        self._read(lead, 0)

    def logits(
        self,
        tokens: Int[Tensor, "B t n"],
        now: Int[Tensor, "B2 n"],
        masked: Bool[Tensor, "B2 n"],
        frame: int,
    ) -> Float[Tensor, "B2 n V"]:
        """Return the logits of a latent frame's tokens.

        Args:
            tokens: Of the clips; later frames are not read, earlier ones once.
            now: Of this latent frame.
            masked: Which of these are not read.
            frame: Its number, which never falls.
        """
        for earlier in range(self.num_read, frame):
            known = self._repeated(tokens[:, earlier], len(now))
            self._states(tokens, known, torch.zeros_like(masked), earlier)
        self.num_read = frame
        return linear(self._states(tokens, now, masked, frame), self.table)

    def _states(self, tokens: Tensor, now: Tensor, masked: Tensor, frame: int) -> Tensor:
        """Return the states of a latent frame, and leave its keys and values behind."""
        before = self._repeated(tokens[:, max(0, frame - 2) : frame], len(now))
        whole = torch.cat([before, now[:, None]], dim=1)
        hidden = torch.cat([torch.zeros_like(before, dtype=torch.bool), masked[:, None]], dim=1)
        h, w = self.shape[2:]
        whole, hidden = (rearrange(x, "b t (h w) -> b t h w", h=h, w=w) for x in (whole, hidden))
        x = self.prior.vectors(whole, hidden)[:, -1]
        if self.actions is not None:
            x = torch.cat([self.actions[:, frame], x], dim=1)
        return of_codes(self._read(x, self.lead + frame * self.frame), 1, h * w)

    def _read(self, x: Tensor, start: int) -> Tensor:
        end = start + x.shape[1]
        mask = self.mask
        mask = [one[start:end, :end] for one in mask] if isinstance(mask, list) else None
        self.cache.length = start
        return self.prior.transformer(x, self.rotary[:, start:end], mask, self.cache)

    def _repeated(self, tokens: Tensor, batch_size: int) -> Tensor:
        """Return the tokens for both sides of guidance."""
        return tokens.repeat(batch_size // len(tokens), *[1] * (tokens.ndim - 1))


def fill_parts(
    prior: "MaskGITPrior",
    tokens: Int[Tensor, "B parts n"],
    masked: Bool[Tensor, "B parts n"],
    steps: Int[Tensor, "B parts"],
    condition: Condition,
    grid: torch.Size,
    generators: list[torch.Generator],
    sampling: Sampling,
) -> Int[Tensor, "B parts n"]:
    """Draw the masked tokens of clips, part after part.

    Args:
        prior: The network.
        tokens: Latent frames of a causal prior, or the clip as one part; where masked, any.
        masked: True where a token is to be drawn.
        steps: Calls of the network for each part of each sample.
        condition: What each sample is conditioned on.
        grid: Of the clips, t h w.
        generators: A source of randomness a sample.
        sampling: How tokens are drawn.
    """
    both = condition if sampling.guidance_scale == 1.0 else condition.with_bare()
    plain = torch.is_autocast_enabled(tokens.device.type)
    network = prior if plain else packed(prior, prior.mask.dtype)
    shape = torch.Size([len(tokens), *grid])
    reader = FrameReader(network, both, shape) if prior.causal else None
    drawn = tokens.clone()
    for part, counts in enumerate(steps.unbind(1)):

        def ask(now: Tensor, hidden: Tensor, part: int = part) -> Tensor:
            if reader is None:
                return network.logits(now.unflatten(1, grid), hidden, both)
            return reader.logits(drawn, now, hidden, part)

        drawn[:, part] = draw_masked(
            ask,
            drawn[:, part],
            masked[:, part],
            counts,
            prior.schedule,
            prior.redrawn,
            generators,
            sampling,
        )
    return drawn
