"""The diffusion decoder: from tokens to pixels by sampling what the tokens leave open.

It refines what the tokenizer's CNN makes of the tokens by sampling the difference to the truth
(Whang et al. 2022, arXiv 2112.02475), or samples the pixels themselves. Decoders of this kind:
GAIA-1 (Hu et al. 2023, arXiv 2309.17080) and Cosmos (NVIDIA 2025, arXiv 2501.03575).
"""

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from diffusion.condition import TokenFeatures, fold, unfold
from diffusion.denoiser import Denoiser
from diffusion.objective import DiffusionObjective, clean
from diffusion.sampler import Guess, Solver, correlated, draw_noise, guided, sample
from diffusion.windows import (
    PixelDecoder,
    Window,
    cut,
    with_reconstruction,
    without_reconstruction,
)
from layers.configurable import Configurable

Use = Literal["refine", "read", "none"]
"""Of the CNN's clip: sample what it lacks, only read it as a condition, or do without it."""


class Condition(NamedTuple):
    """What is known when noise is taken away.

    Args:
        tokens: Of the window.
        base: What the CNN makes of them, grey where it is not used.
        dropped: Clips whose condition is not to be seen, for guidance.
    """

    tokens: Int[Tensor, "B t h w"]
    base: Float[Tensor, "B 3 T H W"]
    dropped: Bool[Tensor, " B"]


class DiffusionDecoder(Configurable, nn.Module):
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
        dropout: Share of the training clips whose condition is left out, so that guidance works.
        known_share: Share of the training clips whose first latent frames, from one to all but one,
            are given without noise, as an overlap is.
        noise_correlation: Of the noise in any two frames of a clip, in [0, 1).
    """

    calibrated: Tensor
    scale: Tensor
    pins: Tensor
    tokenizer: PixelDecoder | None = None

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
    ) -> None:
        super().__init__()
        if strides[1] % patch:
            raise ValueError(f"patch is {patch}, but must divide the spatial stride {strides[1]}")
        if window > 1 and not 1 <= overlap < window:
            raise ValueError(
                f"overlap is {overlap}, but a window of {window} latent frames needs 1 to "
                f"{window - 1}"
            )
        if not 0 <= noise_correlation < 1:
            raise ValueError(f"noise_correlation is {noise_correlation:g}, but must be in [0, 1)")
        shares = {"corruption": corruption, "dropout": dropout, "known_share": known_share}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is {share:g}, but must lie in [0, 1]")
        self.network, self.codebook_size = network, codebook_size
        self.temporal_stride, self.spatial_stride = strides
        self.objective = objective or DiffusionObjective()
        self.patch, self.window, self.overlap = patch, window, overlap
        self.use: Use = use
        self.corruption, self.dropout, self.known_share = corruption, dropout, known_share
        self.noise_correlation = noise_correlation
        pixels, width = 3 * patch**2, network.width
        self.pixels = nn.Conv3d(pixels, width, 1)
        self.reads = nn.Conv3d(pixels, width, 1, bias=False) if use != "none" else None
        reach = strides[0], strides[1] // patch
        self.tokens = TokenFeatures(codebook_size, token_width, width, reach)
        self.project = nn.Conv3d(width, pixels, 1)
        for parameter in self.project.parameters():
            nn.init.zeros_(parameter)
        # Brings what is sampled to deviation 1; set by `calibrate`.
        self.register_buffer("scale", torch.tensor(1.0))
        self.register_buffer("calibrated", torch.tensor(False))
        # Fingerprints of the tokenizer and of its CNN decoder, whose output is refined.
        self.register_buffer("pins", torch.zeros(2, 8, dtype=torch.uint8))

    def attach(self, tokenizer: PixelDecoder) -> None:
        """Give the tokenizer whose tokens are to be decoded; a fresh decoder pins it.

        Raises:
            ValueError: The decoder was trained for another one.
        """
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
        self.scale.copy_(difference.square().mean().sqrt().clamp(min=1e-3))
        self.calibrated.fill_(True)

    def corrupt(
        self, tokens: Int[Tensor, "B t h w"], generator: torch.Generator
    ) -> Int[Tensor, "B t h w"]:
        """Replace tokens by random ones, in each clip a share between none and `corruption`."""
        rates = self.corruption * torch.rand(len(tokens), 1, 1, 1, generator=generator)
        wrong = torch.rand(tokens.shape, generator=generator) < rates
        others = torch.randint(self.codebook_size, tokens.shape, generator=generator)
        return torch.where(wrong.to(tokens.device), others.to(tokens), tokens)

    def loss(
        self,
        clip: Float[Tensor, "B 3 T H W"],
        tokens: Int[Tensor, "B t h w"],
        base: Float[Tensor, "B 3 T H W"],
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        """Return the mean squared error of the network's prediction, weighted by the objective.

        Args:
            clip: The truth, in [-1, 1], frames as in `windows`: T = 1 + s (t - 1).
            tokens: Of the clip, corrupted or not.
            base: What the CNN makes of them.
            generator: Draws times, noise, what is dropped and what is known.
        """
        x = self._inward(clip, base)
        B, t = tokens.shape[:2]
        time = self.objective.draw_times(B, generator)
        dropped = torch.rand(B, generator=generator) < self.dropout
        noise, shared = (torch.randn(part.shape, generator=generator) for part in (x, x[:, :, :1]))
        noise = correlated(noise, shared, self.noise_correlation).to(x)
        known = self._draw_known(B, t, generator).to(x.device)
        angle = self.objective.schedule.angle(time).to(x)[:, None].masked_fill(known, 0)
        condition = Condition(tokens, base, dropped.to(x.device))
        errors = self.objective.errors(
            lambda z: self.predict(z, angle, condition), x, noise, _over_clip(angle)
        )
        asked = ~known[:, None, :, None, None].expand_as(errors)
        return (errors * asked).sum() / asked.sum()

    def predict(
        self, z: Float[Tensor, "B 3 T H W"], angle: Float[Tensor, "B T"], condition: Condition
    ) -> Float[Tensor, "B 3 T H W"]:
        """Return what the objective asks for, given noised frames and their angles."""
        seen = ~condition.dropped[:, None, None, None, None]
        features = self.pixels(fold(z, self.patch))
        features = features + self.tokens(condition.tokens, condition.dropped)
        if self.reads is not None:
            features = features + self.reads(fold(condition.base * seen, self.patch))
        return unfold(self.project(self.network(features, angle)).float(), self.patch)

    def decode(
        self,
        tokens: Int[Tensor, "B t h w"],
        seed: int | list[int] = 0,
        steps: int = 20,
        guidance_scale: float = 1.0,
        solver: Solver = "ddim",
        known: Float[Tensor, "B 3 K H W"] | None = None,
    ) -> Float[Tensor, "B 3 T H W"]:
        """Sample the pixels of tokens, in [-1, 1].

        Args:
            tokens: Of any number of latent frames.
            seed: Clip i draws from seed + i, or from seed[i], whatever batch it is in.
            steps: Calls of the network for each window.
            guidance_scale: uncond + scale (cond - uncond); 1 is off.
            solver: "ddim", "dpm" (second order) or "ancestral".
            known: The first 1 + s k frames where they are there already; the others are returned.
        """
        parts = self.stream_decode([tokens], seed, steps, guidance_scale, solver, known)
        return torch.cat(list(parts), dim=2)

    @torch.no_grad()
    def stream_decode(
        self,
        tokens: Iterable[Int[Tensor, "B _ h w"]],
        seed: int | list[int] = 0,
        steps: int = 20,
        guidance_scale: float = 1.0,
        solver: Solver = "ddim",
        known: Float[Tensor, "B 3 K H W"] | None = None,
    ) -> Iterator[Float[Tensor, "B 3 _ H W"]]:
        """Do as `decode` does for chunks of any length, in constant memory."""
        if self.tokenizer is None:
            raise ValueError("the decoder has no tokenizer yet; call attach with the one it is for")
        angles = self.objective.schedule.angles(steps)
        pair = without_reconstruction if self.use == "none" else with_reconstruction
        chunks = pair(tokens, self.tokenizer)
        generators: list[torch.Generator] | None = None
        done, shared, stride = known, None, self.temporal_stride
        num_known = (known.shape[2] - 1) // stride + 1 if known is not None else 0
        for window in cut(chunks, self.window, self.overlap, stride, num_known):
            generators = generators or _generators(seed, len(window.tokens))
            given = self._known(window, done)
            if shared is None:
                shared = draw_noise(tuple(window.base[:, :, :1].shape), generators)
            noise = draw_noise(tuple(window.base.shape), generators)
            noise = correlated(noise, shared, self.noise_correlation).to(window.base)
            guess = self._guess(window, given, guidance_scale)
            x = sample(guess, noise, angles, solver=solver, generators=generators)
            clip = self._outward(x, window.base).clamp(-1, 1)
            yield clip[:, :, given.shape[2] :]
            done = clip

    def _guess(
        self, window: Window, known: Float[Tensor, "B 3 K H W"], guidance_scale: float
    ) -> Guess:
        """Return the network's guess at a window, whose first frames are known."""
        num_known, B = known.shape[2], len(known)
        kept = torch.tensor([False], device=known.device).expand(B)
        condition = Condition(window.tokens, window.base, kept)
        blind = condition._replace(dropped=~kept)

        def velocity(z: Tensor, angle: Tensor, condition: Condition) -> Tensor:
            output = self.predict(z, angle, condition)
            return self.objective.velocity(output, z, _over_clip(angle))

        def guess(z: Tensor, angle: Tensor) -> Tensor:
            z = torch.cat([known, z[:, :, num_known:]], dim=2)
            angles = angle.expand(B, z.shape[2]).clone()
            angles[:, :num_known] = 0
            v = velocity(z, angles, condition)
            if guidance_scale != 1:
                v = guided(v, velocity(z, angles, blind), guidance_scale)
            x = clean(z, v, angle)
            return torch.cat([known, x[:, :, num_known:]], dim=2)

        return guess

    def _known(self, window: Window, done: Tensor | None) -> Float[Tensor, "B 3 K H W"]:
        """Return the frames of a window that are decoded already, as the network sees them."""
        num_frames = 1 + self.temporal_stride * (window.num_known - 1)
        if done is None or num_frames < 1:
            return window.base[:, :, :0]
        return self._inward(done[:, :, -num_frames:], window.base[:, :, :num_frames])

    def _inward(self, clip: Tensor, base: Tensor) -> Float[Tensor, "B 3 T H W"]:
        return (clip - base if self.use == "refine" else clip) / self.scale

    def _outward(self, x: Tensor, base: Tensor) -> Float[Tensor, "B 3 T H W"]:
        return x * self.scale + base if self.use == "refine" else x * self.scale

    def _draw_known(
        self, count: int, num_latents: int, generator: torch.Generator
    ) -> Bool[Tensor, "B T"]:
        """Draw which frames are given: none, or those of some first latent frames."""
        frames = torch.arange(1 + self.temporal_stride * (num_latents - 1))
        given = torch.rand(count, 1, generator=generator) < self.known_share
        last = torch.randint(max(1, num_latents - 1), (count, 1), generator=generator)
        return given & (frames <= self.temporal_stride * last) & (num_latents > 1)


def _over_clip(angle: Float[Tensor, "B T"]) -> Float[Tensor, "B 1 T 1 1"]:
    return angle[:, None, :, None, None]


def _generators(seed: int | list[int], count: int) -> list[torch.Generator]:
    seeds = [seed + i for i in range(count)] if isinstance(seed, int) else seed
    if len(seeds) != count:
        raise ValueError(f"{count} clips have {len(seeds)} seeds; give one each")
    return [torch.Generator().manual_seed(one) for one in seeds]
