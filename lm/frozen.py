"""What every training of a prior has: a tokenizer that never changes, and text pieces."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from data.video import to_uint8
from layers.storage import load_module
from lm.condition import Texts
from lm.text import TextTokenizer
from training.module import Recipe, TrainedModule
from training.pictures import log_clips


class FrozenTokenizerModule(TrainedModule):
    """Trains on what a frozen tokenizer makes of clips; its fingerprint is in the checkpoint.

    Args:
        tokenizer_folder: Model folder of the trained tokenizer; opened when training starts.
        max_steps: Steps of the whole run.
        text_window: Text pieces that the prior reads.
        recipe: How the network is optimised.
    """

    def __init__(
        self, tokenizer_folder: str, max_steps: int, text_window: int, recipe: Recipe
    ) -> None:
        super().__init__(max_steps, recipe)
        self.tokenizer_folder, self.text_window = tokenizer_folder, text_window
        self.text: TextTokenizer | None = None
        self.fingerprints: dict[str, str] = {}
        self.trained_with: dict[str, str] = {}

    def open_tokenizer(self) -> Any:
        """Return the tokenizer of the folder."""
        return load_module(Path(self.tokenizer_folder) / "tokenizer")

    def _require_same(self) -> None:
        """Raise ValueError where the checkpoint was trained with another tokenizer than this.

        Both the checkpoint and the tokenizer may be opened first.
        """
        for name, own in self.fingerprints.items():
            if (trained_with := self.trained_with.get(name, own)) != own:
                raise ValueError(
                    f"the prior was trained with the {name.replace('_', ' ')} {trained_with}, but "
                    f"the one that is given is {own}; give the folder that belongs to it"
                )

    def hold(self, name: str, tokenizer: Any) -> None:
        """Keep a tokenizer outside the module tree: not saved, not averaged, not trained.

        Raises:
            ValueError: The checkpoint was trained with another one.
        """
        if tokenizer is not None:
            self.fingerprints[name] = tokenizer.fingerprint()
            self._require_same()
            tokenizer = tokenizer.requires_grad_(False).eval()
            tokenizer = tokenizer.to(self.trainer.strategy.root_device)
        object.__setattr__(self, name, tokenizer)

    def require_grid(self, made: Sequence[int], grid: Sequence[int]) -> None:
        """Raise ValueError where clips are no part of the prior's window.

        Args:
            made: Latent frames, rows and columns of the clips.
            grid: Of the prior.
        """
        if made[0] > grid[0] or list(made[1:]) != list(grid[1:]):
            raise ValueError(
                f"the clips are {list(made)} tokens, but the prior's grid is {list(grid)}; set the "
                "grid to that, or the data to other frames and sizes"
            )

    def learn_text(self, captions: list[str], text_size: int) -> None:
        """Learn text pieces from captions, unless a checkpoint brought them; say what is cut."""
        if self.text is None and captions and text_size:
            self.text = TextTokenizer.train(captions, text_size)
        if self.text is None:
            return
        lengths, window = [len(self.text.encode(one)) for one in captions], self.text_window
        if long := [length for length in lengths if length > window]:
            rank_zero_warn(
                f"{len(long)} of {len(lengths)} captions have more than {window} text pieces, the "
                f"longest {max(long)}: their ends are cut off; set text_window to read them whole"
            )

    def texts(self, captions: list[str]) -> Texts:
        """Return captions as text pieces, as many as the prior reads; without text, none."""
        if self.text is None:
            return [[] for _ in captions]
        return [self.text.encode(caption)[: self.text_window] for caption in captions]

    def log_decoded(self, truth: Tensor, sampled: Tensor) -> None:
        """Log clips that pass the tokenizer above sampled ones; pixels in [-1, 1]."""
        clips = [to_uint8(clip.float().clamp(-1, 1)) for clip in (truth, sampled)]
        rows = rearrange(clips, "two b t h w c -> (b two) t h w c")
        log_clips(self.loggers, "val/truth_above_sample", rows, self.step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        model = self.text.model if self.text is not None else b""
        checkpoint["text"] = torch.frombuffer(bytearray(model or b"\0"), dtype=torch.uint8)
        checkpoint["fingerprints"] = self.fingerprints

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        model = checkpoint["text"].numpy().tobytes()
        self.text = TextTokenizer(model) if len(model) > 1 else None
        self.trained_with = checkpoint["fingerprints"]
        self._require_same()
