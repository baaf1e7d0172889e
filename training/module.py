"""What every Lightning module here shares: own step count, one optimizer, EMA, exact resume."""

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import lightning
import numpy
import torch
from jaxtyping import Float
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from training.ema import EMA
from training.optimizer import MuonAdamW, learning_rate_scale, split_parameters
from training.precision import autocast


class Objective(NamedTuple):
    """What a step minimises, and what it logs beside it."""

    loss: Float[Tensor, ""]
    logs: dict[str, Float[Tensor, ""]]


@dataclass(frozen=True)
class Recipe:
    """How a network is optimised.

    Args:
        learning_rate: Step of AdamW (embeddings, norms, biases, first and last layers).
        matrix_learning_rate: Step of Muon (hidden matrices).
        weight_decay: Decoupled, on everything.
        warmup_steps: Linear warm-up.
        decay_share: Share of the run over which the learning rate falls to 0 at the end.
        clip_norm: Largest norm of the gradient.
        ema_decay: Decay of the averaged weights, which validation and export use.
        max_bad_steps: Steps with a non-finite gradient are skipped; so many in a row are an error.
    """

    learning_rate: float = 1e-3
    matrix_learning_rate: float = 0.02
    weight_decay: float = 0.0
    warmup_steps: int = 20
    decay_share: float = 0.3
    clip_norm: float = 1.0
    ema_decay: float = 0.99
    max_bad_steps: int = 10


class TrainedModule(lightning.LightningModule, ABC):
    """A network, its objective and its optimizer.

    Lightning's `global_step` counts every optimizer and `max_steps` with it, so schedules and the
    end of the run follow `steps_done`, a buffer. A subclass names the network in `network` and
    computes `objective`.

    Args:
        max_steps: Steps of the whole run, over all interruptions.
        recipe: How the network is optimised.
    """

    steps_done: Tensor
    automatic_optimization: bool

    def __init__(self, max_steps: int, recipe: Recipe) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.max_steps, self.recipe, self.bad_steps = max_steps, recipe, 0
        self.register_buffer("steps_done", torch.tensor(0))

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """The part that is trained and averaged."""

    @abstractmethod
    def objective(self, batch: Any) -> Objective:
        """Compute the loss of one batch."""

    def track_average(self) -> None:
        """Start the averaged weights; called at the end of a subclass's constructor."""
        self.ema = EMA(self.network, self.recipe.ema_decay)

    def configure_optimizers(self) -> MuonAdamW:
        matrices, rest = split_parameters(self.network)
        return MuonAdamW(
            matrices,
            rest,
            matrix_learning_rate=self.recipe.matrix_learning_rate,
            learning_rate=self.recipe.learning_rate,
            weight_decay=self.recipe.weight_decay,
        )

    def on_train_start(self) -> None:
        self._stop_at_the_end()

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Do one step: loss, gradient, clipped update, averages, count."""
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        step, recipe = int(self.steps_done), self.recipe
        scale = learning_rate_scale(step, self.max_steps, recipe.warmup_steps, recipe.decay_share)
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * scale
        with autocast(self.device):
            loss, logs = self.objective(batch)
        optimizer.zero_grad()
        self.manual_backward(loss)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), recipe.clip_norm)
        if self._finite(norm):
            optimizer.step()
        self.ema.update(self.network, step)
        self.steps_done += 1
        self._stop_at_the_end()
        shown = {f"train/{name}": value for name, value in {"loss": loss.detach(), **logs}.items()}
        self.log_dict({**shown, "train/gradient_norm": norm}, prog_bar=False)
        self.log("loss", loss.detach(), prog_bar=True, logger=False)

    def _stop_at_the_end(self) -> None:
        if self.steps_done >= self.max_steps:
            self.trainer.should_stop = True

    def _finite(self, norm: Tensor) -> bool:
        if bool(norm.isfinite()):
            self.bad_steps = 0
            return True
        self.bad_steps += 1
        rank_zero_warn(f"step {int(self.steps_done)}: the gradient is not finite; step skipped")
        if self.bad_steps >= self.recipe.max_bad_steps:
            raise RuntimeError(
                f"{self.bad_steps} steps in a row had a gradient that is not finite; "
                "lower the learning rate or look at the data"
            )
        return False

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep every random state: a resumed run equals one that never stopped."""
        generator = numpy.random.get_state(legacy=False)
        assert isinstance(generator, Mapping)
        state = generator["state"]
        checkpoint["random"] = {
            "python": random.getstate(),
            "numpy": (torch.from_numpy(state["key"].astype("int64")), int(state["pos"])),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore every random state; say which arguments are not those of the checkpoint."""
        stored = _leaves(checkpoint.get("hyper_parameters", {}))
        for name, value in _leaves(self.hparams).items():
            if stored.get(name, value) != value:
                rank_zero_warn(
                    f"{name} is {value}, but the checkpoint was trained with {stored[name]}; "
                    "going on with the new value"
                )
        states = checkpoint["random"]
        random.setstate(states["python"])
        key, position = states["numpy"]
        numpy.random.set_state(("MT19937", key.numpy().astype("uint32"), position, 0, 0.0))
        torch.set_rng_state(states["torch"].cpu())
        if torch.cuda.is_available() and states["cuda"]:
            torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by their dotted names."""
    leaves = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            leaves |= _leaves(value, f"{prefix}{name}.")
        else:
            leaves[f"{prefix}{name}"] = value
    return leaves
