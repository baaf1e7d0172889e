"""Training of a prior on the tokens of a frozen tokenizer: wiring and logs, no mathematics."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from data.datamodule import Batch, VideoDataModule
from data.token_datamodule import TokenBatch, TokenDataModule
from layers.storage import load_module
from lm.actions import by_latent_frame
from lm.autoregressive import AutoregressivePrior
from lm.captioning import caption_loss
from lm.condition import Condition
from lm.frozen import FrozenTokenizerModule
from lm.maskgit import MaskGITPrior
from lm.prior import Prior
from lm.tasks import (
    PIXEL_TASKS,
    TrainingTask,
    check_sliding,
    check_training,
    is_sliding,
    prior_task,
    training_guide,
)
from lm.text_encoder import T5TextEncoder
from lm.windows import windows_of
from tokenizer import FrameTokenizer, Tokenizer
from training.module import Objective, Recipe
from training.precision import autocast


class PriorModule(FrozenTokenizerModule):
    """Trains a prior; clips are encoded on the fly by a tokenizer that never changes.

    Args:
        prior: The network and its objective.
        tokenizer_folder: Model folder of the trained tokenizer; opened when training starts.
        max_steps: Steps of the whole run.
        text_dropout: Share of clips whose text is left out, so that guidance works.
        recipe: How the network is optimised.
        tasks: How often each task is trained; a step has one, drawn from (seed, step). It uses
            parameters of that task alone: several processes need the strategy
            ddp_find_unused_parameters_true.
        guide_tokenizer_folder: Model folder of the tokenizer of guides, where it is another one.
        single_frames: Encode every frame as an image of its own: a prior of key frames.
        seed: Decides which step has which task.
        text_encoder: Reads the prompts instead of pieces learnt from the captions.
    """

    tokenizer: Tokenizer | FrameTokenizer
    guide_tokenizer: Tokenizer | None

    def __init__(
        self,
        prior: AutoregressivePrior | MaskGITPrior,
        tokenizer_folder: str,
        max_steps: int,
        text_dropout: float = 0.1,
        recipe: Recipe = Recipe(),
        tasks: dict[TrainingTask, float] | None = None,
        guide_tokenizer_folder: str | None = None,
        single_frames: bool = False,
        seed: int = 0,
        text_encoder: T5TextEncoder | None = None,
    ) -> None:
        super().__init__(tokenizer_folder, max_steps, prior.text_window, recipe)
        self.save_hyperparameters()
        self.prior: Prior = prior
        self.text_dropout = text_dropout
        self.tasks: dict[TrainingTask, float] = {"generate": 1.0} if tasks is None else tasks
        self.guide_tokenizer_folder, self.single_frames = guide_tokenizer_folder, single_frames
        self.seed, self.text_encoder = seed, text_encoder
        check_training(self.tasks, prior.inputs)
        if guide_tokenizer_folder is None:
            codes = prior.vocabulary.codebook_size
            prior.inputs.check_guide_codes(codes, codes)
        self.classes: list[str] = []
        self.track_average()

    @property
    def network(self) -> Prior:
        return self.prior

    def setup(self, stage: str) -> None:
        """Open the tokenizers, compare them with the prior, learn text pieces and classes."""
        tokenizer = self.open_tokenizer()
        tokenizer = FrameTokenizer(tokenizer) if self.single_frames else tokenizer
        codes = self.prior.vocabulary.codebook_size
        if tokenizer.codebook_size != codes:
            raise ValueError(
                f"the prior has codebook_size {codes}, but the tokenizer in "
                f"{self.tokenizer_folder} has {tokenizer.codebook_size}; set it to that"
            )
        self._check_text_encoder()
        if self.text_encoder is not None:
            self.text_encoder.to(self.trainer.strategy.root_device)
        self.hold("tokenizer", tokenizer)
        self.hold("guide_tokenizer", self._open_guide_tokenizer())
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, TokenDataModule):
            data.train.require(self.fingerprints["tokenizer"])
            if pixels := [task for task in self.tasks if task in PIXEL_TASKS]:
                raise ValueError(
                    f"the tasks {pixels} are made of pixels, but the data are tokens; "
                    "train them on videos"
                )
        if isinstance(data, VideoDataModule | TokenDataModule):
            self._learn_captions(data.train.captions)
            if self.prior.slides:
                window = self.tokenizer.num_frames(self.prior.grid[0])
                check_sliding(self.tasks, self.prior.inputs, data.num_frames, window)

    def _check_text_encoder(self) -> None:
        encoder, inputs = self.text_encoder, self.prior.inputs
        own = (0, 0) if encoder is None else (encoder.width, encoder.window)
        if own != (inputs.state_size, inputs.state_window):
            raise ValueError(
                f"the text encoder makes {own[1]} states of {own[0]} numbers, but the prior's "
                f"inputs have state_window {inputs.state_window} and state_size "
                f"{inputs.state_size}; set them to that"
            )

    def _open_guide_tokenizer(self) -> Tokenizer | None:
        if self.guide_tokenizer_folder is None:
            return None
        tokenizer = load_module(Path(self.guide_tokenizer_folder) / "tokenizer")
        codes = self.prior.inputs.guide_codebook_size
        if tokenizer.codebook_size != codes:
            raise ValueError(
                f"the prior has guide_codebook_size {codes}, but the tokenizer in "
                f"{self.guide_tokenizer_folder} has {tokenizer.codebook_size}; set it to that"
            )
        return tokenizer

    def _learn_captions(self, captions: list[str]) -> None:
        self.learn_text(captions, self.prior.vocabulary.text_size)
        if not self.classes and self.prior.inputs.num_classes:
            self.classes = sorted(set(captions))
        if len(self.classes) > self.prior.inputs.num_classes:
            raise ValueError(
                f"the captions name {len(self.classes)} classes, but the prior has num_classes "
                f"{self.prior.inputs.num_classes}; set it to that"
            )
        if "caption" in self.tasks and self.text is None:
            raise ValueError("the task caption needs captions; give clips that have them")

    def task_of(self, step: int) -> TrainingTask:
        """Return the task of a step."""
        names, weights = list(self.tasks), np.array(list(self.tasks.values()))
        drawn = np.random.default_rng((self.seed, step)).random() * weights.sum()
        return names[int(np.searchsorted(weights.cumsum(), drawn, side="right"))]

    def objective(self, batch: Batch | TokenBatch) -> Objective:
        task = self.task_of(self.step)
        # All processes have one task, and each its own masks and drops.
        generator = torch.Generator().manual_seed(self.noise_seed)
        given = None
        if self._slides(task):
            tokens, given = windows_of(self._tokens(batch), self.prior.grid[0], generator)
        else:
            batch = self._first_window(batch)
            tokens = self._tokens(batch)
        loss = self._loss(batch, tokens, task, generator, self.text_dropout, given)
        return Objective(loss, {f"loss_{task}": loss.detach()} if len(self.tasks) > 1 else {})

    def validation_step(self, batch: Batch | TokenBatch, batch_idx: int) -> None:
        with self.ema.applied(self.prior), autocast(self.device):
            whole, stream = batch, self._tokens(batch)
            # The tokenizer is causal: those of the first window begin those of the whole clip.
            batch, tokens = self._first_window(batch), stream[:, : self.prior.grid[0]]
            for number, task in enumerate(self.tasks):
                generator = torch.Generator().manual_seed(batch_idx)
                measure = "bits_per_piece" if task == "caption" else self.prior.measure
                names = [f"{task}_{measure}" if number else measure]
                losses = [self._loss(batch, tokens, task, generator, 0.0)]
                if self._slides(task):
                    cut, given = windows_of(stream, self.prior.grid[0], generator)
                    names.append(f"{task}_sliding_{measure}")
                    losses.append(self._loss(whole, cut, task, generator, 0.0, given))
                bits = {f"val/{n}": one / math.log(2) for n, one in zip(names, losses, strict=True)}
                count = len(batch.captions)
                self.log_dict(bits, prog_bar=not number, batch_size=count, sync_dist=True)
            if batch_idx == 0:
                self._log_pictures(batch)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["classes"] = self.classes

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.classes = checkpoint.get("classes", [])

    def _loss(
        self,
        batch: Batch | TokenBatch,
        tokens: Int[Tensor, "B t h w"],
        task: TrainingTask,
        generator: torch.Generator,
        dropout: float,
        given: Int[Tensor, " B"] | None = None,
    ) -> Float[Tensor, ""]:
        """Return the loss of one task on a batch and its tokens, in nats."""
        if task == "caption":
            assert isinstance(self.prior, AutoregressivePrior)
            return caption_loss(self.prior, tokens, self.texts(batch.captions))
        drop = torch.rand(len(tokens), generator=generator) < dropout if dropout else None
        condition = self._condition(batch, task, tokens.shape[1], generator)
        return self.prior.loss(tokens, condition, drop, generator, given)

    def _slides(self, task: TrainingTask) -> bool:
        return self.prior.slides and is_sliding(task, self.prior.inputs)

    def _first_window(self, batch: Batch | TokenBatch) -> Batch | TokenBatch:
        """Return clips as long as the prior's window, where it slides over longer ones."""
        if not self.prior.slides:
            return batch
        latents = self.prior.grid[0]
        return batch.start(self.tokenizer.num_frames(latents), latents)

    @torch.no_grad()
    def _tokens(self, batch: Batch | TokenBatch) -> Int[Tensor, "B t h w"]:
        cached = isinstance(batch, TokenBatch)
        tokens = batch.tokens if cached else self.tokenizer.encode(batch.clip)
        most = self.prior.grid[0] if self.prior.slides else tokens.shape[1]
        self.require_grid(tokens[:, :most].shape[1:], self.prior.grid)
        return tokens

    def _told(self, captions: list[str]) -> Condition:
        """Return captions as the prior reads them."""
        if self.text_encoder is None:
            return Condition(self.texts(captions))
        states = self.text_encoder.encode(captions, cut=True).to(self.device)
        return Condition([[] for _ in captions], states=states)

    @torch.no_grad()
    def _condition(
        self,
        batch: Batch | TokenBatch,
        task: TrainingTask,
        num_latent_frames: int,
        generator: torch.Generator,
    ) -> Condition:
        """Return what a task gives the prior, made of the batch itself."""
        features = self._features(batch, num_latent_frames)
        bare = Condition([[] for _ in batch.captions], features=features)
        told = replace(self._told(batch.captions), features=features)
        if task == "class":  # clips of a class never seen have none
            known = {name: number for number, name in enumerate(self.classes)}
            return replace(bare, classes=[known.get(caption) for caption in batch.captions])
        if isinstance(batch, TokenBatch):
            return told
        if task == "rollout":
            return replace(bare, actions=self._actions(batch))
        encode = (self.guide_tokenizer or self.tokenizer).encode
        guide = training_guide(task, batch.clip, encode, num_latent_frames, generator)
        return replace(told, task=prior_task(task), guide=guide)

    def _features(
        self, batch: Batch | TokenBatch, num_latent_frames: int
    ) -> Float[Tensor, "B t F"] | None:
        if not self.prior.inputs.feature_size:
            return None
        features = None if isinstance(batch, TokenBatch) else batch.features
        rows = 0 if features is None else features.shape[1]
        if rows != num_latent_frames:
            raise ValueError(
                f"the prior reads features, but the clips have {rows} rows of them for "
                f"{num_latent_frames} latent frames; train on videos whose source gives a row for "
                "each, or leave feature_size out"
            )
        return features

    def _actions(self, batch: Batch) -> Int[Tensor, "B t s A"]:
        if batch.actions is None:
            raise ValueError("the task rollout needs actions; train on clips that have them")
        bins = self.prior.inputs.bins(batch.actions)
        return by_latent_frame(bins, self.tokenizer.temporal_stride)

    def _log_pictures(self, batch: Batch | TokenBatch) -> None:
        """Show samples of the first task that makes clips."""
        shown: list[TrainingTask] = [task for task in self.tasks if task != "caption"]
        if not shown:
            return
        batch = batch.first(4)
        tokens = self._tokens(batch)
        generator = torch.Generator().manual_seed(0)
        condition = self._condition(batch, shown[0], tokens.shape[1], generator)
        generators = [torch.Generator().manual_seed(i) for i in range(len(tokens))]
        sampled = self.prior.sample(condition, generators, num_latent_frames=tokens.shape[1])
        self.log_decoded(self.tokenizer.decode(tokens), self.tokenizer.decode(sampled))
