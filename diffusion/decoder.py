"""The diffusion decoder: from tokens to pixels by sampling what the tokens leave open.

It refines what the tokenizer's CNN makes of the tokens by sampling the difference to the truth
(Whang et al. 2022, arXiv 2112.02475), or samples the pixels themselves. Decoders of this kind:
GAIA-1 (Hu et al. 2023, arXiv 2309.17080) and Cosmos (NVIDIA 2025, arXiv 2501.03575).
"""

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from diffusion.condition import (
    Case,
    Condition,
    TextFeatures,
    Texts,
    TokenFeatures,
    corrupted,
    draw_dropped,
    draw_known,
    fold,
    over_clip,
    standing,
    unfold,
)
from diffusion.control import ControlFeatures, Kind
from diffusion.decoding import WindowDecoder
from diffusion.denoiser import Denoiser
from diffusion.objective import DiffusionObjective
from diffusion.sampler import correlated
from diffusion.whitening import Whitening
from diffusion.windows import PixelDecoder, require_sizes
from layers.configurable import Configurable

Use = Literal["refine", "read", "none"]
"""Of the CNN's clip: sample what it lacks, only read it as a condition, or do without it."""


class DiffusionDecoder(Configurable, WindowDecoder):
    """Samples a clip given its tokens, window by window.

    Args:
        network: Takes the noise away.
        codebook_size: Codes of the tokenizer.
        strides: Of the tokenizer, (temporal, spatial).
        objective: Schedule and target; velocities under a cosine by default.
        patch: Pixels on the side of a place that the network works on; divides the spatial stride.
        window: Latent frames that are sampled at once.
        overlap: Latent frames of a window that the one before has sampled.
        use: What is done with the CNN's clip.
        token_width: Channels of a token's vector.
        corruption: Up to this share of the tokens is replaced by random ones in training, as those
            that a prior samples are not always right.
        dropout: Share of the training clips whose tokens are left out, so that guidance works; half
            of them, a tenth of all at most, are without text too, and as many without text alone.
        known_share: Share of the training clips whose first latent frames, from one to all but one,
            are given without noise, as an overlap is.
        noise_correlation: Of the noise in any two frames of a clip, in [0, 1).
        text_size: Text pieces, for a network that reads text; 0 without.
        text_window: Pieces of the longest text.
        enlarge: How many times the frames and the pixels of a side that the tokenizer has are
            sampled, (time, space): a cascade's second stage (arXiv 2106.15282).
        base_noise: In training the CNN's clip is read with noise of a deviation up to this, and it
            is said how much, so that the faults of sampled clips are not copied.
        control: What of a video steers it.
        whiten: Sample principal components of patches, of deviation 1 (`Whitening`), not pixels.
        steps: Calls of the network for a window where a sampler is not told how many.
    """

    calibrated: Tensor
    pins: Tensor

    def __init__(
        self,
        network: Denoiser,
        codebook_size: int,
        strides: list[int],
        objective: DiffusionObjective | None = None,
        patch: int = 4,
        window: int = 3,
        overlap: int = 1,
        use: Use = "refine",
        token_width: int = 64,
        corruption: float = 0.1,
        dropout: float = 0.1,
        known_share: float = 0.5,
        noise_correlation: float = 0.0,
        text_size: int = 0,
        text_window: int = 24,
        enlarge: list[int] | None = None,
        base_noise: float = 0.0,
        control: Kind | None = None,
        whiten: bool = False,
        steps: int = 20,
    ) -> None:
        super().__init__()
        self.network, self.codebook_size = network, codebook_size
        self.objective = objective or DiffusionObjective()
        self.strides, self.enlarge = strides, enlarge or [1, 1]
        self.temporal_stride = strides[0] * self.enlarge[0]
        self.spatial_stride = strides[1] * self.enlarge[1]
        self.patch, self.window, self.overlap, self.steps = patch, window, overlap, steps
        self.use: Use = use
        self.corruption, self.dropout, self.known_share = corruption, dropout, known_share
        self.noise_correlation, self.base_noise = noise_correlation, base_noise
        self._check(text_size)
        pixels, width = 3 * patch**2, network.width
        self.pixels = nn.Conv3d(pixels, width, 1)
        self.reads = nn.Conv3d(pixels, width, 1, bias=False) if use != "none" else None
        self.noise_read = nn.Parameter(torch.zeros(width)) if base_noise else None
        reach = self.temporal_stride, self.spatial_stride // patch
        self.tokens = TokenFeatures(codebook_size, token_width, width, reach)
        self.text: TextFeatures | None = None
        if text_size:
            self.text = TextFeatures(text_size, text_window, network.text_width)
        self.control = None if control is None else ControlFeatures(control, patch, width)
        self.project = nn.Conv3d(width, 3 * pixels, 1)
        for parameter in self.project.parameters():
            nn.init.zeros_(parameter)
        # Bring what is sampled to deviation 1; set by `calibrate`.
        self.register_buffer("scale", torch.tensor(1.0))
        self.whitening = Whitening(patch) if whiten else None
        self.register_buffer("calibrated", torch.tensor(False))
        # Fingerprints of the tokenizer and of its CNN decoder, whose output is refined.
        self.register_buffer("pins", torch.zeros(2, 8, dtype=torch.uint8))

    def _check(self, text_size: int) -> None:
        if self.use not in get_args(Use):
            raise ValueError(f"use is {self.use!r}, but must be one of {', '.join(get_args(Use))}")
        for name, low in (("patch", 1), ("window", 1), ("steps", 1), ("base_noise", 0)):
            if getattr(self, name) < low:
                raise ValueError(f"{name} is {getattr(self, name):g}, but must be {low} or more")
        for name in ("corruption", "dropout", "known_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name):g}, but must lie in [0, 1]")
        if not 0 <= self.noise_correlation < 1:
            raise ValueError(
                f"noise_correlation is {self.noise_correlation:g}, but must be in [0, 1)"
            )
        changes_base = self.enlarge != [1, 1] or self.base_noise > 0
        if min(self.enlarge) < 1 or (self.use == "none" and changes_base):
            raise ValueError(
                f"enlarge is {self.enlarge} and base_noise {self.base_noise:g} with use: {self.use}"
                "; give whole numbers from 1 on, and a use of the CNN's clip, which both change"
            )
        if self.spatial_stride % self.patch:
            raise ValueError(
                f"patch is {self.patch}, but must divide the spatial stride {self.spatial_stride}"
            )
        if self.window > 1 and not 1 <= self.overlap < self.window:
            raise ValueError(
                f"overlap is {self.overlap}, but a window of {self.window} latent frames needs 1 "
                f"to {self.window - 1}"
            )
        if (self.network.text_width > 0) != (text_size > 0):
            raise ValueError(
                f"text_size is {text_size} and the network's text_width "
                f"{self.network.text_width}; set both, or neither"
            )

    def take_steps(self, steps: int) -> None:
        """Sample in so many steps from now on where no number is told, saved ones too."""
        self.steps = self.config["arguments"]["steps"] = steps

    def attach(self, tokenizer: PixelDecoder) -> None:
        """Give the tokenizer whose tokens are to be decoded; a fresh decoder pins it.

        Raises:
            ValueError: The decoder was trained, or is built, for another one.
        """
        require_sizes(tokenizer, self.codebook_size, self.strides)
        own = tokenizer.fingerprint(), tokenizer.decoder_fingerprint()
        pinned = [bytes(row.tolist()).hex() for row in self.pins.cpu()]
        if not self.pins.any():
            rows = [list(bytes.fromhex(name)) for name in own]
            self.pins.copy_(torch.tensor(rows, dtype=torch.uint8))
        elif pinned[0] != own[0] or (self.use != "none" and pinned[1] != own[1]):
            part = "tokenizer" if pinned[0] != own[0] else "CNN decoder"
            raise ValueError(
                f"the diffusion decoder was trained with the tokenizer {pinned[0]} and its CNN "
                f"decoder {pinned[1]}, but these are {own[0]} and {own[1]}; use the {part} that "
                "belongs to it, or train it again"
            )
        # Outside the module tree: not saved, not trained.
        object.__setattr__(self, "tokenizer", tokenizer)

    @torch.no_grad()
    def calibrate(self, clip: Float[Tensor, "B 3 T H W"], base: Float[Tensor, "B 3 T H W"]) -> None:
        """Fit the scale to a batch, once, before the first step."""
        difference = clip - base if self.use == "refine" else clip
        if self.whitening is not None:
            self.whitening.fit(difference)
        else:
            self.scale.copy_(difference.square().mean().sqrt().clamp(min=1e-3))
        self.calibrated.fill_(True)

    def corrupt(
        self, tokens: Int[Tensor, "B t h w"], generator: torch.Generator
    ) -> Int[Tensor, "B t h w"]:
        """Replace tokens by random ones, in each clip a share between none and `corruption`."""
        return corrupted(tokens, self.codebook_size, self.corruption, generator)

    def loss(
        self,
        clip: Float[Tensor, "B 3 T H W"],
        tokens: Int[Tensor, "B t h w"],
        base: Float[Tensor, "B 3 T H W"],
        generator: torch.Generator,
        texts: Texts | None = None,
        control: Float[Tensor, "B K T H W"] | None = None,
    ) -> Float[Tensor, ""]:
        """Return the mean squared error of the network's prediction, weighted by the objective.

        Args:
            clip: The truth, in [-1, 1], frames as in `windows`: T = 1 + s (t - 1).
            tokens: Of the clip, corrupted or not.
            base: What the CNN makes of them, enlarged.
            generator: Draws times, noise, what is dropped and what is known.
            texts: Pieces of what is said of the clips, for a decoder that reads text.
            control: For a decoder that is steered by pictures.
        """
        case = self.draw(clip, tokens, base, generator, texts, control)
        time = self.objective.draw_times(len(clip), generator)
        angle = self.objective.schedule.angle(time).to(clip)[:, None].masked_fill(case.known, 0)
        errors = self.objective.errors(
            lambda z: self.predict(z, angle, case.condition), case.x, case.noise, over_clip(angle)
        )
        return case.mean(errors)

    def draw(
        self,
        clip: Float[Tensor, "B 3 T H W"],
        tokens: Int[Tensor, "B t h w"],
        base: Float[Tensor, "B 3 T H W"],
        generator: torch.Generator,
        texts: Texts | None = None,
        control: Float[Tensor, "B K T H W"] | None = None,
    ) -> Case:
        """Draw noise, what is dropped and what is known of training clips."""
        x, count = self.inward(clip, base), len(clip)
        dropped, untold = draw_dropped(count, self.dropout, generator)
        noise, shared = (torch.randn(part.shape, generator=generator) for part in (x, x[:, :, :1]))
        noise = correlated(noise, shared, self.noise_correlation).to(x)
        num_latents, stride = tokens.shape[1], self.temporal_stride
        known = draw_known(count, num_latents, stride, self.known_share, generator).to(x.device)
        said = zip(texts or [[]] * count, untold, strict=True)
        pieces = [[] if drop else text for text, drop in said]
        level = self.base_noise * torch.rand(count, generator=generator).to(x)
        condition = Condition(tokens, base, dropped.to(x.device), pieces, level, control)
        if self.base_noise:
            extra = torch.randn(base.shape, generator=generator).to(base)
            condition = condition._replace(base=base + level[:, None, None, None, None] * extra)
        return Case(x, noise, known, condition)

    def predict(
        self, z: Float[Tensor, "B 3 T H W"], angle: Float[Tensor, "B T"], condition: Condition
    ) -> Float[Tensor, "B 3 T H W"]:
        """Return what the objective asks for, given noised frames and their angles."""
        base = condition.base * ~condition.dropped[:, None, None, None, None]
        features = self.pixels(fold(z, self.patch))
        features = features + self.tokens(condition.tokens, condition.dropped)
        if self.reads is not None:
            features = features + self.reads(fold(base, self.patch))
        if self.noise_read is not None:
            level = torch.einsum("b, d -> b d", condition.base_noise, self.noise_read)
            features = features + level[:, :, None, None, None]
        if self.control is not None and condition.control is not None:
            features = features + self.control(condition.control)
        text = self.text(condition.texts) if self.text is not None else None
        states = self.project(self.network(features, angle, text)).float()
        # The best guess of what is normally distributed is linear in z, pixel by pixel, of what is
        # still in how it looked before, and both have more dimensions than a narrow network.
        still = standing(self.outward(z, base), base, angle == 0)
        moved = self.inward(still - base, torch.zeros_like(base))
        offset, slope, share = (unfold(part, self.patch) for part in states.chunk(3, dim=1))
        return offset + slope * z + share * moved

    def velocity(
        self, z: Float[Tensor, "B 3 T H W"], angle: Float[Tensor, "B T"], condition: Condition
    ) -> Float[Tensor, "B 3 T H W"]:
        """Return the velocity that the network's prediction means; anything in known frames."""
        output = self.predict(z, angle, condition)
        # Known frames have angle 0, from which no velocity follows.
        return self.objective.velocity(output, z, over_clip(angle.clamp(min=1e-3)))

    def inward(
        self, clip: Float[Tensor, "B 3 T H W"], base: Float[Tensor, "B 3 T H W"]
    ) -> Float[Tensor, "B 3 T H W"]:
        """Return what is sampled of a clip."""
        x = clip - base if self.use == "refine" else clip
        return x / self.scale if self.whitening is None else self.whitening.inward(x)

    def outward(
        self, x: Float[Tensor, "B 3 T H W"], base: Float[Tensor, "B 3 T H W"]
    ) -> Float[Tensor, "B 3 T H W"]:
        """Undo `inward`."""
        x = x * self.scale if self.whitening is None else self.whitening.outward(x)
        return x + base if self.use == "refine" else x
