"""What every prior over the continuous latents of a tokenizer with a KL bottleneck is.

The latents are causal, so the first of them can be given, as for the priors over tokens.
"""

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from layers.configurable import Configurable
from lm.condition import Condition, Inputs, Texts
from lm.sampling import Sampling
from lm.sequence import check_texts, frames_to_sample


class LatentPrior(Configurable, nn.Module, ABC):
    """A model of the latents of a clip, given text.

    Args:
        channels: Of a latent.
        grid: Of the trained window, (t, h, w).
        steps: Calls of the denoising network where a sampler is not told how many.
        text_size: Text pieces at most; 0 where the prior reads none.
        text_window: Pieces of the longest prompt.
    """

    slides = False
    mean: Tensor
    scale: Tensor
    calibrated: Tensor

    def __init__(
        self, channels: int, grid: list[int], steps: int, text_size: int, text_window: int
    ) -> None:
        super().__init__()
        self.channels, self.grid = channels, (grid[0], grid[1], grid[2])
        self.steps, self.text_size, self.text_window = steps, text_size, text_window
        self.inputs = Inputs()
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
        condition: Condition,
        generators: list[torch.Generator],
        *,
        sampling: Sampling = Sampling(),
        context: Float[Tensor, "B D k h w"] | None = None,
        num_latent_frames: int | None = None,
    ) -> Float[Tensor, "B D t h w"]:
        """Draw latents; sample i depends on `generators[i]` alone.

        Args:
            condition: Texts; these priors are told nothing beside.
            generators: A source of randomness a sample.
            sampling: Guidance, and the calls of the denoising network for what is drawn at once.
            context: The first k latent frames, kept as they are.
            num_latent_frames: t; the trained window by default, at most that.

        Raises:
            ValueError: More is asked for than the trained window has, or what does not fit it.
        """
        self.check_condition(condition)
        given = 0 if context is None else context.shape[2]
        t = frames_to_sample(num_latent_frames, given, self.grid[0])
        texts = condition.texts
        if len(texts) != len(generators):
            raise ValueError(f"{len(texts)} texts have {len(generators)} generators; give one each")
        self.check_sampling(sampling, (t - given) * math.prod(self.grid[1:]))
        first = self.mean.new_zeros(len(texts), self.channels, given, *self.grid[1:])
        if context is not None:
            if context.shape != first.shape:
                raise ValueError(
                    f"the context is {tuple(context.shape)}, but this prior goes on from "
                    f"{tuple(first.shape)}; encode a clip of the trained size for each sample"
                )
            first = (context - self.mean) / self.scale
        x = self.draw(first, t, texts, generators, sampling.guidance_scale, self.calls(sampling))
        return x * self.scale + self.mean

    def calls(self, sampling: Sampling) -> int:
        """Return the calls of the denoising network for what is drawn at once."""
        return self.steps if sampling.steps is None else sampling.steps

    def check_sampling(self, sampling: Sampling, num_unknown: int) -> None:
        """Raise ValueError where a way to choose among tokens is asked for: there are none."""
        if sampling != Sampling(sampling.guidance_scale, steps=sampling.steps):
            raise ValueError(
                "this prior draws continuous latents, not tokens; leave temperature, top_k, top_p, "
                "min_p, choice_temperature and quantize out"
            )

    def check_condition(self, condition: Condition) -> None:
        """Raise ValueError where this prior cannot be told that."""
        self.inputs.check(condition)
        if not self.text_size and any(condition.texts):
            raise ValueError("this prior was trained without captions; leave the prompts out")
        check_texts(condition.texts, self.text_window)

    @property
    def num_tokens(self) -> int:
        """Latents of the trained window."""
        return math.prod(self.grid)

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
