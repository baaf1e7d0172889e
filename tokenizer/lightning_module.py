"""Training of a tokenizer: wiring and logs, no mathematics."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from data.datamodule import Batch, VideoDataModule
from data.video import to_uint8
from evaluation.codebook import CodebookUsage
from evaluation.pixel import FramePSNR
from layers.configurable import build
from layers.processes import all_rows
from tokenizer.bottleneck import Quantized, Quantizer
from tokenizer.discriminator import Adversary
from tokenizer.losses import balanced_loss, quantizer_weight, reconstruction_loss
from tokenizer.model import Tokenizer
from tokenizer.perceptual import LPIPS, Perceptual
from tokenizer.stages import Trained, freeze, start, take_name
from training.ema import EMA
from training.module import Objective, Recipe, TrainedModule
from training.pictures import log_clips
from training.precision import autocast


class TokenizerModule(TrainedModule):
    """Trains a `Tokenizer` to reconstruct clips.

    Args:
        tokenizer: The network.
        max_steps: Steps of the whole run.
        square_weight: Weight of the squared error beside the absolute one.
        recipe: How the network is optimised.
        perceptual: The perceptual loss, off without its weights.
        adversary: What the tokenizer is trained against, from some step on.
        quantizer_anneal_steps: Steps over which the quantizer's loss falls from 3 times its weight.
        start_from: Model folder whose tokenizer a new run starts from; that of an image tokenizer
            is inflated.
        trained: Which part learns. `decoder` is a second stage, at higher resolution for example:
            the tokens stay what they are. `temporal` is what inflation adds to an image tokenizer.
        keep_activations: Keep what a gradient needs, or compute it twice to save memory.
    """

    adversary: Adversary | None
    lpips: LPIPS | None = None

    def __init__(
        self,
        tokenizer: Tokenizer,
        max_steps: int,
        square_weight: float = 1.0,
        recipe: Recipe = Recipe(),
        perceptual: Perceptual = Perceptual(),
        adversary: Adversary | None = None,
        quantizer_anneal_steps: int = 0,
        start_from: str | None = None,
        trained: Trained = "all",
        keep_activations: bool = True,
    ) -> None:
        super().__init__(max_steps, recipe, adversary)
        self.save_hyperparameters()
        if trained != "all" and start_from is None:
            raise ValueError(
                f"trained is {trained}, so the rest must come from somewhere; set start_from to "
                "the model folder of a trained tokenizer"
            )
        if recipe.compile and adversary is not None and trained == "temporal":
            raise ValueError(
                "the last layer that temporal trains lies in what compile compiles, but the "
                "adversary's weight needs its gradient twice; leave compile out"
            )
        if adversary is not None and adversary.start_step >= max_steps:
            raise ValueError(
                f"the adversary starts at step {adversary.start_step}, but the run has "
                f"{max_steps}; start it earlier, or leave it out"
            )
        if quantizer_anneal_steps < 0:
            raise ValueError(
                f"quantizer_anneal_steps is {quantizer_anneal_steps}, but must be 0 or more"
            )
        self.tokenizer = tokenizer
        self.square_weight, self.perceptual = square_weight, perceptual
        self.quantizer_anneal_steps = quantizer_anneal_steps
        self.start_from = start_from
        self.trained: Trained = trained
        freeze(tokenizer, trained)
        tokenizer.keep_activations(keep_activations)
        self.track_average()
        self.val_psnr = FramePSNR()
        quantizer = tokenizer.quantizer
        discrete = isinstance(quantizer, Quantizer)
        self.val_codes = CodebookUsage(quantizer.codebook_size) if discrete else None
        self.train()

    @property
    def network(self) -> Tokenizer:
        return self.tokenizer

    def train(self, mode: bool = True) -> "TokenizerModule":
        """Set the mode; what decides the tokens stays in eval mode where they must not change."""
        super().train(mode)
        if self.trained == "decoder":
            self.tokenizer.encoder.eval()
            self.tokenizer.quantizer.eval()
        return self

    def setup(self, stage: str) -> None:
        """Raise ValueError where the tokenizer does not take the clips of the data."""
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, VideoDataModule):
            for part in data.stages:
                self.tokenizer.num_latent_frames(part.num_frames)
                side = data.side(part)  # which reads a clip
                self.tokenizer.check_clip(torch.zeros(1, 3, 1, side, side))
                if self.adversary is not None:
                    self.adversary.check_size(side, side)

    def on_fit_start(self) -> None:
        """Give a new run the weights it starts from; open those of the perceptual loss."""
        if self.start_from is not None and self.step == 0:
            start(self.tokenizer, Path(self.start_from), self.trained)
            self.ema.load_state_dict(EMA(self.tokenizer).state_dict())
        lpips = self.perceptual.load()
        if lpips is None:
            rank_zero_info("the perceptual loss is off: perceptual.vgg_file names no weights")
        # Outside the module tree: not saved, not trained.
        object.__setattr__(self, "lpips", lpips and lpips.to(self.device))

    def on_train_start(self) -> None:
        """Fit a new tokenizer to clips: a first stage of single frames has nothing that moves."""
        super().on_train_start()
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, VideoDataModule) and not self.tokenizer.calibrated:
            with autocast(self.device):
                self.tokenizer.calibrate(data.typical_clips().to(self.device))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["tokenizer"] = self.tokenizer.config

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if self.trained == "decoder" and "tokenizer" in checkpoint:  # older ones have none
            with torch.device("meta"):
                source = build(checkpoint["tokenizer"])
            take_name(self.tokenizer, source, "the checkpoint")

    def objective(self, batch: Batch) -> Objective:
        if not self.tokenizer.calibrated:
            self.tokenizer.calibrate(all_rows(batch.clip))
        clip, quantized = self.tokenizer(batch.clip)
        logs = {**quantized.stats, "quantizer": quantized.loss.detach()}
        if quantized.tokens is not None:
            used = quantized.tokens.unique().numel()
            logs["codes_used"] = clip.new_tensor(used / self.tokenizer.codebook_size)
        loss = self._distance(clip, batch.clip, logs)
        reply = None
        if self.adversary is not None and self.step >= self.adversary.start_step:
            loss = self._against(self.adversary, loss, clip, logs)
            reply = partial(self._reply_of, self.adversary, batch.clip, clip.detach())
        loss = loss + quantizer_weight(self.step, self.quantizer_anneal_steps) * quantized.loss
        return Objective(loss, logs, reply)

    def _distance(self, clip: Tensor, truth: Tensor, logs: dict[str, Tensor]) -> Tensor:
        """Return what the clip lacks by comparison with the truth."""
        loss = reconstruction_loss(clip, truth, self.square_weight)
        logs["reconstruction"] = loss.detach()
        if self.lpips is not None:
            perceptual = self.lpips(clip, truth)
            logs["perceptual"] = perceptual.detach()
            loss = loss + self.perceptual.weight * perceptual
        return loss

    def _against(
        self, adversary: Adversary, loss: Tensor, clip: Tensor, logs: dict[str, Tensor]
    ) -> Tensor:
        """Add the adversary's judgement of the clip to a loss."""
        adversarial, weight = adversary.generator_loss(clip), adversary.weight_at(self.step)
        trained = [p for p in self.tokenizer.decoder.parameters() if p.requires_grad and p.ndim > 1]
        loss, adaptive = balanced_loss(loss, adversarial, clip, trained[-1], weight)
        logs |= {"adversarial": adversarial.detach(), "adaptive_weight": adaptive}
        return loss

    def _reply_of(self, adversary: Adversary, real: Tensor, fake: Tensor) -> Objective:
        return Objective(*adversary.loss(real, fake, self.step))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        with self.ema.applied(self.tokenizer), autocast(self.device):
            result = self.tokenizer(batch.clip)
        truth, clip = to_uint8(batch.clip), to_uint8(result.clip.float())
        self.val_psnr.update(clip, truth)
        if self.val_codes is not None:
            self.val_codes.update(result.quantized.tokens)
        self._log_rate(result.quantized, batch.clip)
        if batch_idx == 0:
            self._log_pictures(truth[:4], clip[:4])

    def on_validation_epoch_end(self) -> None:
        self.log("val/psnr", self.val_psnr.compute(), prog_bar=True)
        self.val_psnr.reset()
        if self.val_codes is not None:
            usage = self.val_codes.compute()
            self.log("val/code_usage", usage.share, prog_bar=True)
            self.log("val/perplexity", usage.perplexity)
            self.val_codes.reset()

    def _log_rate(self, quantized: Quantized, clip: Tensor) -> None:
        """Log what a pixel costs: bits of its tokens as they are stored, nats of its latents."""
        per_pixel = quantized.latents[:, 0].numel() / clip[:, 0].numel()
        if self.val_codes is not None:
            rate = {"bits_per_pixel": math.log2(self.val_codes.codebook_size) * per_pixel}
        else:
            nats, active = quantized.stats["nats_per_latent"], quantized.stats["active_dims"]
            rate = {"nats_per_pixel": nats * per_pixel, "active_dims": active}
        rate = {f"val/{name}": x for name, x in rate.items()}
        self.log_dict(rate, batch_size=len(clip), sync_dist=True)

    def _log_pictures(self, truth: Tensor, clip: Tensor) -> None:
        rows = rearrange([truth, clip], "two b t h w c -> (b two) t h w c")
        log_clips(self.loggers, "val/truth_above_reconstruction", rows, self.step)
