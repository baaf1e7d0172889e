"""An autoregressive prior over continuous latents: a small diffusion model at each position.

MAR (Li et al. 2024, arXiv 2406.11838), section 3; NOVA (Deng et al. 2024, arXiv 2412.14169). The
transformer reads the latents before and says what is to come as a state; a perceptron turns noise
into the next latent, given that state.
"""

import math
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from diffusion.objective import DiffusionObjective, clean
from diffusion.sampler import draw_noise, guided, sample
from lm.condition import Condition, Texts
from lm.latent_prior import LatentPrior
from lm.sequence import VIDEO, Vocabulary, head, lattice, line
from lm.transformer import KVCache, Transformer

_COPIES = 4  # of each latent in training, with other noise: the head is cheap


class LatentHead(nn.Module):
    """Velocity of a noised latent, given a state: residual layers that the state modulates.

    Args:
        channels: Of a latent.
        state_width: Of the transformer.
        width: Of the layers.
        depth: Their number.
    """

    frequencies: Tensor

    def __init__(self, channels: int, state_width: int, width: int, depth: int) -> None:
        super().__init__()
        exponents = torch.arange(16) / 15
        self.register_buffer("frequencies", 100.0**exponents, persistent=False)
        self.read = nn.Linear(channels, width)
        self.condition = nn.Linear(state_width + 2 * len(exponents), width)
        self.modulate = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(depth))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(depth)
        )
        self.out = nn.Linear(width, channels)
        for layer in [*self.modulate, self.out]:
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(
        self,
        z: Float[Tensor, "R channels"],
        angle: Float[Tensor, " R"],
        states: Float[Tensor, "R D"],
    ) -> Float[Tensor, "R channels"]:
        turns = angle[:, None] * self.frequencies
        condition = torch.cat([states, turns.sin(), turns.cos()], dim=-1)
        condition = F.silu(self.condition(condition.to(self.condition.weight.dtype)))
        x = self.read(z.to(self.read.weight.dtype))
        for modulate, block in zip(self.modulate, self.blocks, strict=True):
            scale, shift, gate = modulate(condition).chunk(3, dim=-1)
            normed = F.layer_norm(x, x.shape[-1:])
            x = x + gate * block(normed * (1 + scale) + shift)
        return self.out(F.silu(x)).float()


class TokenDiffusionPrior(LatentPrior):
    """Models each latent of a clip given text and the latents before it.

    Args:
        transformer: The network.
        channels: Of a latent.
        grid: Of the trained window, (t, h, w).
        objective: Schedule and target; velocities under a cosine by default.
        text_size: Text pieces at most.
        text_window: Pieces of the longest prompt.
        head_width: Of the perceptron.
        head_depth: Its layers.
    """

    def __init__(
        self,
        transformer: Transformer,
        channels: int,
        grid: list[int],
        objective: DiffusionObjective | None = None,
        text_size: int = 320,
        text_window: int = 24,
        head_width: int = 256,
        head_depth: int = 3,
    ) -> None:
        super().__init__(channels, grid, 20, text_size, text_window)
        self.transformer, self.objective = transformer, objective or DiffusionObjective()
        self.vocabulary = Vocabulary(text_size, 0)
        self.prefix_length = text_window + 3
        self.embedding = nn.Embedding(self.vocabulary.first_code, transformer.width)
        nn.init.normal_(self.embedding.weight, std=0.5)
        self.read = nn.Linear(channels, transformer.width)
        self.head = LatentHead(channels, transformer.width, head_width, head_depth)

    def error(
        self, x: Float[Tensor, "B D t h w"], texts: Texts, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        rows = rearrange(x, "b d t h w -> b (t h w) d")
        states = repeat(self.states(rows, texts), "b n d -> (c b n) d", c=_COPIES)
        latents = repeat(rows, "b n d -> (c b n) d", c=_COPIES)
        time = self.objective.draw_times(len(latents), generator)
        angle = self.objective.schedule.angle(time).to(latents)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        return self.objective.errors(
            lambda z: self.head(z, angle, states), latents, noise, angle[:, None]
        ).mean()

    def states(self, rows: Float[Tensor, "B N channels"], texts: Texts) -> Float[Tensor, "B N D"]:
        """Return the state from which each latent is predicted."""
        x = torch.cat([self._prompts(texts), self._vectors(rows[:, :-1])], dim=1)
        states = self.transformer(x, self._table(x.shape[1]))
        return states[:, self.prefix_length - 1 :]

    def draw(
        self,
        first: Float[Tensor, "B D k h w"],
        num_latent_frames: int,
        texts: Texts,
        generators: list[torch.Generator],
        guidance_scale: float,
        steps: int,
    ) -> Float[Tensor, "B D t h w"]:
        rows = rearrange(first, "b d t h w -> b (t h w) d")
        sides = [texts] if guidance_scale == 1 else [texts, [[] for _ in texts]]
        prompts = torch.cat([self._prompts(side) for side in sides])
        total = num_latent_frames * math.prod(self.grid[1:])
        table = self._table(self.prefix_length + total)
        cache = self.transformer.new_cache(len(prompts), table.shape[1], prompts)
        x = torch.cat([prompts, self._vectors(rows).repeat(len(sides), 1, 1)], dim=1)
        while rows.shape[1] < total:
            states = self._next(x, table, cache)
            row = self._draw_row(states, len(texts), generators, guidance_scale, steps)
            rows = torch.cat([rows, row[:, None]], dim=1)
            x = self._vectors(row)[:, None].repeat(len(sides), 1, 1)
        h, w = self.grid[1:]
        return rearrange(rows, "b (t h w) d -> b d t h w", h=h, w=w)

    def _next(self, x: Tensor, table: Tensor, cache: KVCache) -> Float[Tensor, "R D"]:
        start = cache.length
        return self.transformer(x, table[:, start : start + x.shape[1]], cache=cache)[:, -1]

    def _draw_row(
        self,
        states: Float[Tensor, "R D"],
        count: int,
        generators: list[torch.Generator],
        guidance_scale: float,
        steps: int,
    ) -> Float[Tensor, "B channels"]:
        """Draw one latent of each sample; the states hold the unconditional side behind."""

        def velocity(z: Tensor, angle: Tensor, states: Tensor) -> Tensor:
            output = self.head(z, angle.expand(len(z)), states)
            return self.objective.velocity(output, z, angle)

        told, untold = (partial(velocity, states=one) for one in (states[:count], states[count:]))
        wanted = guided(told, untold, guidance_scale)
        z = draw_noise((count, self.channels), generators).to(states)
        angles = self.objective.schedule.angles(steps)
        return sample(lambda z, angle: clean(z, wanted(z, angle), angle), z, angles)

    def _prompts(self, texts: Texts) -> Float[Tensor, "B P D"]:
        prompt = head(Condition(texts), self.vocabulary, self.text_window)
        ids: Int[Tensor, "B P"] = F.pad(prompt, (0, 1), value=VIDEO)
        return self.embedding(ids.to(self.embedding.weight.device))

    def _table(self, length: int) -> Float[Tensor, "two N head_dim"]:
        grid = lattice(self.grid, self.prefix_length).flatten(0, 1)
        axes = torch.cat([line(self.prefix_length), grid])[:length]
        return self.transformer.rotary_table(axes.to(self.embedding.weight.device))

    def _vectors(self, rows: Float[Tensor, "*B D"]) -> Float[Tensor, "*B W"]:
        return self.read(rows.to(self.read.weight.dtype))
