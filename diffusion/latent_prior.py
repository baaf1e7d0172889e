"""Priors over the continuous latents of a tokenizer with a KL bottleneck, and one by diffusion.

LVDM (He et al. 2022, arXiv 2211.13221); W.A.L.T (Gupta et al. 2023, arXiv 2312.06662). The latents
are causal, so the first of them can be given, as for the priors over tokens.
"""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from diffusion.condition import TextFeatures, Texts, draw_known, over_clip
from diffusion.denoiser import Denoiser
from diffusion.objective import DiffusionObjective
from diffusion.sampler import beginning_with, draw_noise, guided, sample
from layers.configurable import Configurable


class LatentPrior(Configurable, nn.Module, ABC):
    """A model of the latents of a clip, given text.

    Args:
        channels: Of a latent.
        grid: Of the trained window, (t, h, w).
        steps: Calls of the denoising network where a sampler is not told how many.
        text_size: Text pieces at most; 0 where the prior reads none.
    """

    mean: Tensor
    scale: Tensor
    calibrated: Tensor

    def __init__(self, channels: int, grid: list[int], steps: int, text_size: int) -> None:
        super().__init__()
        self.channels, self.grid = channels, (grid[0], grid[1], grid[2])
        self.steps, self.text_size = steps, text_size
        self.register_buffer("mean", torch.zeros(channels, 1, 1, 1))
        self.register_buffer("scale", torch.ones(channels, 1, 1, 1))
        self.register_buffer("calibrated", torch.tensor(False))

    @torch.no_grad()
    def calibrate(self, latents: Float[Tensor, "B D t h w"]) -> None:
        """Bring each channel to mean 0 and deviation 1 over a batch, before the first step."""
        self.mean.copy_(latents.mean(dim=(0, 2, 3, 4))[:, None, None, None])
        deviation = latents.std(dim=(0, 2, 3, 4)).clamp(min=1e-4)
        self.scale.copy_(deviation[:, None, None, None])
        self.calibrated.fill_(True)

    def loss(
        self,
        latents: Float[Tensor, "B D t h w"],
        texts: Texts,
        drop: Bool[Tensor, " B"],
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        """Return the mean squared error of what the objective asks for.

        Args:
            latents: Of clips.
            texts: Text pieces of each.
            drop: True where a clip's text is left out, so that guidance has an unconditional side.
            generator: Draws times and noise.
        """
        read = [[] if out else text for text, out in zip(texts, drop.tolist(), strict=True)]
        return self.error((latents - self.mean) / self.scale, read, generator)

    @torch.no_grad()
    def sample(
        self,
        texts: Texts,
        generators: list[torch.Generator],
        *,
        context: Float[Tensor, "B D k h w"] | None = None,
        num_latent_frames: int | None = None,
        guidance_scale: float = 1.0,
        steps: int | None = None,
    ) -> Float[Tensor, "B D t h w"]:
        """Draw latents; sample i depends on `generators[i]` alone.

        Args:
            texts: Text pieces of each sample; none for an unconditional one.
            generators: A source of randomness a sample.
            context: The first k latent frames, kept as they are.
            num_latent_frames: t; the trained window by default, at most that.
            guidance_scale: uncond + scale (cond - uncond); 1 is off and skips the second pass.
            steps: Calls of the denoising network for what is drawn at once.

        Raises:
            ValueError: More is asked for than the trained window has.
        """
        t, given = num_latent_frames or self.grid[0], 0 if context is None else context.shape[2]
        if not given < t <= self.grid[0]:
            raise ValueError(
                f"{t} latent frames are asked for, {given} of them given, but this prior makes "
                f"{given + 1} to {self.grid[0]} then; continue longer videos window by window"
            )
        if len(texts) != len(generators):
            raise ValueError(f"{len(texts)} texts have {len(generators)} generators; give one each")
        first = self.mean.new_zeros(len(texts), self.channels, 0, *self.grid[1:])
        if context is not None:
            first = (context - self.mean) / self.scale
        count = self.steps if steps is None else steps
        x = self.draw(first, t, texts, generators, guidance_scale, count)
        return x * self.scale + self.mean

    @abstractmethod
    def error(
        self, x: Float[Tensor, "B D t h w"], texts: Texts, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """Return the loss of calibrated latents."""

    @abstractmethod
    def draw(
        self,
        first: Float[Tensor, "B D k h w"],
        num_latent_frames: int,
        texts: Texts,
        generators: list[torch.Generator],
        guidance_scale: float,
        steps: int,
    ) -> Float[Tensor, "B D t h w"]:
        """Draw calibrated latents that begin with given ones."""


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
        super().__init__(channels, grid, 50, text_size)
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

        def velocity(z: Tensor, angle: Tensor) -> Tensor:
            v = self._velocity(z, angle, texts)
            if guidance_scale == 1:
                return v
            return guided(v, self._velocity(z, angle, [[] for _ in texts]), guidance_scale)

        z = draw_noise(shape, generators).to(first)
        return sample(beginning_with(velocity, first), z, self.objective.schedule.angles(steps))

    def _velocity(self, z: Tensor, angle: Tensor, texts: Texts) -> Float[Tensor, "B D t h w"]:
        output = self.predict(z, angle, texts)
        # Given frames have angle 0, from which no velocity follows.
        return self.objective.velocity(output, z, over_clip(angle.clamp(min=1e-3)))
