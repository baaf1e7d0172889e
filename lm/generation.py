"""One batch of videos, made window after window from what a request says."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lm.actions import by_latent_frame
from lm.condition import Condition, Guide, Texts
from lm.latent_prior import LatentPrior
from lm.prior import Prior
from lm.sampling import Sampling
from lm.tasks import edge_guide, end_guide, hole_guide, prior_task, small_guide, with_means
from lm.windows import Span, plan

Cache = dict[nn.Module, Tensor]
"""What the causal layers of a tokenizer remember of a stream."""


@runtime_checkable
class Codec(Protocol):
    """What turns pixels into what the prior models, tokens or latents, and back: a tokenizer."""

    temporal_stride: int

    def encode(self, clip: Tensor, /) -> Tensor: ...

    def decode(self, tokens: Tensor, cache: Cache | None = None, /) -> Tensor: ...

    def num_latent_frames(self, num_frames: int) -> int: ...

    def num_frames(self, num_latent_frames: int) -> int: ...


Pixels = Callable[[Tensor, Tensor | None, Texts, int], Tensor]
"""From the tokens of a window, its first frames where known, its texts and the frame at which it
begins to all its frames."""


@dataclass(frozen=True)
class Generation:
    """What is to be made, as the prior and the tokenizers read it; pixels in [-1, 1].

    Args:
        prior: Models the tokens or latents.
        codec: The tokenizer of the video.
        guide_codec: The tokenizer of guides.
        task: What is to be done, a key of `lm.request.NEEDS`.
        parts: Texts and classes of each part of the video.
        ends: Frames up to the end of each part.
        context: Frames to go on from.
        guide: Key frames, one more than parts, or a video as long as the one to be made.
        hole: True where a guide is to be made anew.
        actions: Bins; row k leads to frame k.
        features: A row for each latent frame.
        pixels: Turns tokens into pixels instead of the codec.
    """

    prior: Prior | LatentPrior
    codec: Codec
    guide_codec: Codec
    task: str
    parts: list[Condition]
    ends: list[int]
    context: Float[Tensor, "B 3 T H W"] | None = None
    guide: Float[Tensor, "B 3 T2 H2 W2"] | None = None
    hole: Bool[Tensor, "B T2 H2 W2"] | None = None
    actions: Int[Tensor, "B T3 A"] | None = None
    features: Float[Tensor, "B t F"] | None = None
    pixels: Pixels | None = None

    @torch.no_grad()
    def check(self, sampling: Sampling) -> None:
        """Look at every window before the first is sampled.

        Raises:
            ValueError: The prior cannot be told this, or cannot sample so.
        """
        self.prior.inputs.check_task(prior_task(self.task))  # before a guide is encoded for it
        latents, checked = self.codec.num_latent_frames(self.ends[-1]), -1
        if self.features is not None and self.features.shape[1] != latents:
            raise ValueError(
                f"features have {self.features.shape[1]} rows, but the video has {latents} latent "
                "frames; give one row for each"
            )
        for span in self._spans():
            kept, frames = span.latent_frames(self.codec.temporal_stride)
            self.prior.check_sampling(
                sampling, (frames - kept) * self.prior.num_tokens // self.prior.grid[0]
            )
            part = self._part(span)
            if part > checked:  # the first window of a part
                condition = self.condition(span)
                self.prior.check_condition(condition)
                if sampling.guidance_scale != 1 and condition.is_bare:
                    raise ValueError(
                        f"guidance_scale is {sampling.guidance_scale}, but it strengthens what a "
                        "text or a class says, and there is neither; leave it at 1"
                    )
                checked = part

    @torch.no_grad()
    def windows(
        self, generators: list[torch.Generator], sampling: Sampling
    ) -> Iterator[Float[Tensor, "B 3 _ H W"]]:
        """Yield the context, then the new frames of each window."""
        tail = self.context
        if tail is not None:
            yield tail
        tokens: Tensor | None = None
        cache: Cache | None = None
        for span in self._spans():
            known = tail[:, :, -span.kept :] if tail is not None else None
            kept, num_latent_frames = span.latent_frames(self.codec.temporal_stride)
            if span.slides:
                assert tokens is not None  # a window of its part came before
                context = tokens[:, -kept:]
            else:
                context = self.codec.encode(known) if known is not None else None
                cache = {} if self._slides else None
            condition = self.condition(span)
            tokens = self.prior.sample(
                condition,
                generators,
                sampling=sampling,
                context=context,
                num_latent_frames=num_latent_frames,
            )
            if self.pixels is not None:
                clip = self.pixels(tokens, known, condition.texts, span.start)
            else:
                clip = self.codec.decode(tokens[:, kept:] if span.slides else tokens, cache)
            clip = self._with_known_pixels(clip.float().clamp(-1, 1), span)
            new = clip if span.slides else clip[:, :, span.kept :]
            tail = new if known is None else torch.cat([known, new], dim=2)
            yield new

    def condition(self, span: Span) -> Condition:
        """Return what a window is conditioned on."""
        condition, stride = self.parts[self._part(span)], self.codec.temporal_stride
        actions, features = self.actions, self.features
        if actions is not None:
            actions = by_latent_frame(actions[:, span.start : span.stop], stride)
        if features is not None:
            first = span.start // stride
            features = features[:, first : first + self.codec.num_latent_frames(_length(span))]
        guide, task = self._guide(span), prior_task(self.task)
        return replace(condition, task=task, guide=guide, actions=actions, features=features)

    def _part(self, span: Span) -> int:
        """Return whose text and class a window has; all gaps between key frames share one."""
        return min(span.part, len(self.parts) - 1)

    def _guide(self, span: Span) -> Guide | None:
        encode = self.guide_codec.encode
        if self.guide is None:
            return None
        if self.task == "interpolate":
            end = self.codec.num_latent_frames(_length(span)) - 1
            return end_guide(encode, self.guide[:, :, span.part + 1, None], end)
        clip = self.guide[:, :, span.start : span.stop]
        if self.task == "control":
            return edge_guide(encode, clip)
        if self.task == "upscale":
            return small_guide(encode, clip)
        assert self.hole is not None
        return hole_guide(encode, clip, self.hole[:, span.start : span.stop])

    def _with_known_pixels(
        self, clip: Float[Tensor, "B 3 T H W"], span: Span
    ) -> Float[Tensor, "B 3 T H W"]:
        """Put what a guide shows of the pixels back over what was sampled."""
        if self.guide is not None and self.hole is not None:
            hole = self.hole[:, None, span.start : span.stop]
            return torch.where(hole, clip, self.guide[:, :, span.start : span.stop])
        if self.guide is not None and self.task == "upscale":
            return with_means(clip, self.guide[:, :, span.start : span.stop]).clamp(-1, 1)
        if self.guide is not None and self.task == "interpolate":
            return torch.cat([clip[:, :, :-1], self.guide[:, :, span.part + 1, None]], dim=2)
        return clip

    def _spans(self) -> Iterator[Span]:
        known = self.context.shape[2] if self.context is not None else 0
        window, stride = self.codec.num_frames(self.prior.grid[0]), self.codec.temporal_stride
        return plan(self.ends, known, window, stride, slides=self._slides)

    @property
    def _slides(self) -> bool:
        """Say whether windows go on from tokens: where only texts and classes tell what is shown.

        A diffusion decoder makes windows that begin with an image.
        """
        told = (self.guide, self.actions, self.features, self.pixels)
        return self.prior.slides and all(part is None for part in told)


def _length(span: Span) -> int:
    return span.stop - span.start
