"""Training of a prior on the tokens of a frozen tokenizer: wiring and logs, no mathematics."""

import math
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor

from data.datamodule import Batch, VideoDataModule
from data.video import to_uint8
from layers.storage import load_module
from lm.autoregressive import AutoregressivePrior
from lm.maskgit import MaskGITPrior
from lm.prior import Prior, Texts
from lm.text import TextTokenizer
from tokenizer import Tokenizer
from training.module import Objective, Recipe, TrainedModule
from training.pictures import log_clips
from training.precision import autocast


class PriorModule(TrainedModule):
    """Trains a prior; clips are encoded on the fly by a tokenizer that never changes.

    Args:
        prior: The network and its objective.
        tokenizer_folder: Model folder of the trained tokenizer; opened when training starts.
        max_steps: Steps of the whole run.
        text_dropout: Share of clips whose text is left out, so that guidance works.
        recipe: How the network is optimised.
    """

    tokenizer: Tokenizer

    def __init__(
        self,
        prior: AutoregressivePrior | MaskGITPrior,
        tokenizer_folder: str,
        max_steps: int,
        text_dropout: float = 0.1,
        recipe: Recipe = Recipe(),
    ) -> None:
        super().__init__(max_steps, recipe)
        self.save_hyperparameters()
        self.prior: Prior = prior
        self.tokenizer_folder, self.text_dropout = tokenizer_folder, text_dropout
        self.text: TextTokenizer | None = None
        self.fingerprint: str | None = None
        self.track_average()

    @property
    def network(self) -> Prior:
        return self.prior

    def setup(self, stage: str) -> None:
        """Open the tokenizer, compare it with the prior, learn text pieces where there are none."""
        tokenizer = load_module(Path(self.tokenizer_folder) / "tokenizer")
        codes, own = self.prior.vocabulary.codebook_size, tokenizer.fingerprint()
        if tokenizer.codebook_size != codes:
            raise ValueError(
                f"the prior has codebook_size {codes}, but the tokenizer in "
                f"{self.tokenizer_folder} has {tokenizer.codebook_size}; set it to that"
            )
        if self.fingerprint not in (None, own):
            raise ValueError(
                f"the prior was trained with the tokenizer {self.fingerprint}, but the one in "
                f"{self.tokenizer_folder} is {own}; give the folder that belongs to it"
            )
        # Outside the module tree: not saved, not averaged, not trained, always in eval mode.
        tokenizer.requires_grad_(False)
        object.__setattr__(
            self, "tokenizer", tokenizer.to(self.trainer.strategy.root_device).eval()
        )
        self.fingerprint = own
        data = getattr(self.trainer, "datamodule", None)
        if self.text is None and isinstance(data, VideoDataModule) and data.train.captions:
            text_size = self.prior.vocabulary.text_size
            self.text = TextTokenizer.train(data.train.captions, text_size)

    def objective(self, batch: Batch) -> Objective:
        tokens, texts = self._read(batch)
        generator = torch.Generator().manual_seed(int(self.steps_done))
        drop = torch.rand(len(texts), generator=generator) < self.text_dropout
        return Objective(self.prior.loss(tokens, texts, drop, generator), {})

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        tokens, texts = self._read(batch)
        generator = torch.Generator().manual_seed(batch_idx)
        with self.ema.applied(self.prior), autocast(self.device):
            nats = self.prior.loss(tokens, texts, generator=generator)
            if batch_idx == 0:
                self._log_pictures(texts[:4], tokens[:4])
        bits = nats / math.log(2)
        name = f"val/{self.prior.measure}"
        self.log(name, bits, prog_bar=True, batch_size=len(texts), sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        model = self.text.model if self.text is not None else b""
        checkpoint["text"] = torch.frombuffer(bytearray(model or b"\0"), dtype=torch.uint8)
        checkpoint["tokenizer_fingerprint"] = self.fingerprint

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        model = checkpoint["text"].numpy().tobytes()
        self.text = TextTokenizer(model) if len(model) > 1 else None
        self.fingerprint = checkpoint["tokenizer_fingerprint"]

    @torch.no_grad()
    def _read(self, batch: Batch) -> tuple[Int[Tensor, "B t h w"], Texts]:
        tokens = self.tokenizer.encode(batch.clip)
        if self.text is None:
            return tokens, [[] for _ in batch.captions]
        return tokens, [self.text.encode(caption) for caption in batch.captions]

    def _log_pictures(self, texts: Texts, tokens: Tensor) -> None:
        generators = [torch.Generator().manual_seed(i) for i in range(len(texts))]
        sampled = self.prior.sample(texts, generators, num_latent_frames=tokens.shape[1])
        clips = [to_uint8(self.tokenizer.decode(part).float()) for part in (tokens, sampled)]
        rows = rearrange(clips, "two b t h w c -> (b two) t h w c")
        log_clips(self.loggers, "val/truth_above_sample", rows, int(self.steps_done))
