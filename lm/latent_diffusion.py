"""A prior that takes the noise away from all latents of a window at once.

LVDM (He et al. 2022, arXiv 2211.13221); W.A.L.T (Gupta et al. 2023, arXiv 2312.06662).
"""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffusion.condition import TextFeatures, Texts, draw_known, over_clip
from diffusion.denoiser import Denoiser
from diffusion.objective import DiffusionObjective
from diffusion.sampler import beginning_with, draw_noise, guided, sample
from lm.latent_prior import LatentPrior


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
        told, untold = (partial(self._velocity, texts=one) for one in (texts, [[] for _ in texts]))
        velocity = guided(told, untold, guidance_scale)
        z = draw_noise(shape, generators).to(first)
        return sample(beginning_with(velocity, first), z, self.objective.schedule.angles(steps))

    def _velocity(self, z: Tensor, angle: Tensor, texts: Texts) -> Float[Tensor, "B D t h w"]:
        output = self.predict(z, angle, texts)
        # Given frames have angle 0, from which no velocity follows.
        return self.objective.velocity(output, z, over_clip(angle.clamp(min=1e-3)))
