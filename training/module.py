"""What every Lightning module here shares: own step count, optimizers, EMA, exact resume."""

import os
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

import lightning
import numpy
import torch
from jaxtyping import Float
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

from layers.compiling import Compiled
from training.adversary import adversary_optimizer, average_gradients, turn_of
from training.ema import EMA
from training.guard import FiniteGuard
from training.optimizer import MuonAdamW, keep_settings, learning_rate_scale, split_parameters
from training.precision import autocast


class Objective(NamedTuple):
    """What a step minimises, and what it logs beside it.

    `reply` computes what the adversary minimises against this very step; None where there is no
    adversary, or not yet.
    """

    loss: Float[Tensor, ""]
    logs: dict[str, Float[Tensor, ""]]
    reply: "Callable[[], Objective] | None" = None


@dataclass(frozen=True)
class Recipe:
    """How a network is optimised.

    Args:
        learning_rate: Step of AdamW (embeddings, norms, biases, first and last layers).
        matrix_learning_rate: Step of Muon (hidden matrices).
        weight_decay: Decoupled, on everything.
        warmup_steps: Linear warm-up.
        decay_share: Share of the run over which the learning rate falls to 0 at the end.
        clip_norm: Largest norm of the gradient; .inf leaves it as it is.
        ema_decay: Decay of the averaged weights, which validation and export use.
        max_bad_steps: Steps with a non-finite gradient are skipped; so many in a row are an error.
        adversary_learning_rate: Step of the adversary's AdamW, where there is an adversary.
        compile: Compile the network for training steps by torch.compile. The first step with clips
            of a new size then takes up to minutes; on two CPU cores the others gain nothing.
    """

    learning_rate: float = 1e-3
    matrix_learning_rate: float = 0.02
    weight_decay: float = 0.0
    warmup_steps: int = 20
    decay_share: float = 0.3
    clip_norm: float = 1.0
    ema_decay: float = 0.99
    max_bad_steps: int = 10
    adversary_learning_rate: float = 2e-4
    compile: bool = False

    def __post_init__(self) -> None:
        if not self.clip_norm > 0:
            raise ValueError(
                f"clip_norm is {self.clip_norm}, which would leave nothing of a gradient; .inf "
                "does not clip"
            )
        for name, low, high in (
            ("learning_rate", 0, inf),
            ("matrix_learning_rate", 0, inf),
            ("adversary_learning_rate", 0, inf),
            ("weight_decay", 0, inf),
            ("warmup_steps", 0, inf),
            ("decay_share", 0, 1),
            ("ema_decay", 0, 1),
            ("max_bad_steps", 1, inf),
        ):
            if not low <= (value := getattr(self, name)) <= high:
                limits = f"{low} to {high}" if high < inf else f"{low} or more"
                raise ValueError(f"{name} is {value}, but must be {limits}")


class TrainedModule(lightning.LightningModule, ABC):
    """A network, its objective and its optimizer; beside them an adversary, where there is one.

    Lightning's `global_step` counts every optimizer and `max_steps` with it, so schedules and the
    end of the run follow `steps_done`, a buffer. A subclass names the network in `network` and
    computes `objective`.

    Args:
        max_steps: Steps of the whole run, over all interruptions.
        recipe: How the network is optimised.
        adversary: What is trained against the network, after it in each step.
    """

    steps_done: Tensor
    automatic_optimization: bool
    adversary: nn.Module | None

    def __init__(self, max_steps: int, recipe: Recipe, adversary: nn.Module | None = None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.max_steps, self.recipe = max_steps, recipe
        self.register_buffer("steps_done", torch.tensor(0))
        self.network_guard = FiniteGuard("network", recipe.max_bad_steps)
        self.adversary = adversary
        if adversary is not None:
            adversary.requires_grad_(False)
            self.adversary_guard = FiniteGuard("adversary", recipe.max_bad_steps)

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """The part that is trained and averaged."""

    @property
    def step(self) -> int:
        """Steps done so far, over all interruptions."""
        return int(self.steps_done)

    @property
    def noise_seed(self) -> int:
        """Seed of what this step draws in this process: of the run's seed and both numbers."""
        run = int(os.environ.get("PL_GLOBAL_SEED", "0"))  # where --seed_everything leaves it
        sequence = numpy.random.SeedSequence((run, self.step, self.global_rank))
        return int(sequence.generate_state(1, numpy.uint64)[0] >> numpy.uint64(1))

    @abstractmethod
    def objective(self, batch: Any) -> Objective:
        """Compute the loss of one batch."""

    def track_average(self) -> None:
        """Start the averaged weights; called at the end of a subclass's constructor."""
        self.ema = EMA(self.network, self.recipe.ema_decay)
        # Every process averages alike; DDP would send all buffers before each step.
        averages = [f"ema.{name}" for name, _ in self.ema.named_buffers()]
        self._ddp_params_and_buffers_to_ignore = averages

    def configure_optimizers(self) -> list[Optimizer]:
        matrices, rest = split_parameters(self.network)
        network = MuonAdamW(
            matrices,
            rest,
            matrix_learning_rate=self.recipe.matrix_learning_rate,
            learning_rate=self.recipe.learning_rate,
            weight_decay=self.recipe.weight_decay,
        )
        optimizers: list[Optimizer] = [network]
        if self.adversary is not None:
            rate = self.recipe.adversary_learning_rate
            optimizers.append(adversary_optimizer(self.adversary, rate))
        for optimizer in optimizers:
            keep_settings(optimizer)
        return optimizers

    def on_train_start(self) -> None:
        """Refuse a precision beside the module's own; stop at once where all steps are done."""
        if self.trainer.precision != "32-true":
            raise ValueError(
                f"trainer.precision is {self.trainer.precision}, but the module takes bfloat16 by "
                "itself where it is fast; leave precision out"
            )
        self.compiled = Compiled(self.network, self.recipe.compile)
        self._stop_at_the_end()

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Do one step: loss, gradient, clipped update, the adversary's turn, averages, count."""
        # Noise and dropout hang on step and process: each rank has its own, a resume the same.
        torch.manual_seed(self.noise_seed)
        network_optimizer, *others = self._scheduled_optimizers()
        with autocast(self.device), self.compiled.applied():
            loss, logs, reply = self.objective(batch)
        network_optimizer.zero_grad()
        self.manual_backward(loss)
        logs = {"loss": loss.detach(), **logs}
        logs["gradient_norm"] = self._update(network_optimizer, self.network_guard)
        logs["skipped_steps"] = self.network_guard.total.float()
        if reply is not None:
            logs |= self._reply(reply, *others)
        self.ema.update(self.network, self.step)
        self.steps_done += 1
        self._stop_at_the_end()
        self.log_dict({f"train/{name}": value for name, value in logs.items()}, prog_bar=False)
        self.log("loss", loss.detach(), prog_bar=True, logger=False)

    def _scheduled_optimizers(self) -> list[Any]:
        """Return all optimizers, with the learning rates of this step."""
        optimizers = self.optimizers()
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        recipe = self.recipe
        scale = learning_rate_scale(
            self.step, self.max_steps, recipe.warmup_steps, recipe.decay_share
        )
        for group in [group for optimizer in optimizers for group in optimizer.param_groups]:
            group["lr"] = group["base_lr"] * scale
        return optimizers

    def _reply(self, reply: Callable[[], Objective], optimizer: Any) -> dict[str, Tensor]:
        """Do the adversary's part of a step."""
        assert self.adversary is not None
        with turn_of(self.adversary):
            with autocast(self.device):
                loss, logs, _ = reply()
            optimizer.zero_grad()
            self.manual_backward(loss)
            average_gradients(self.adversary)
            norm = self._update(optimizer, self.adversary_guard)
        skipped = self.adversary_guard.total.float()
        logs = {"loss": loss.detach(), **logs, "gradient_norm": norm, "skipped_steps": skipped}
        return {f"adversary_{name}": value for name, value in logs.items()}

    def _update(self, optimizer: Any, guard: FiniteGuard) -> Float[Tensor, ""]:
        """Clip the gradient and apply it if it is finite; return its norm."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self.recipe.clip_norm)
        if guard.admits(norm, self.step):
            optimizer.step()
        return norm

    def _stop_at_the_end(self) -> None:
        if self.steps_done >= self.max_steps:
            self.trainer.should_stop = True

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
        if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
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
