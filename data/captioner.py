"""Captions by a vision-language model: --scorer data.captioner.Captioner:FOLDER."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor, BatchFeature

_ASK = "Describe what is seen in one sentence."
_WORD_PIECES = 64


class Captioner:
    """Any image-to-text model of transformers, on the middle frame of a clip.

    Args:
        folder: Local folder that `save_pretrained` of the model and of its processor wrote. Where
            the processor knows chats, the model is asked for a sentence.
    """

    names = ("caption",)

    def __init__(self, folder: str) -> None:
        if not (Path(folder) / "config.json").is_file():
            raise ValueError(f"{folder} is no folder of a model; give the local path of one")
        self.processor: Any = AutoProcessor.from_pretrained(folder, local_files_only=True)
        self.model: Any = AutoModelForImageTextToText.from_pretrained(
            folder, local_files_only=True, use_safetensors=True
        ).eval()

    @torch.no_grad()
    def __call__(self, clip: UInt8[Tensor, "T H W 3"], captions: Sequence[str]) -> dict[str, str]:
        asked = self._ask(Image.fromarray(clip[len(clip) // 2].numpy()))
        pieces = self.model.generate(**asked, max_new_tokens=_WORD_PIECES, do_sample=False)
        said = asked["input_ids"].shape[1] if "input_ids" in asked else 0  # a chat is repeated
        (text,) = self.processor.batch_decode(pieces[:, said:], skip_special_tokens=True)
        return {"caption": " ".join(text.split())}

    def _ask(self, picture: Image.Image) -> BatchFeature:
        if not getattr(self.processor, "chat_template", None):
            return self.processor(images=picture, return_tensors="pt")
        content = [{"type": "image", "image": picture}, {"type": "text", "text": _ASK}]
        return self.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
