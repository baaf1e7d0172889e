"""Training of a tokenizer: wiring and logs, no mathematics."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from data.datamodule import Batch
from data.video import to_uint8
from evaluation.codebook import CodebookUsage
from evaluation.pixel import FramePSNR
from tokenizer.losses import reconstruction_loss
from tokenizer.model import Tokenizer
from tokenizer.quantizers import Quantizer
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
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        max_steps: int,
        square_weight: float = 1.0,
        recipe: Recipe = Recipe(),
    ) -> None:
        super().__init__(max_steps, recipe)
        self.save_hyperparameters()
        self.tokenizer = tokenizer
        self.square_weight = square_weight
        self.track_average()
        self.val_psnr = FramePSNR()
        quantizer = tokenizer.quantizer
        discrete = isinstance(quantizer, Quantizer)
        self.val_codes = CodebookUsage(quantizer.codebook_size) if discrete else None

    @property
    def network(self) -> Tokenizer:
        return self.tokenizer

    def objective(self, batch: Batch) -> Objective:
        if not self.tokenizer.calibrated:
            self.tokenizer.calibrate(self._of_all_processes(batch.clip))
        clip, quantized = self.tokenizer(batch.clip)
        loss = reconstruction_loss(clip, batch.clip, self.square_weight) + quantized.loss
        logs = quantized.stats
        if quantized.tokens is not None:
            used = quantized.tokens.unique().numel()
            logs = {**logs, "codes_used": loss.new_tensor(used / self.tokenizer.codebook_size)}
        return Objective(loss, logs)

    def _of_all_processes(self, clip: Float[Tensor, "B 3 T H W"]) -> Float[Tensor, "B2 3 T H W"]:
        """Return the whole batch, so that every process computes the same from it."""
        gathered = self.all_gather(clip)
        assert isinstance(gathered, Tensor)
        return gathered.flatten(0, 1) if gathered.ndim > clip.ndim else gathered

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        with self.ema.applied(self.tokenizer), autocast(self.device):
            result = self.tokenizer(batch.clip)
        truth, clip = to_uint8(batch.clip), to_uint8(result.clip.float())
        self.val_psnr.update(clip, truth)
        if self.val_codes is not None:
            self.val_codes.update(result.quantized.tokens)
        if batch_idx == 0:
            self._log_pictures(truth[:4], clip[:4])

    def on_validation_epoch_end(self) -> None:
        self.log("val/psnr", self.val_psnr.compute(), prog_bar=True)
        self.val_psnr.reset()
        if self.val_codes is not None:
            self.log("val/code_usage", self.val_codes.compute().share, prog_bar=True)
            self.val_codes.reset()

    def _log_pictures(self, truth: Tensor, clip: Tensor) -> None:
        rows = rearrange([truth, clip], "two b t h w c -> (b two) t h w c")
        log_clips(self.loggers, "val/truth_above_reconstruction", rows, int(self.steps_done))
