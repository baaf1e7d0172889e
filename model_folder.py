"""What a model folder holds, and how it is written and read: safetensors, JSON and hashes."""

from pathlib import Path
from typing import Any, TypeVar

import torch

from diffusion.decoder import DiffusionDecoder
from layers.storage import (
    CONFIG,
    MANIFEST,
    TEXT,
    WEIGHTS,
    find_model,
    load_module,
    read_json,
    read_manifest,
    replacing,
    save_module,
    write_manifest,
)
from lm.condition import Condition
from lm.generation import Codec
from lm.latent_prior import LatentPrior
from lm.prior import Prior
from lm.text import TextTokenizer
from lm.text_encoder import T5TextEncoder
from tokenizer import FrameTokenizer, LatentCodec, Tokenizer, codec_of

Folder = TypeVar("Folder", bound="ModelFolder")
PARTS = ("tokenizer", "prior", "decoder", "guide_tokenizer")


def require_room(folder: Path, parts: list[str]) -> None:
    """Raise ValueError where a folder holds parts of a model beside those to be written."""
    for name in PARTS:
        if name not in parts and (folder / name).exists():
            raise ValueError(f"{folder} holds a {name}, which this has not; choose another folder")


def require_same_parts(folder: Path, source: Path) -> None:
    """Raise ValueError where a model of `source` with a new decoder would replace another model.

    Weights and text pieces are compared by the hashes of the manifests: the JSON beside them may
    have more arguments when it is written anew.

    Args:
        folder: Where the model is to be written.
        source: Model folder whose tokenizer and prior it will have.
    """
    files = read_manifest(source)["files"]
    if not folder.is_dir() or folder.samefile(source):
        return
    require_room(folder, ["decoder", *(name for name in PARTS if (source / name).exists())])
    if not (folder / MANIFEST).is_file():
        return
    for name, digest in read_json(folder / MANIFEST)["files"].items():
        part, file = name.rsplit("/", 1) if "/" in name else ("tokenizer", name)
        if part == "decoder" or file not in (WEIGHTS, TEXT):
            continue
        if files.get(name) != digest:
            raise ValueError(
                f"{folder} holds another {part} than {source}, which would replace it; export to "
                "another folder, or train with the tokenizer_folder of this one"
            )


def _require_same(
    name: str, trained_with: str | None, given: Tokenizer | FrameTokenizer | None
) -> None:
    """Raise ValueError where a prior was trained with another tokenizer than is given."""
    own = "none" if given is None else given.fingerprint()
    if trained_with is not None and trained_with != own:
        raise ValueError(
            f"the prior was trained with the {name} {trained_with}, but {own} is given; use the "
            f"{name} that belongs to it"
        )


def _require_text_fit(prior: Prior | LatentPrior, text: TextTokenizer | None) -> None:
    """Raise ValueError where prompts become pieces that a prior would take for something else."""
    read = prior.text_size if isinstance(prior, LatentPrior) else prior.vocabulary.text_size
    if text is not None and 0 < read < text.vocabulary_size:
        raise ValueError(
            f"the prior reads {read} text pieces, but text has {text.vocabulary_size}; use the "
            "text that the prior was trained with"
        )


def _require_decoder_reads(decoder: DiffusionDecoder, text: TextTokenizer | None) -> None:
    """Raise ValueError where prompts have pieces that a diffusion decoder does not know."""
    if text is None or decoder.text is None:
        return
    if decoder.text.text_size < text.vocabulary_size:
        raise ValueError(
            f"the diffusion decoder reads {decoder.text.text_size} text pieces, but text has "
            f"{text.vocabulary_size}; use the text that the decoder was trained with"
        )


class ModelFolder:
    """A tokenizer and what works on its tokens.

    Args:
        tokenizer: Video to tokens and back.
        size: Height and width that the models were trained at.
        fps: Frames per second of the training clips.
        prior: Models the tokens or latents; without one videos are only encoded and decoded.
        text: Turns prompts into pieces; None where the prior was trained without captions.
        fingerprint: Of the tokenizer that the prior was trained with; checked against this one.
        classes: Names of the classes that the prior knows, in the order of their numbers.
        guide_tokenizer: Encodes guides, where the prior was trained with another one for them.
        text_encoder: Reads prompts, where the prior was trained with one; only its name is saved.
        decoder: The other way from tokens to pixels; knows its tokenizer itself.
        guide_fingerprint: Of the guide tokenizer that the prior was trained with.

    Raises:
        ValueError: The parts do not fit each other or the size.
    """

    def __init__(
        self,
        tokenizer: Tokenizer | FrameTokenizer,
        size: int,
        fps: float,
        prior: Prior | LatentPrior | None = None,
        text: TextTokenizer | None = None,
        fingerprint: str | None = None,
        classes: list[str] | None = None,
        guide_tokenizer: Tokenizer | None = None,
        text_encoder: T5TextEncoder | None = None,
        decoder: DiffusionDecoder | None = None,
        guide_fingerprint: str | None = None,
    ) -> None:
        _require_same("tokenizer", fingerprint, tokenizer)
        _require_same("guide tokenizer", guide_fingerprint, guide_tokenizer)
        self.tokenizer, self.size, self.fps = tokenizer.eval(), size, fps
        self.guide_tokenizer = guide_tokenizer.eval() if guide_tokenizer is not None else None
        if prior is not None:
            self._require_fit(prior)
            _require_text_fit(prior, text)
        self.prior, self.text = prior.eval() if prior is not None else None, text
        self.classes = classes or []
        self.text_encoder = text_encoder
        self.decoder = decoder.eval() if decoder is not None else None
        if decoder is not None:
            if isinstance(tokenizer, FrameTokenizer):
                raise ValueError("a diffusion decoder needs clips; leave it out for single frames")
            _require_decoder_reads(decoder, text)
            decoder.attach(tokenizer)

    @classmethod
    def from_pretrained(
        cls: type[Folder], folder_or_hub_id: str | Path, device: torch.device | str = "cpu"
    ) -> Folder:
        """Load a model folder, or one of that name on the Hugging Face hub.

        Args:
            folder_or_hub_id: Where it lies.
            device: Where the models are to work; clips are given and returned on the CPU.
        """
        folder = find_model(folder_or_hub_id)
        facts = read_manifest(folder)
        if "size" not in facts:
            raise ValueError(f"{folder} holds a tokenizer alone; load Tokenizer.from_pretrained")

        def read(name: str) -> Any:
            return load_module(folder / name) if f"{name}/{CONFIG}" in facts["files"] else None

        pieces, encoder = folder / "prior" / TEXT, facts.get("text_encoder")
        models = cls(
            load_module(folder / "tokenizer"),
            facts["size"],
            facts["fps"],
            read("prior"),
            TextTokenizer(pieces.read_bytes()) if f"prior/{TEXT}" in facts["files"] else None,
            facts["tokenizer_fingerprint"],
            facts.get("classes"),
            read("guide_tokenizer"),
            T5TextEncoder(encoder["model"], encoder["window"]) if encoder is not None else None,
            read("decoder"),
            facts.get("guide_tokenizer_fingerprint"),  # older folders have none
        )
        return models.to(device)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the folder; it may be copied or uploaded as it is."""
        folder = Path(folder)
        parts = {name: getattr(self, name) for name in PARTS}
        require_room(folder, [name for name, part in parts.items() if part is not None])
        fingerprint = self.tokenizer.fingerprint()  # refuses before anything is written
        facts = {"size": self.size, "fps": self.fps}
        facts |= {"tokenizer_fingerprint": fingerprint}
        if self.guide_tokenizer is not None:
            facts |= {"guide_tokenizer_fingerprint": self.guide_tokenizer.fingerprint()}
        facts |= {"classes": self.classes} if self.classes else {}
        if (encoder := self.text_encoder) is not None:
            facts |= {"text_encoder": {"model": encoder.model, "window": encoder.window}}
        with replacing(folder) as new:
            for name, part in parts.items():
                if part is not None:
                    save_module(part, new / name)
            if self.text is not None:
                (new / "prior" / TEXT).write_bytes(self.text.model)
            write_manifest(new, facts)
        if self.text is None:
            (folder / "prior" / TEXT).unlink(missing_ok=True)

    def _require_fit(self, prior: Prior | LatentPrior) -> None:
        """Raise ValueError where a prior does not fit the tokenizers or the size."""
        continuous = isinstance(self.codec(), LatentCodec)
        if isinstance(prior, LatentPrior) != continuous:
            raise ValueError(
                f"{type(prior).__name__} does not fit a tokenizer that makes "
                f"{'continuous latents' if continuous else 'tokens'}; a LatentPrior needs a KL "
                "bottleneck, every other prior a quantizer"
            )
        height = prior.grid[1] * self.tokenizer.spatial_stride
        if height != self.size:
            raise ValueError(
                f"the prior makes {prior.grid[1]} rows of tokens, which are {height} pixels, but "
                f"size is {self.size}; set it to that, or use the prior of this size"
            )
        if isinstance(prior, LatentPrior):
            name, read, made = "channels", prior.channels, self.tokenizer.quantizer.dim
        else:
            read, made = prior.vocabulary.codebook_size, self.tokenizer.codebook_size
            name, guides = "codebook_size", self.guide_tokenizer or self.tokenizer
            prior.inputs.check_guide_codes(read, guides.codebook_size)
        if read != made:
            raise ValueError(
                f"the prior has {name} {read}, but the tokenizer has {made}; use the tokenizer "
                "that the prior was trained with"
            )

    def to(self: Folder, device: torch.device | str) -> Folder:
        """Move the models to a device and return the folder."""
        for name in PARTS:
            if (part := getattr(self, name)) is not None:
                part.to(device)
        if self.text_encoder is not None:
            self.text_encoder.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where the models work."""
        return next(self.tokenizer.parameters()).device

    def codec(self) -> Codec:
        """Return what turns pixels into what the prior models, and back."""
        return codec_of(self.tokenizer)

    def require_prior(self) -> Prior | LatentPrior:
        """Return the prior; raise ValueError where there is none."""
        if self.prior is None:
            raise ValueError("this folder holds a tokenizer alone; train a prior to generate")
        return self.prior

    def require_text(self) -> TextTokenizer:
        """Return what turns prompts into pieces; raise ValueError where there is none."""
        if self.text is None:
            raise ValueError("this model was trained without captions; leave the prompts out")
        return self.text

    def require_decoder(self) -> DiffusionDecoder:
        """Return the diffusion decoder; raise ValueError where there is none."""
        if self.decoder is None:
            raise ValueError(
                "this model has no diffusion decoder; train one (configs/demo_decoder.yaml), or "
                "leave decoder out"
            )
        if self.decoder.text is not None and self.text_encoder is not None:
            raise ValueError(
                "this diffusion decoder reads text pieces, but the prompts of this model are read "
                "by a text encoder; train a decoder with text_size: 0"
            )
        return self.decoder

    @property
    def takes_actions(self) -> bool:
        """Whether actions can be given."""
        return self.prior is not None and bool(self.prior.inputs.action_ranges)

    def condition(self, prompts: list[str] | None, count: int) -> Condition:
        """Return prompts as the prior reads them; for None, so many without text."""
        if prompts is None:
            return Condition([[] for _ in range(count)])
        if len(prompts) != count:
            raise ValueError(f"there are {len(prompts)} prompts for {count} videos; give one each")
        for prompt in prompts:
            if not prompt.strip():
                raise ValueError("a prompt is empty; use prompts=None for unconditional samples")
        if self.text_encoder is not None:
            return Condition([[] for _ in prompts], states=self.text_encoder.encode(prompts))
        text = self.require_text()
        return Condition([text.encode_prompt(prompt) for prompt in prompts])
