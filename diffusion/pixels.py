"""From the tokens of a video to its pixels by a diffusion decoder, as a prior makes them."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffusion.condition import Texts
from diffusion.decoder import DiffusionDecoder
from diffusion.sampler import generators_of
from diffusion.windows import IMAGES_ONLY
from diffusion.wishes import Sampling, Wishes


class DrawnPixels:
    """Samples the pixels of a batch of videos, window after window of its prior.

    Args:
        decoder: Knows its tokenizer.
        sampling: How its own windows are sampled.
        seeds: Of each video.
        control: Whole videos of the size that is sampled, which steer the decoder.

    Raises:
        ValueError: Control or sampling and decoder do not belong together.
    """

    def __init__(
        self,
        decoder: DiffusionDecoder,
        sampling: Sampling,
        seeds: list[int],
        control: Float[Tensor, "B 3 T H W"] | None = None,
    ) -> None:
        # Of one frame, to say before anything is sampled that they do not belong together.
        control_pictures(decoder, None if control is None else control[:, :, :1])
        self.decoder, self.sampling, self.control = decoder, sampling, control
        self.generators = generators_of(seeds, len(seeds))

    @property
    def enlarges(self) -> bool:
        """Whether the decoder makes more frames or pixels than the tokenizer."""
        return self.decoder.enlarge != [1, 1]

    def check(self, parts: list[Texts], num_frames: int, size: int) -> None:
        """Raise ValueError where texts or control do not fit the decoder.

        Args:
            parts: Pieces of the texts of each part of the video.
            num_frames: What the prior makes.
            size: Height and width of what it makes.
        """
        if self.decoder.window == 1 < num_frames:
            raise ValueError(IMAGES_ONLY)
        if self.decoder.text is not None:
            for texts in parts:
                self.decoder.text(texts)
            if self.enlarges and len(parts) > 1:
                raise ValueError(
                    "this decoder enlarges a whole video under one text; leave the story out"
                )
        if self.control is not None:
            faster, larger = self.decoder.enlarge
            frames = 1 + faster * (num_frames - 1)
            check_control_size(self.control, (frames, larger * size, larger * size))

    def __call__(
        self,
        tokens: Int[Tensor, "B t h w"],
        known: Float[Tensor, "B 3 K H W"] | None,
        texts: Texts,
        start: int,
    ) -> Float[Tensor, "B 3 T H W"]:
        """Return all frames of a window, the known ones in front.

        Args:
            tokens: Of the window.
            known: Its first frames, where they are there.
            texts: Pieces of what it shows.
            start: Frame of the video at which it begins.
        """
        frames = 1 + self.decoder.temporal_stride * (tokens.shape[1] - 1)
        control = self._pictures(slice(start, start + frames))
        way = self.sampling.steps, self.sampling.guidance_scale, self.sampling.solver
        told = self._read(texts)
        new = self.decoder.decode(
            tokens, self._seeds(), *way, known=known, texts=told, control=control
        )
        return new if known is None else torch.cat([known, new], dim=2)

    def enlarged(
        self, clips: Iterator[Float[Tensor, "B 3 _ H W"]], texts: Texts
    ) -> Iterator[Float[Tensor, "B 3 _ H2 W2"]]:
        """Encode a stream of frames again and return the larger video, in constant memory."""
        assert self.decoder.tokenizer is not None
        tokens = self.decoder.tokenizer.stream_encode(clips)
        wishes = Wishes(self._read(texts), self._pictures(slice(None)))
        yield from self.decoder.stream_decode(tokens, self._seeds(), self.sampling, wishes=wishes)

    def _seeds(self) -> list[int]:
        return [int(torch.randint(2**62, (), generator=g)) for g in self.generators]

    def _pictures(self, frames: slice) -> Float[Tensor, "B K T H W"] | None:
        part = None if self.control is None else self.control[:, :, frames]
        return control_pictures(self.decoder, part)

    def _read(self, texts: Texts) -> Texts | None:
        return texts if self.decoder.text is not None else None


def control_pictures(
    decoder: DiffusionDecoder, control: Float[Tensor, "B 3 T H W"] | None
) -> Float[Tensor, "B K T H W"] | None:
    """Return what of a clip in [-1, 1] steers a decoder, if anything does.

    Raises:
        ValueError: A decoder that follows a control has none, or the other way round.
    """
    if control is None and decoder.control is not None:
        raise ValueError(
            f"this diffusion decoder follows {decoder.control.kind}; give control, a video that "
            "has them"
        )
    if control is None:
        return None
    if decoder.control is None:
        raise ValueError(
            "this diffusion decoder follows no control; leave it out, or train one with "
            "configs/control_decoder.yaml"
        )
    return decoder.control.pictures(control)


def check_control_size(control: Float[Tensor, "B 3 T H W"], wanted: tuple[int, ...]) -> None:
    """Raise ValueError where a control is not as long and large as the video."""
    if control.shape[2:] != wanted:
        raise ValueError(
            f"the control has {_told(control.shape[2:])}, but the video {_told(wanted)}; "
            "cut and resize it to that"
        )


def _told(size: tuple[int, ...]) -> str:
    return "{} frames of {} x {} pixels".format(*size)
