"""Everything a user needs in one object: prompts and clips in, uint8 videos out."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from einops import reduce
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from data.resizing import resize_and_crop
from data.video import to_model_range, to_uint8
from diffusion.pixels import DrawnPixels, check_control_size, control_pictures
from diffusion.sampler import Solver, generators_of
from diffusion.wishes import Sampling as PixelSampling
from lm.autoregressive import AutoregressivePrior
from lm.captioning import write_captions
from lm.condition import class_numbers
from lm.generation import Generation, Pixels
from lm.latent_diffusion import LatentDiffusionPrior
from lm.packing import Quantization
from lm.request import Request
from lm.sampling import Sampling
from lm.tasks import UPSCALE
from model_folder import ModelFolder


class VideoPipeline(ModelFolder):
    """Samples, captions and scores videos with the models of a folder."""

    def generate(
        self,
        prompts: list[str] | None = None,
        num_frames: int | None = None,
        seed: int | list[int] = 0,
        context: UInt8[Tensor, "B T H W 3"] | None = None,
        guidance_scale: float = 1.0,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        steps: int | None = None,
        quantize: Quantization | None = None,
        task: str = "generate",
        classes: Sequence[str | int] | None = None,
        actions: Float[Tensor, "B T2 A"] | None = None,
        mask: Bool[Tensor, "*frames H2 W2"] | None = None,
        story: list[tuple[str, int]] | None = None,
        guide: UInt8[Tensor, "B T3 H3 W3 3"] | None = None,
        features: Float[Tensor, "B t F"] | None = None,
        control: UInt8[Tensor, "B T5 H5 W5 3"] | None = None,
        decoder: str = "cnn",
        decoder_steps: int | None = None,
        choice_temperature: float = 4.5,
        decoder_guidance: float = 1.0,
        decoder_solver: Solver = "ddim",
    ) -> UInt8[Tensor, "B T4 H4 W4 3"]:
        """Sample videos.

        Beyond the trained window the last frames are encoded again and continued, or their tokens
        by a prior that slides.

        The arguments are those of `lm.request.Request`, which says what is made, and of
        `lm.sampling.Sampling`, which says how, with the same names, defaults and errors. Contexts
        and guides of another size are resized and cropped to the trained one, and it is said.
        """
        what = prompts, num_frames, seed, context, task, classes, actions, mask, story
        request = Request(*what, guide, features, control)
        sampling = Sampling(
            guidance_scale, temperature, top_k, top_p, min_p, steps, choice_temperature, quantize
        )
        way = decoder, decoder_steps, decoder_guidance, decoder_solver
        return torch.cat(list(self.stream(request, sampling, *way)), dim=1)

    def stream(
        self,
        request: Request,
        sampling: Sampling = Sampling(),
        decoder: str = "cnn",
        decoder_steps: int | None = None,
        decoder_guidance: float = 1.0,
        decoder_solver: Solver = "ddim",
    ) -> Iterator[UInt8[Tensor, "B _ H W 3"]]:
        """Sample videos piece by piece; only a guide and a control are held whole.

        The context comes first, then the new frames of each window.

        Args:
            request: What is made.
            sampling: How its tokens are drawn.
            decoder: Who turns tokens into pixels: "cnn", the tokenizer's own, or "diffusion".
            decoder_steps: Calls of the diffusion decoder's network a window of its own; by default
                those of `sampling` where the prior takes none, else the decoder's own.
            decoder_guidance: uncond + scale (cond - uncond) of its network; 1 is off.
            decoder_solver: "ddim", "dpm" (second order) or "ancestral".

        Raises:
            ValueError: What is asked for cannot be; before anything is sampled.
        """
        sampling, decoder_steps = self._shared_steps(sampling, decoder, decoder_steps)
        generators = generators_of(request.seeds, request.count)
        drawing = PixelSampling(decoder_steps, decoder_guidance, decoder_solver)
        pixels = self._pixels(decoder, drawing, request)
        enlarges = pixels is not None and pixels.enlarges
        generation = self._generation(request, None if enlarges else pixels)
        generation.check(sampling)
        if pixels is not None:
            pixels.check([part.texts for part in generation.parts], request.length, self.size)
        clips = generation.windows(generators, sampling)
        if pixels is not None and enlarges:
            clips = pixels.enlarged(clips, generation.parts[0].texts)
        return (to_uint8(clip).cpu() for clip in clips)

    @torch.no_grad()
    def caption(
        self,
        videos: UInt8[Tensor, "B T H W 3"],
        seed: int = 0,
        temperature: float = 0.0,
    ) -> list[str]:
        """Say what videos show.

        Args:
            videos: Clips of the trained length; resized and cropped to the trained size.
            seed: Text i draws from seed + i.
            temperature: 0, the default, writes the likeliest piece each time.
        """
        prior, text = self.require_prior(), self.require_text()
        if not isinstance(prior, AutoregressivePrior):
            raise ValueError(f"{type(prior).__name__} writes no text; use an AutoregressivePrior")
        self._check_window(videos)
        tokens = self.tokenizer.encode(self._fit(videos))
        generators = generators_of(seed, len(videos))
        pieces = write_captions(prior, tokens, generators, Sampling(temperature=temperature))
        return [text.decode(one) for one in pieces]

    def edit(
        self,
        videos: UInt8[Tensor, "B T H W 3"],
        prompts: list[str],
        strength: float = 0.5,
        seed: int = 0,
        guidance_scale: float = 1.0,
        decoder_steps: int | None = None,
        decoder_solver: Solver = "ddim",
        kept: Bool[Tensor, " T"] | None = None,
        control: UInt8[Tensor, "B T3 H3 W3 3"] | None = None,
    ) -> UInt8[Tensor, "B T H2 W2 3"]:
        """Change videos as prompts say (SDEdit), by latent diffusion or the diffusion decoder.

        Args:
            videos: 1 + s k frames; resized and cropped to the trained size.
            prompts: What to make of each.
            strength: How far noise covers a video before it is taken away again, in (0, 1].
            seed: Sample i draws from seed + i.
            guidance_scale: uncond + scale (cond - uncond); 1 is off.
            decoder_steps: Calls of the network a window, all of them below `strength`; by default
                the decoder's own.
            decoder_solver: "ddim", "dpm" (second order) or "ancestral".
            kept: Frames that stay as they are; with strength 1 what lies between is filled in.
            control: A video as long, at the size made, whose edges or the like the result has.
        """
        texts, clip = self.condition(prompts, len(videos)).texts, self._fit(videos)
        way = strength, seed, decoder_steps, guidance_scale, decoder_solver, kept
        if isinstance(self.prior, LatentDiffusionPrior):
            if control is not None:
                raise ValueError("latent diffusion follows no control; leave it out")
            return self.decode(self.prior.edit(self.codec().encode(clip), texts, *way))
        decoder, shown = self.require_decoder(), self._control(control)
        if shown is not None:
            check_control_size(shown, clip.shape[2:])
        edited = decoder.edit(clip, texts, *way, control_pictures(decoder, shown))
        return to_uint8(edited).cpu()

    @torch.no_grad()
    def encode(
        self, videos: UInt8[Tensor, "B T H W 3"]
    ) -> Int[Tensor, "B t h w"] | Float[Tensor, "B D t h w"]:
        """Return what the prior models of videos, as they are: tokens or latents, on the device."""
        return self.codec().encode(to_model_range(videos.to(self.device)))

    @torch.no_grad()
    def decode(
        self, tokens: Int[Tensor, "B t h w"] | Float[Tensor, "B D t h w"]
    ) -> UInt8[Tensor, "B T H W 3"]:
        """Return the videos of tokens or latents, by the tokenizer's own decoder."""
        return to_uint8(self.codec().decode(tokens.to(self.device))).cpu()

    @torch.no_grad()
    def score(
        self,
        videos: UInt8[Tensor, "B T H W 3"],
        prompts: list[str] | None = None,
        per: str = "clip",
    ) -> Float[Tensor, "B *place"]:
        """Return log-likelihoods in nats: of each clip, of its latent frames or of its tokens.

        Args:
            videos: What to score.
            prompts: Given what; None for nothing.
            per: "clip" gives B, "frame" B t, "token" B t h w; each is the sum of the next.
        """
        kept = {"clip": "b", "frame": "b t", "token": "b t h w"}
        if per not in kept:
            raise ValueError(f"per is {per!r}, but must be one of {list(kept)}")
        prior = self.require_prior()
        if not isinstance(prior, AutoregressivePrior):
            raise ValueError(
                f"{type(prior).__name__} has no likelihood; score with an AutoregressivePrior. A "
                "masked prior has pipe.prior.pseudo_log_likelihood, which compares clips under "
                "this prior alone"
            )
        self._check_window(videos)
        tokens = self.tokenizer.encode(self._fit(videos))
        scores = prior.score(tokens, self.condition(prompts, len(videos))).view_as(tokens)
        return reduce(scores, f"b t h w -> {kept[per]}", "sum").cpu()

    @torch.no_grad()
    def _generation(self, request: Request, pixels: Pixels | None) -> Generation:
        """Return a request as the models read it, with all pixels at the trained size."""
        prior, codec = self.require_prior(), self.codec()
        codec.num_latent_frames(request.length)
        stride, window = codec.temporal_stride, codec.num_frames(prior.grid[0])
        classes, context = class_numbers(request.classes, self.classes), request.known(stride)
        parts = [
            replace(self.condition(some, request.count), classes=classes) for some in request.parts
        ]
        there = lambda part: None if part is None else part.to(self.device)
        bins = None if (actions := request.actions) is None else prior.inputs.bins(actions)
        return Generation(
            prior,
            codec,
            self.guide_tokenizer or codec,
            request.task,
            parts,
            request.ends(stride, window),
            None if context is None else self._fit(context),
            self._guide(request),
            there(request.hole(self.size)),
            there(bins),
            there(request.features),
            pixels,
        )

    def _shared_steps(
        self, sampling: Sampling, decoder: str, steps: int | None
    ) -> tuple[Sampling, int | None]:
        """Give the steps of `sampling` to the diffusion decoder where nobody else takes any."""
        alone = decoder == "diffusion" and isinstance(self.prior, AutoregressivePrior)
        if alone and steps is None and sampling.steps is not None:
            return replace(sampling, steps=None), sampling.steps
        return sampling, steps

    def _pixels(
        self, decoder: str, sampling: PixelSampling, request: Request
    ) -> DrawnPixels | None:
        """Return what turns tokens into pixels; None for the tokenizer's own decoder."""
        if decoder not in ("cnn", "diffusion"):
            raise ValueError(f"decoder is {decoder!r}, but must be cnn or diffusion")
        if decoder == "cnn":
            if request.control is not None:
                raise ValueError("a control steers a diffusion decoder; set decoder to diffusion")
            if sampling != PixelSampling():
                raise ValueError("cnn takes no decoder_ options; set decoder to diffusion")
            return None
        control = self._control(request.control)
        return DrawnPixels(self.require_decoder(), sampling, request.seeds, control)

    def _control(
        self, control: UInt8[Tensor, "B T H W 3"] | None
    ) -> Float[Tensor, "B 3 T H W"] | None:
        return None if control is None else to_model_range(control.to(self.device))

    def _guide(self, request: Request) -> Float[Tensor, "B 3 T H W"] | None:
        if request.guide is None:
            return None
        return self._fit(request.guide, self.size // (UPSCALE if request.task == "upscale" else 1))

    def _check_window(self, videos: UInt8[Tensor, "B T H W 3"]) -> None:
        """Raise ValueError for clips that are longer than what the prior has learnt."""
        window = self.codec().num_frames(self.require_prior().grid[0])
        if videos.shape[1] > window:
            raise ValueError(
                f"the videos have {videos.shape[1]} frames, but this prior reads {window}; cut them"
            )

    def _fit(
        self, videos: UInt8[Tensor, "B T H W 3"], size: int | None = None
    ) -> Float[Tensor, "B 3 T H2 W2"]:
        height, width = videos.shape[2:4]
        size = size or self.size
        if (height, width) != (size, size):
            warnings.warn(
                f"videos are {height} x {width} pixels; resized and cropped to {size} x {size}, "
                "which the model was trained at",
                stacklevel=3,
            )
            videos = torch.stack([resize_and_crop(video, size) for video in videos])
        return to_model_range(videos.to(self.device))
