"""Everything a user needs in one object: prompts and clips in, uint8 videos out."""

import warnings
from pathlib import Path

import torch
from einops import rearrange, reduce
from jaxtyping import Float, UInt8
from torch import Tensor

from data.video import resize_and_crop, to_model_range, to_uint8
from diffusion.decoder import DiffusionDecoder
from layers.storage import find_model, load_module, read_manifest, save_module, write_manifest
from lm.autoregressive import AutoregressivePrior
from lm.packing import Quantization
from lm.prior import Prior
from lm.text import TextTokenizer
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
        decoder: The other way from tokens to pixels; knows its tokenizer itself.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        size: int,
        fps: float,
        prior: Prior | None = None,
        text: TextTokenizer | None = None,
        fingerprint: str | None = None,
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
        self.decoder = decoder.eval() if decoder is not None else None
        if self.decoder is not None:
            self.decoder.attach(self.tokenizer)

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
        decoder = load_module(folder / "decoder") if (folder / "decoder").is_dir() else None
        fingerprint = facts["tokenizer_fingerprint"]
        return cls(tokenizer, facts["size"], facts["fps"], prior, text, fingerprint, decoder)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write safetensors, JSON and hashes; the folder may be copied or uploaded as it is."""
        folder = Path(folder)
        parts = {"tokenizer": self.tokenizer, "prior": self.prior, "decoder": self.decoder}
        for name, part in parts.items():
            if part is None and (folder / name).exists():
                raise ValueError(
                    f"{folder} holds a {name}, which this has not; choose another folder"
                )
        for name, part in parts.items():
            if part is not None:
                save_module(part, folder / name)
        if self.text is not None:
            (folder / "prior" / "text.model").write_bytes(self.text.model)
        fingerprint = self.tokenizer.fingerprint()
        write_manifest(
            folder, {"size": self.size, "fps": self.fps, "tokenizer_fingerprint": fingerprint}
        )

    @torch.no_grad()
    def generate(
        self,
        prompts: list[str] | None = None,
        num_frames: int = 17,
        seed: int | list[int] = 0,
        context: UInt8[Tensor, "B T H W 3"] | None = None,
        guidance_scale: float = 1.0,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        steps: int | None = None,
        quantize: Quantization | None = None,
        decoder: str = "cnn",
        decoder_steps: int = 20,
    ) -> UInt8[Tensor, "B T2 H2 W2 3"]:
        """Sample videos.

        Beyond the trained window the last frames are encoded again and continued.

        Args:
            prompts: What to show; None for unconditional samples.
            num_frames: 1 + s k, the context included.
            seed: Sample i draws from seed + i, or from seed[i], whatever batch it is in.
            context: Frames to continue; resized and cropped to the trained size. The last
                admissible number 1 + s k of them counts.
            guidance_scale: uncond + scale (cond - uncond); 1 is off.
            temperature: 0 is greedy.
            top_k: Keep the k likeliest tokens.
            top_p: Keep the smallest set of tokens that has this probability.
            min_p: Keep tokens of at least this share of the likeliest one's probability.
            steps: Calls of the network a window, for a masked prior.
            quantize: "int8" samples from weights of one byte, for an autoregressive prior.
            decoder: Who turns tokens into pixels: "cnn", the tokenizer's own, or "diffusion".
            decoder_steps: Calls of the diffusion decoder's network a window of its own; `steps`
                is the prior's.
        """
        prior = self._require_prior()
        if decoder not in ("cnn", "diffusion") or decoder_steps < 1:
            raise ValueError(
                f"decoder is {decoder!r}, decoder_steps is {decoder_steps}; take cnn or diffusion "
                "and at least 1 step"
            )
        if decoder == "diffusion":
            self.require_decoder()
        self.tokenizer.num_latent_frames(num_frames)
        count = len(prompts) if prompts is not None else 1 if context is None else len(context)
        texts = self._texts(prompts, count)
        seeds = [seed + i for i in range(count)] if isinstance(seed, int) else seed
        if len(seeds) != count or (context is not None and len(context) != count):
            raise ValueError(
                f"{count} samples are asked for, with {len(seeds)} seeds and "
                f"{len(context) if context is not None else 'no'} contexts; give one each"
            )
        generators = [torch.Generator().manual_seed(one) for one in seeds]
        window, stride = self.tokenizer.num_frames(prior.grid[0]), self.tokenizer.temporal_stride
        clip = self._context(context, stride, num_frames, window)
        while clip is None or clip.shape[2] < num_frames:
            known = self._overlap(clip, window)
            kept = known.shape[2] if known is not None else 0
            missing = num_frames - (clip.shape[2] if clip is not None else 0)
            tokens = prior.sample(
                texts,
                generators,
                context=self.tokenizer.encode(known) if known is not None else None,
                num_latent_frames=self.tokenizer.num_latent_frames(min(window, kept + missing)),
                guidance_scale=guidance_scale,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                min_p=min_p,
                steps=steps,
                quantize=quantize,
            )
            if decoder == "cnn" or self._enlarges:
                new = self.tokenizer.decode(tokens).clamp(-1, 1)[:, :, kept:]
            else:
                new = self._diffuse(tokens, known, generators, decoder_steps, texts)
            clip = new if clip is None else torch.cat([clip, new], dim=2)
        if decoder == "diffusion" and self._enlarges:
            tokens = self.tokenizer.encode(clip)
            clip = self._diffuse(tokens, None, generators, decoder_steps, texts)
        return to_uint8(clip)

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
        scores = prior.score(tokens, self._texts(prompts, len(videos))).view_as(tokens)
        kept = {"clip": "b", "frame": "b t", "token": "b t h w"}
        if per not in kept:
            raise ValueError(f"per is {per!r}, but must be one of {list(kept)}")
        return reduce(scores, f"b t h w -> {kept[per]}", "sum")

    def _context(
        self, context: Tensor | None, stride: int, num_frames: int, window: int
    ) -> Float[Tensor, "B 3 T H W"] | None:
        if context is None:
            return None
        frames = 1 + (context.shape[1] - 1) // stride * stride
        if frames >= num_frames:
            raise ValueError(
                f"context has {context.shape[1]} frames and num_frames is {num_frames}; "
                f"ask for at least {frames + stride}"
            )
        return self._fit(context[:, -frames:])

    def _overlap(self, clip: Tensor | None, window: int) -> Tensor | None:
        """Return the frames that the next window starts from: all that fit in half of it."""
        if clip is None:
            return None
        stride = self.tokenizer.temporal_stride
        frames = min(clip.shape[2], 1 + (window // 2) // stride * stride)
        return clip[:, :, -frames:]

    def _fit(self, videos: UInt8[Tensor, "B T H W 3"]) -> Float[Tensor, "B 3 T H2 W2"]:
        height, width = videos.shape[2:4]
        if (height, width) != (self.size, self.size):
            warnings.warn(
                f"videos are {height} x {width} pixels; resized and cropped to {self.size} x "
                f"{self.size}, which the model was trained at",
                stacklevel=3,
            )
            flat = rearrange(videos, "b t h w c -> (b t) h w c")
            flat = resize_and_crop(flat, self.size)
            videos = rearrange(flat, "(b t) h w c -> b t h w c", b=len(videos))
        return to_model_range(videos)

    def _texts(self, prompts: list[str] | None, count: int) -> list[list[int]]:
        if prompts is None:
            return [[] for _ in range(count)]
        if self.text is None:
            raise ValueError("this model was trained without captions; leave the prompts out")
        for prompt in prompts:
            if not prompt.strip():
                raise ValueError("a prompt is empty; use prompts=None for unconditional samples")
        return [self.text.encode(prompt) for prompt in prompts]

    def require_decoder(self) -> DiffusionDecoder:
        """Return the diffusion decoder; raise ValueError where there is none."""
        if self.decoder is None:
            raise ValueError(
                "this model has no diffusion decoder; train one (configs/demo_decoder.yaml), or "
                "leave decoder out"
            )
        return self.decoder

    @property
    def _enlarges(self) -> bool:
        return self.decoder is not None and self.decoder.enlarge != [1, 1]

    def _diffuse(
        self,
        tokens: Tensor,
        known: Tensor | None,
        generators: list[torch.Generator],
        steps: int,
        texts: list[list[int]],
    ) -> Float[Tensor, "B 3 T H W"]:
        """Return the frames behind the known ones; each clip's noise follows from its generator."""
        decoder = self.require_decoder()
        seeds = [int(torch.randint(2**62, (), generator=g)) for g in generators]
        read = texts if decoder.text is not None else None
        return decoder.decode(tokens, seeds, steps, known=known, texts=read)

    def _require_prior(self) -> Prior:
        if self.prior is None:
            raise ValueError("this folder holds a tokenizer alone; train a prior to generate")
        return self.prior
