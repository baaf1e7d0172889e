"""Sampling of clips of any length, window by window; each begins with frames of the one before."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from diffusion.condition import Condition, Texts
from diffusion.control import ControlFeatures
from diffusion.objective import DiffusionObjective, noised
from diffusion.sampler import (
    Guess,
    Solver,
    beginning_with,
    correlated,
    draw_noise,
    generators_of,
    guided,
    reconstruction_guided,
    replaced,
    sample,
)
from diffusion.windows import (
    PixelDecoder,
    Window,
    cut,
    split,
    with_reconstruction,
    without_reconstruction,
)
from diffusion.wishes import Joint, Kept, Sampling, Wishes, known_latents
from layers.resizing import enlarged

GUIDANCE_WEIGHT = 4.0  # of reconstruction guidance; a quarter of it where frames share noise


class WindowDecoder(nn.Module, ABC):
    """Samples clips of any length by a network that knows velocities of windows."""

    objective: DiffusionObjective
    scale: Tensor
    strides: list[int]
    enlarge: list[int]
    temporal_stride: int
    spatial_stride: int
    window: int
    overlap: int
    steps: int
    noise_correlation: float
    use: str
    text: nn.Module | None
    control: ControlFeatures | None
    tokenizer: PixelDecoder | None = None

    @abstractmethod
    def velocity(
        self, z: Float[Tensor, "B 3 T H W"], angle: Float[Tensor, "B T"], condition: Condition
    ) -> Float[Tensor, "B 3 T H W"]:
        """Return the velocity of noised frames."""

    @abstractmethod
    def inward(
        self, clip: Float[Tensor, "B 3 T H W"], base: Float[Tensor, "B 3 T H W"]
    ) -> Float[Tensor, "B 3 T H W"]:
        """Return what is sampled of a clip."""

    @abstractmethod
    def outward(
        self, x: Float[Tensor, "B 3 T H W"], base: Float[Tensor, "B 3 T H W"]
    ) -> Float[Tensor, "B 3 T H W"]:
        """Undo `inward`."""

    def decode(
        self,
        tokens: Int[Tensor, "B t h w"],
        seed: int | list[int] = 0,
        steps: int | None = None,
        guidance_scale: float = 1.0,
        solver: Solver = "ddim",
        known: Float[Tensor, "B 3 K H W"] | None = None,
        texts: Texts | None = None,
        control: Float[Tensor, "B C T2 H W"] | None = None,
        joint: Joint = "given",
        kept: Kept | None = None,
    ) -> Float[Tensor, "B 3 T H W"]:
        """Sample the pixels of tokens, in [-1, 1].

        Args:
            tokens: Of any number of latent frames.
            seed: Clip i draws from seed + i, or from seed[i], whatever batch it is in.
            steps: Calls of the network for each window; by default the decoder's own.
            guidance_scale: uncond + scale (cond - uncond); 1 is off.
            solver: "ddim", "dpm" (second order) or "ancestral".
            known: The first 1 + s k frames where they are there already; the others are returned.
            texts: Pieces of a text a clip, for a decoder that reads text.
            control: Pictures of the size of the clip, known frames included, for a decoder that is
                steered by them.
            joint: How a window takes over the frames it begins with.
            kept: Frames that are known wherever they lie, to fill in between them.
        """
        sampling = Sampling(steps, guidance_scale, solver, joint)
        wishes = Wishes(texts, control, kept)
        return torch.cat(list(self.stream_decode([tokens], seed, sampling, known, wishes)), dim=2)

    def stream_decode(
        self,
        tokens: Iterable[Int[Tensor, "B _ h w"]],
        seed: int | list[int] = 0,
        sampling: Sampling = Sampling(),
        known: Float[Tensor, "B 3 K H W"] | None = None,
        wishes: Wishes = Wishes(),
    ) -> Iterator[Float[Tensor, "B 3 _ H W"]]:
        """Do as `decode` does for chunks of any length, in constant memory."""
        if self.tokenizer is None:
            raise ValueError("the decoder has no tokenizer yet; call attach with the one it is for")
        pair = without_reconstruction if self.use == "none" else with_reconstruction
        parts = split(tokens, self.window, self.tokenizer)
        yield from self._stream(pair(parts, self.tokenizer), seed, sampling, known, wishes)

    def edit(
        self,
        clip: Float[Tensor, "B 3 T H W"],
        texts: Texts,
        strength: float,
        seed: int | list[int] = 0,
        steps: int | None = None,
        guidance_scale: float = 1.0,
        solver: Solver = "ddim",
        kept: Bool[Tensor, " T"] | None = None,
        control: Float[Tensor, "B K T H W"] | None = None,
        joint: Joint = "given",
    ) -> Float[Tensor, "B 3 T H W"]:
        """Noise a clip and take the noise away as a text says: SDEdit (arXiv 2108.01073).

        The tokens are not seen, for they would hold the clip to what it is.

        Args:
            clip: T = 1 + s k frames in [-1, 1].
            texts: Pieces of what is to be seen.
            strength: Time that is gone back to, in (0, 1]; 1 keeps nothing of the clip.
            seed: As for `decode`.
            steps: As for `decode`.
            guidance_scale: As for `decode`.
            solver: As for `decode`.
            kept: Frames that stay as they are; with strength 1 what lies between is filled in.
            control: As for `decode`.
            joint: As for `decode`.

        Raises:
            ValueError: The strength is out of range, or the decoder cannot do without tokens.
        """
        if self.use == "refine" or self.text is None or self.enlarge != [1, 1]:
            raise ValueError(
                "this decoder refines or enlarges what tokens show, or reads no text; editing "
                "needs one with use: read or none, and text_size"
            )
        T, H, W = clip.shape[2:]
        stride, side = self.temporal_stride, self.spatial_stride
        if (T - 1) % stride or H % side or W % side:
            raise ValueError(
                f"the clip is {T} x {H} x {W}, but needs 1 + {stride} k frames and multiples of "
                f"{side} pixels; cut it to that"
            )
        grid = len(clip), 1 + (T - 1) // stride, H // side, W // side
        no_tokens = torch.zeros(grid, dtype=torch.long, device=clip.device)
        sampling = Sampling(steps, guidance_scale, solver, joint, strength)
        wishes = Wishes(texts, control, None if kept is None else Kept(clip, kept))
        parts = self._stream([(no_tokens, clip)], seed, sampling, None, wishes)
        return torch.cat(list(parts), dim=2)

    @torch.no_grad()
    def _stream(
        self,
        chunks: Iterable[tuple[Tensor, Tensor]],
        seed: int | list[int],
        sampling: Sampling,
        known: Tensor | None,
        wishes: Wishes,
    ) -> Iterator[Float[Tensor, "B 3 _ H W"]]:
        if wishes.texts is not None and self.text is None:
            raise ValueError(
                "this decoder reads no text; leave the prompt out, or train one with "
                "configs/edit_decoder.yaml"
            )
        if (wishes.control is None) != (self.control is None):
            raise ValueError("a decoder with control needs a control, no other takes one")
        steps = self.steps if sampling.steps is None else sampling.steps
        start = 1.0 if sampling.start is None else sampling.start
        angles = self.objective.schedule.angles(steps, start)
        generators: list[torch.Generator] | None = None
        done, shared, num_known = known, None, known_latents(known, self.temporal_stride)
        for window in cut(chunks, self.window, self.overlap, self.strides[0], num_known):
            window = window._replace(base=enlarged(window.base, *self.enlarge))
            shape = tuple(window.base.shape)
            generators = generators or generators_of(seed, shape[0])
            if wishes.texts is not None and len(wishes.texts) != shape[0]:
                raise ValueError(
                    f"there are {len(wishes.texts)} texts for {shape[0]} clips; give one each"
                )
            draw = partial(draw_noise, generators=generators)
            frame = (*shape[:2], 1, *shape[3:])
            shared = draw(frame) if shared is None else shared
            noise = correlated(draw(shape), shared, self.noise_correlation).to(window.base)
            given = self._given(window, done)
            guess = self._guess(window, given, noise, sampling, wishes)
            z = noise
            if sampling.start is not None:
                source = self.inward(window.base, torch.zeros_like(window.base))
                z = noised(source, noise, angles[0].to(noise))
            renewed = partial(_renewed, draw, shape, frame, self.noise_correlation)
            x = sample(guess, z, angles, solver=sampling.solver, renewed=renewed)
            clip = self.outward(x, window.base).clamp(-1, 1)
            yield clip[:, :, given.shape[2] :]
            done = clip
        if shared is None and known is not None:
            raise ValueError(
                f"known has {known.shape[2]} frames and the clip no more, so nothing is left to "
                "sample; give fewer known frames, or the tokens of a longer clip"
            )

    def _guess(
        self,
        window: Window,
        given: Float[Tensor, "B 3 K H W"],
        noise: Float[Tensor, "B 3 T H W"],
        sampling: Sampling,
        wishes: Wishes,
    ) -> Guess:
        """Return the network's guess at a window that begins with given frames."""
        B = len(window.base)
        dropped = torch.full((B,), sampling.start is not None, device=given.device)
        condition = Condition(
            window.tokens,
            window.base,
            dropped,
            wishes.texts or [[]] * B,
            given.new_zeros(B),
            self._control(window, wishes.control),
        )
        told, blind = (
            partial(self.velocity, condition=one) for one in (condition, condition.blind())
        )
        velocity = guided(told, blind, sampling.guidance_scale)
        first = given if sampling.joint == "given" else given[:, :, :0]
        guess = beginning_with(velocity, first)
        whole, where = self._known(window, given, wishes.kept)
        if not where[first.shape[2] :].any():
            return guess
        where = where[None, None, :, None, None]
        if sampling.joint == "replaced":
            return replaced(guess, whole, where, noise)
        shared = self.noise_correlation
        weight = GUIDANCE_WEIGHT / 4 if shared else GUIDANCE_WEIGHT
        return reconstruction_guided(guess, whole, where, noise, weight, shared)

    def _known(
        self, window: Window, given: Float[Tensor, "B 3 K H W"], kept: Kept | None
    ) -> tuple[Float[Tensor, "B 3 T H W"], Bool[Tensor, " T"]]:
        """Return a window as the network sees it where it is known, and in which frames it is."""
        T, num_given = window.base.shape[2], given.shape[2]
        whole = torch.cat([given, torch.zeros_like(window.base[:, :, num_given:])], dim=2)
        where = torch.arange(T, device=given.device) < num_given
        if kept is None:
            return whole, where
        part, frames = kept.part(self.temporal_stride * window.first, window.base)
        frames = frames.to(where)
        added = (frames & ~where)[None, None, :, None, None]
        return torch.where(added, self.inward(part, window.base), whole), where | frames

    def _control(self, window: Window, control: Tensor | None) -> Float[Tensor, "B K T H W"] | None:
        """Return a window's part of the control."""
        if control is None or self.control is None:
            return None
        return self.control.part(control, self.temporal_stride * window.first, window.base)

    def _given(self, window: Window, done: Tensor | None) -> Float[Tensor, "B 3 K H W"]:
        """Return the frames of a window that are decoded already, as the network sees them."""
        num_frames = 1 + self.temporal_stride * (window.num_known - 1)
        if done is None or num_frames < 1:
            return window.base[:, :, :0]
        given, base = done[:, :, -num_frames:], window.base[:, :, :num_frames]
        if given.shape != base.shape:
            raise ValueError(
                f"known is {tuple(done.shape)}, but the clips {tuple(base.shape)} in as many "
                "frames; give known frames of as many clips and of their size"
            )
        return self.inward(given, base)


def _renewed(
    draw: Callable[[tuple[int, ...]], Tensor],
    shape: tuple[int, ...],
    frame: tuple[int, ...],
    correlation: float,
) -> Float[Tensor, "B C T H W"]:
    """Draw noise of a window anew, also what its frames share."""
    return correlated(draw(shape), draw(frame), correlation)
