"""Everything a user needs in one object: prompts and clips in, uint8 videos out."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from data.video import resize_and_crop, to_model_range, to_uint8
from diffusion.codec import codec_of
from diffusion.decoder import DiffusionDecoder
from layers.storage import find_model, load_module, read_manifest, save_module, write_manifest
from lm.autoregressive import AutoregressivePrior
from lm.captioning import write_captions
from lm.condition import Condition
from lm.generation import Codec, Generation
from lm.packing import Quantization
from lm.prior import Prior
from lm.request import Request, class_numbers
from lm.sampling import Sampling
from lm.tasks import UPSCALE
from lm.text import TextTokenizer
from lm.text_encoder import T5TextEncoder
from tokenizer import FrameTokenizer
from tokenizer.model import Tokenizer


class VideoPipeline:
    """Tokenizer, prior and diffusion decoder in one folder.

    Args:
        tokenizer: Video to tokens and back.
        size: Height and width that the models were trained at.
        fps: Frames per second of the training clips.
        prior: Models the tokens; a pipeline without one only encodes and decodes.
        text: Turns prompts into pieces; None where the prior was trained without captions.
        fingerprint: Of the tokenizer that the prior was trained with; checked against this one.
        classes: Names of the classes that the prior knows, in the order of their numbers.
        guide_tokenizer: Encodes guides, where the prior was trained with another one for them.
        text_encoder: Reads prompts, where the prior was trained with one; only its name is saved.
        decoder: The other way from tokens to pixels.
    """

    def __init__(
        self,
        tokenizer: Tokenizer | FrameTokenizer,
        size: int,
        fps: float,
        prior: Prior | None = None,
        text: TextTokenizer | None = None,
        fingerprint: str | None = None,
        classes: list[str] | None = None,
        guide_tokenizer: Tokenizer | None = None,
        text_encoder: T5TextEncoder | None = None,
        decoder: DiffusionDecoder | None = None,
    ) -> None:
        own = tokenizer.fingerprint()
        if fingerprint is not None and fingerprint != own:
            raise ValueError(
                f"the prior was trained with the tokenizer {fingerprint}, but this one is {own}; "
                "use the tokenizer that belongs to it"
            )
        self.tokenizer, self.size, self.fps = tokenizer.eval(), size, fps
        self.prior, self.text = prior.eval() if prior is not None else None, text
        self.classes = classes or []
        self.guide_tokenizer = guide_tokenizer.eval() if guide_tokenizer is not None else None
        self.text_encoder, self.decoder = text_encoder, decoder
        if decoder is not None:
            decoder.eval().attach(self.tokenizer)

    @classmethod
    def from_pretrained(cls, folder_or_hub_id: str | Path) -> "VideoPipeline":
        """Load a model folder, or one of that name on the Hugging Face hub."""
        folder = find_model(folder_or_hub_id)
        facts = read_manifest(folder)
        if "size" not in facts:
            raise ValueError(f"{folder} holds a tokenizer alone; load Tokenizer.from_pretrained")
        prior = load_module(folder / "prior") if (folder / "prior").is_dir() else None
        pieces = folder / "prior" / "text.model"
        text = TextTokenizer(pieces.read_bytes()) if pieces.is_file() else None
        tokenizer = load_module(folder / "tokenizer")
        guides, decoder = folder / "guide_tokenizer", folder / "decoder"
        encoder = facts.get("text_encoder")
        return cls(
            tokenizer,
            facts["size"],
            facts["fps"],
            prior,
            text,
            facts["tokenizer_fingerprint"],
            facts.get("classes"),
            load_module(guides) if guides.is_dir() else None,
            T5TextEncoder(encoder["model"], encoder["window"]) if encoder is not None else None,
            load_module(decoder) if decoder.is_dir() else None,
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write safetensors, JSON and hashes; the folder may be copied or uploaded as it is."""
        folder = Path(folder)
        for name in ("prior", "decoder"):
            if getattr(self, name) is None and (folder / name).exists():
                raise ValueError(f"{folder} holds a {name}, this has none; choose another folder")
        save_module(self.tokenizer, folder / "tokenizer")
        for name in ("prior", "guide_tokenizer", "decoder"):
            if (part := getattr(self, name)) is not None:
                save_module(part, folder / name)
        if self.text is not None:
            (folder / "prior" / "text.model").write_bytes(self.text.model)
        facts = {"size": self.size, "fps": self.fps}
        facts |= {"tokenizer_fingerprint": self.tokenizer.fingerprint()}
        facts |= {"classes": self.classes} if self.classes else {}
        if (encoder := self.text_encoder) is not None:
            facts |= {"text_encoder": {"model": encoder.model, "window": encoder.window}}
        write_manifest(folder, facts)

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
        decoder: str = "cnn",
        decoder_steps: int = 20,
    ) -> UInt8[Tensor, "B T4 H4 W4 3"]:
        """Sample videos.

        Beyond the trained window the last frames are encoded again and continued.

        The arguments are those of `lm.request.Request`, which says what is made, and of
        `lm.sampling.Sampling`, which says how, with the same names, defaults and errors. Contexts
        and guides of another size are resized and cropped to the trained one, and it is said.
        Tokens become pixels by the `decoder` "cnn" or "diffusion", this in `decoder_steps`.
        """
        request = Request(
            prompts, num_frames, seed, context, task, classes, actions, mask, story, guide, features
        )
        sampling = Sampling(
            guidance_scale, temperature, top_k, top_p, min_p, steps, quantize=quantize
        )
        chunks = self.stream(request, sampling, self.codec(request, decoder, decoder_steps))
        return torch.cat(list(chunks), dim=1)

    def stream(
        self, request: Request, sampling: Sampling = Sampling(), codec: Codec | None = None
    ) -> Iterator[UInt8[Tensor, "B _ H W 3"]]:
        """Sample videos piece by piece, in memory that does not grow with their length.

        The context comes first, then the new frames of each window.

        Raises:
            ValueError: What is asked for cannot be; before anything is sampled.
        """
        generators = [torch.Generator().manual_seed(seed) for seed in request.seeds]
        generation = self._generation(request, codec or self.tokenizer)
        generation.check(sampling)
        return (to_uint8(clip) for clip in generation.windows(generators, sampling))

    def codec(self, request: Request, decoder: str = "cnn", steps: int = 20) -> Codec:
        """Return what turns tokens into pixels."""
        return codec_of(decoder, self.tokenizer, self.decoder, request.seeds, steps)

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
        prior, text = self._require_prior(), self._require_text()
        if not isinstance(prior, AutoregressivePrior):
            raise ValueError("a masked prior writes no text; use an autoregressive one")
        tokens = self.tokenizer.encode(self._fit(videos))
        generators = [torch.Generator().manual_seed(seed + i) for i in range(len(videos))]
        pieces = write_captions(prior, tokens, generators, Sampling(temperature=temperature))
        return [text.decode(one) for one in pieces]

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
        prior = self._require_prior()
        if not isinstance(prior, AutoregressivePrior):
            raise ValueError(
                "a masked prior has no likelihood; score with an autoregressive one, or read "
                "pipe.prior.pseudo_log_likelihood, which compares clips under this prior alone"
            )
        tokens = self.tokenizer.encode(self._fit(videos))
        scores = prior.score(tokens, self.condition(prompts, len(videos))).view_as(tokens)
        kept = {"clip": "b", "frame": "b t", "token": "b t h w"}
        if per not in kept:
            raise ValueError(f"per is {per!r}, but must be one of {list(kept)}")
        return reduce(scores, f"b t h w -> {kept[per]}", "sum")

    @torch.no_grad()
    def _generation(self, request: Request, codec: Codec) -> Generation:
        """Return a request as the models read it, with all pixels at the trained size."""
        prior, tokenizer = self._require_prior(), self.tokenizer
        tokenizer.num_latent_frames(request.length)
        stride, window = tokenizer.temporal_stride, tokenizer.num_frames(prior.grid[0])
        classes, context = class_numbers(request.classes, self.classes), request.known(stride)
        parts = [
            replace(self.condition(some, request.count), classes=classes) for some in request.parts
        ]
        actions = request.actions
        return Generation(
            prior,
            codec,
            self.guide_tokenizer or tokenizer,
            request.task,
            parts,
            request.ends(stride, window),
            None if context is None else self._fit(context),
            self._guide(request),
            request.hole(self.size),
            None if actions is None else prior.inputs.bins(actions),
            request.features,
        )

    def _guide(self, request: Request) -> Float[Tensor, "B 3 T H W"] | None:
        size = self.size // UPSCALE if request.task == "upscale" else self.size
        return None if request.guide is None else self._fit(request.guide, size)

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
            flat = rearrange(videos, "b t h w c -> (b t) h w c")
            flat = resize_and_crop(flat, size)
            videos = rearrange(flat, "(b t) h w c -> b t h w c", b=len(videos))
        return to_model_range(videos)

    @property
    def takes_actions(self) -> bool:
        """Whether actions can be given."""
        return self.prior is not None and bool(self.prior.inputs.action_ranges)

    def condition(self, prompts: list[str] | None, count: int) -> Condition:
        """Return prompts as the prior reads them; for None, so many without text."""
        if prompts is None:
            return Condition([[] for _ in range(count)])
        for prompt in prompts:
            if not prompt.strip():
                raise ValueError("a prompt is empty; use prompts=None for unconditional samples")
        if self.text_encoder is not None:
            return Condition([[] for _ in prompts], states=self.text_encoder.encode(prompts))
        text = self._require_text()
        return Condition([text.encode(prompt) for prompt in prompts])

    def _require_text(self) -> TextTokenizer:
        if self.text is None:
            raise ValueError("this model was trained without captions; leave the prompts out")
        return self.text

    def _require_prior(self) -> Prior:
        if self.prior is None:
            raise ValueError("this folder holds a tokenizer alone; train a prior to generate")
        return self.prior
