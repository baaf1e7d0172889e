"""Training of a prior over the continuous latents of a frozen tokenizer: wiring and logs."""

import torch
from jaxtyping import Float
from torch import Tensor

from data.datamodule import Batch, VideoDataModule
from layers.processes import all_rows
from lm.condition import Condition, Texts
from lm.frozen import FrozenTokenizerModule
from lm.latent_prior import LatentPrior
from tokenizer import Tokenizer
from training.module import Objective, Recipe
from training.precision import autocast


class LatentPriorModule(FrozenTokenizerModule):
    """Trains a `LatentPrior`; clips are encoded on the fly by a tokenizer that never changes.

    Args:
        prior: The network and its objective.
        tokenizer_folder: Model folder of a trained tokenizer with a KL bottleneck.
        max_steps: Steps of the whole run.
        text_dropout: Share of clips whose text is left out, so that guidance works.
        recipe: How the network is optimised.
    """

    tokenizer: Tokenizer

    def __init__(
        self,
        prior: LatentPrior,
        tokenizer_folder: str,
        max_steps: int,
        text_dropout: float = 0.1,
        recipe: Recipe = Recipe(),
    ) -> None:
        super().__init__(tokenizer_folder, max_steps, prior.text_window, recipe)
        self.save_hyperparameters()
        self.prior, self.text_dropout = prior, text_dropout
        self.track_average()

    @property
    def network(self) -> LatentPrior:
        return self.prior

    def setup(self, stage: str) -> None:
        """Open the tokenizer, compare it with the prior, learn text pieces from the captions."""
        tokenizer = self.open_tokenizer()
        if not tokenizer.is_continuous:
            raise ValueError(
                f"the tokenizer in {self.tokenizer_folder} makes tokens, but this prior models "
                "continuous latents; train one with a KL bottleneck, or a prior over tokens"
            )
        if tokenizer.quantizer.dim != self.prior.channels:
            raise ValueError(
                f"the prior has channels {self.prior.channels}, but the tokenizer in "
                f"{self.tokenizer_folder} has {tokenizer.quantizer.dim}; set it to that"
            )
        self.hold("tokenizer", tokenizer)
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, VideoDataModule):
            self.learn_text(data.train.captions, self.prior.text_size)

    def objective(self, batch: Batch) -> Objective:
        latents, texts = self._read(batch)
        if not self.prior.calibrated:
            self.prior.calibrate(all_rows(latents))
        generator = torch.Generator().manual_seed(self.noise_seed)
        drop = torch.rand(len(texts), generator=generator) < self.text_dropout
        return Objective(self.prior.loss(latents, texts, drop, generator), {})

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        latents, texts = self._read(batch)
        generator, told = torch.Generator().manual_seed(batch_idx), torch.zeros(len(texts)).bool()
        with self.ema.applied(self.prior), autocast(self.device):
            loss = self.prior.loss(latents, texts, told, generator)
            self.log("val/loss", loss, prog_bar=True, batch_size=len(texts), sync_dist=True)
            if batch_idx == 0:
                self._log_pictures(latents[:4], texts[:4])

    def _log_pictures(self, latents: Float[Tensor, "B D t h w"], texts: Texts) -> None:
        generators = [torch.Generator().manual_seed(i) for i in range(len(texts))]
        sampled = self.prior.sample(
            Condition(texts), generators, num_latent_frames=latents.shape[2]
        )
        decode = self.tokenizer.decode_latents
        self.log_decoded(decode(latents), decode(sampled))

    @torch.no_grad()
    def _read(self, batch: Batch) -> tuple[Float[Tensor, "B D t h w"], Texts]:
        latents = self.tokenizer.encode_latents(batch.clip).latents.float()
        self.require_grid(latents.shape[2:], self.prior.grid)
        return latents, self.texts(batch.captions)
