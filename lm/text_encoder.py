"""Prompts as the states of a frozen language model instead of pieces learnt from captions.

T5 (Raffel et al. 2019, arXiv 1910.10683), as Phenaki (Villegas et al. 2022, arXiv 2210.02399) and
VideoPoet (Kondratyuk et al. 2023, arXiv 2312.14125) read text.
"""

from functools import cached_property
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from layers.configurable import Configurable


class T5TextEncoder(Configurable):
    """The encoder of a T5 model; it is opened when it is first used, and never trained or saved.

    Args:
        model: Folder or hub id of a T5 model and its tokenizer; weights as safetensors.
        window: Pieces of the longest prompt.
    """

    def __init__(self, model: str, window: int = 64) -> None:
        self.model, self.window = model, window
        self.device = torch.device("cpu")

    def to(self, device: torch.device | str) -> None:
        """Move the model to a device, on which the states then are."""
        self.device = torch.device(device)
        if "_parts" in vars(self):
            self._parts[1].to(self.device)

    @property
    def width(self) -> int:
        """Numbers in a state."""
        return self._parts[1].config.d_model

    @torch.no_grad()
    def encode(self, prompts: list[str], cut: bool = False) -> Float[Tensor, "B n F"]:
        """Return the states of each prompt, zeros behind its end; all zeros for an empty one.

        Args:
            prompts: Texts.
            cut: Read of a longer prompt what fits, instead of refusing it.

        Raises:
            ValueError: A prompt has more pieces than the window.
        """
        tokenizer, encoder = self._parts
        pieces = tokenizer(prompts, padding="max_length", max_length=self.window, truncation=cut)
        if (longest := max(map(len, pieces["input_ids"]))) > self.window:
            raise ValueError(
                f"a prompt has {longest} text pieces, but this model reads {self.window}; "
                "shorten it"
            )
        ids = torch.tensor(pieces["input_ids"], device=self.device)
        seen = torch.tensor(pieces["attention_mask"], device=self.device)
        states = encoder(input_ids=ids, attention_mask=seen).last_hidden_state
        told = torch.tensor([bool(prompt) for prompt in prompts], device=self.device)
        return states * rearrange(seen.bool() & told[:, None], "b n -> b n 1")

    @cached_property
    def _parts(self) -> tuple[Any, Any]:
        from transformers import AutoTokenizer, T5EncoderModel

        try:
            tokenizer = AutoTokenizer.from_pretrained(self.model)
            encoder: Any = T5EncoderModel.from_pretrained(self.model, use_safetensors=True)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"no T5 model can be read from {self.model!r}: {error}; give a folder that "
                "save_pretrained wrote, or a hub id"
            ) from error
        return tokenizer, encoder.to(self.device).eval().requires_grad_(False)
