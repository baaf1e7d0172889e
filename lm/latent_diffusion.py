"""A prior that takes the noise away from all latents of a window at once.

LVDM (He et al. 2022, arXiv 2211.13221); W.A.L.T (Gupta et al. 2023, arXiv 2312.06662).
"""

from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from diffusion.condition import TextFeatures, Texts, draw_known, over_clip
from diffusion.denoiser import Denoiser
from diffusion.objective import DiffusionObjective, noised
from diffusion.sampler import (
    Guess,
    Solver,
    beginning_with,
    draw_noise,
    generators_of,
    guided,
    sample,
)
from lm.condition import Condition
from lm.latent_prior import LatentPrior
from lm.sampling import Sampling
from lm.sequence import frames_to_sample


class LatentDiffusionPrior(LatentPrior):
    """Takes the noise away from all latents of a window at once.

    Args:
        network: Takes the noise away.
        channels: Of a latent.
        grid: Of the trained window, (t, h, w).
        objective: Schedule and target; velocities under a cosine by default.
        text_size: Text pieces, for a network that reads text; 0 without.
        text_window: Pieces of the longest prompt.
        known_share: Share of the training clips whose first latent frames, from one to all but one,
            are given, as a continuation has them.
    """

    def __init__(
        self,
        network: Denoiser,
        channels: int,
        grid: list[int],
        objective: DiffusionObjective | None = None,
        text_size: int = 0,
        text_window: int = 24,
        known_share: float = 0.3,
    ) -> None:
        super().__init__(channels, grid, 50, text_size, text_window)
        if (network.text_width > 0) != (text_size > 0):
            raise ValueError(
                f"text_size is {text_size} and the network's text_width {network.text_width}; set "
                "both, or neither"
            )
        self.network, self.known_share = network, known_share
        self.objective = objective or DiffusionObjective()
        self.text: TextFeatures | None = None
        if text_size:
            self.text = TextFeatures(text_size, text_window, network.text_width)
        self.embed = nn.Conv3d(channels, network.width, 1)
        self.project = nn.Conv3d(network.width, channels, 1)
        for parameter in self.project.parameters():
            nn.init.zeros_(parameter)

    def error(
        self, x: Float[Tensor, "B D t h w"], texts: Texts, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        B, t = len(x), x.shape[2]
        time = self.objective.draw_times(B, generator)
        noise = torch.randn(x.shape, generator=generator).to(x)
        known = draw_known(B, t, 1, self.known_share, generator).to(x.device)
        angle = self.objective.schedule.angle(time).to(x)[:, None].masked_fill(known, 0)
        errors = self.objective.errors(
            lambda z: self.predict(z, angle, texts), x, noise, over_clip(angle)
        )
        asked = ~known[:, None, :, None, None].expand_as(errors)
        return (errors * asked).sum() / asked.sum()

    def predict(
        self, z: Float[Tensor, "B D t h w"], angle: Float[Tensor, "B t"], texts: Texts
    ) -> Float[Tensor, "B D t h w"]:
        """Return what the objective asks for, given noised latents and their angles."""
        text = self.text(texts) if self.text is not None else None
        return self.project(self.network(self.embed(z), angle, text)).float()

    def draw(
        self,
        first: Float[Tensor, "B D k h w"],
        num_latent_frames: int,
        texts: Texts,
        generators: list[torch.Generator],
        guidance_scale: float,
        steps: int,
    ) -> Float[Tensor, "B D t h w"]:
        shape = len(first), self.channels, num_latent_frames, *first.shape[3:]
        z = draw_noise(shape, generators).to(first)
        guess = self._guess(first, texts, guidance_scale)
        return sample(guess, z, self.objective.schedule.angles(steps))

    @torch.no_grad()
    def edit(
        self,
        latents: Float[Tensor, "B D t h w"],
        texts: Texts,
        strength: float,
        seed: int | list[int] = 0,
        steps: int | None = None,
        guidance_scale: float = 1.0,
        solver: Solver = "ddim",
        kept: Bool[Tensor, " T"] | None = None,
    ) -> Float[Tensor, "B D t h w"]:
        """Noise latents and take the noise away as a text says: SDEdit (arXiv 2108.01073).

        Args:
            latents: Of clips, at most as long as the trained window.
            texts: Pieces of what is to be seen.
            strength: Time that is gone back to, in (0, 1]; 1 keeps nothing of the clips.
            seed: Clip i draws from seed + i, or from seed[i].
            steps: Calls of the network, all of them below `strength`.
            guidance_scale: uncond + scale (cond - uncond); 1 is off.
            solver: "ddim", "dpm" (second order) or "ancestral".
            kept: Must be None: a latent stands for several frames.
        """
        if kept is not None:
            raise ValueError(
                "a prior over latents cannot keep single frames; leave kept out, or edit with a "
                "diffusion decoder (configs/edit_decoder.yaml)"
            )
        self.check_condition(Condition(texts))
        frames_to_sample(latents.shape[2], 0, self.grid[0])
        steps = self.calls(Sampling(steps=steps))
        angles = self.objective.schedule.angles(steps, strength)
        x = (latents - self.mean) / self.scale
        draw = partial(draw_noise, x.shape, generators_of(seed, len(x)))
        guess = self._guess(x[:, :, :0], texts, guidance_scale)
        z = noised(x, draw().to(x), angles[0].to(x))
        return sample(guess, z, angles, solver=solver, renewed=draw) * self.scale + self.mean

    def _guess(
        self, first: Float[Tensor, "B D k h w"], texts: Texts, guidance_scale: float
    ) -> Guess:
        told, untold = (partial(self._velocity, texts=one) for one in (texts, [[] for _ in texts]))
        return beginning_with(guided(told, untold, guidance_scale), first)

    def _velocity(self, z: Tensor, angle: Tensor, texts: Texts) -> Float[Tensor, "B D t h w"]:
        output = self.predict(z, angle, texts)
        # Given frames have angle 0, from which no velocity follows.
        return self.objective.velocity(output, z, over_clip(angle.clamp(min=1e-3)))
