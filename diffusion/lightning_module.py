"""Training of a diffusion decoder on the tokens of a frozen tokenizer: wiring and logs."""

import copy
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from data.datamodule import Batch
from data.video import to_uint8
from diffusion.adapters import add_adapters, merged
from diffusion.condition import Texts
from diffusion.decoder import DiffusionDecoder
from diffusion.distillation import distillation_loss
from diffusion.inflation import freeze_space, inflate, require_alike
from evaluation.pixel import FramePSNR
from layers.processes import all_rows
from layers.resizing import enlarged, reduced
from layers.storage import TEXT, load_module, read_manifest
from lm.text import TextTokenizer
from tokenizer import Tokenizer
from training.ema import EMA
from training.module import Objective, Recipe, TrainedModule
from training.pictures import log_clips
from training.precision import autocast

VAL_STEPS = 8  # of the sampler at most, for the pictures and their PSNR


class Windowed(NamedTuple):
    """A window of training clips and what is known of it: arguments of `DiffusionDecoder.loss`."""

    clip: Float[Tensor, "B 3 T H W"]
    tokens: Int[Tensor, "B t h w"]
    base: Float[Tensor, "B 3 T H W"]
    generator: torch.Generator
    texts: Texts | None
    control: Float[Tensor, "B K T H W"] | None


class DiffusionDecoderModule(TrainedModule):
    """Trains a `DiffusionDecoder`; clips are encoded on the fly by a tokenizer that never changes.

    Args:
        decoder: The network and what is around it.
        tokenizer_folder: Model folder of the trained tokenizer; opened when training starts.
        max_steps: Steps of the whole run.
        recipe: How the network is optimised.
        start_from: Model folder whose diffusion decoder a new run starts from, to finetune it on a
            few clips for example; that of a decoder for images is inflated.
        trained: Which part learns: "temporal" leaves the layers for space as they are, "control"
            all but what reads the control.
        adapter_rank: Train adapters of this rank in the network instead of its weights, with
            `trained` all; the model folder has them merged. Muon's usual rate breaks a decoder by
            them, a tenth does not. 0 trains the weights.
    """

    tokenizer: Tokenizer

    def __init__(
        self,
        decoder: DiffusionDecoder,
        tokenizer_folder: str,
        max_steps: int,
        recipe: Recipe = Recipe(),
        start_from: str | None = None,
        trained: Literal["all", "temporal", "control"] = "all",
        adapter_rank: int = 0,
    ) -> None:
        super().__init__(max_steps, recipe)
        self.save_hyperparameters()
        if (trained != "all" or adapter_rank) and start_from is None:
            raise ValueError(
                f"trained is {trained} with adapter_rank {adapter_rank}, so the rest must come "
                "from somewhere; set start_from to the model folder of a trained diffusion decoder"
            )
        if trained != "all" and adapter_rank:
            raise ValueError(
                f"trained is {trained}, but adapters of rank {adapter_rank} are in all of the "
                "network; set adapter_rank to 0, or trained to all"
            )
        if trained == "control" and decoder.control is None:
            raise ValueError("trained is control, but the decoder has none; set control")
        self.decoder, self.tokenizer_folder, self.start_from = decoder, tokenizer_folder, start_from
        self.adapter_rank = adapter_rank
        if trained == "temporal":
            freeze_space(decoder)
        if trained == "control" or adapter_rank:
            decoder.requires_grad_(False)
        if adapter_rank:
            add_adapters(decoder.network, adapter_rank)
        if trained == "control" and decoder.control is not None:
            decoder.control.requires_grad_(True)
        self.text: TextTokenizer | None = None
        self.track_average()
        self.val_psnr, self.val_psnr_cnn = FramePSNR(), FramePSNR()

    @property
    def network(self) -> DiffusionDecoder:
        return self.decoder

    def setup(self, stage: str) -> None:
        """Open the tokenizer, and the text pieces of a decoder that reads text."""
        tokenizer = load_module(Path(self.tokenizer_folder) / "tokenizer")
        decoder = self.decoder
        if decoder.text is not None:
            self.text = self._read_pieces()
            if self.text.vocabulary_size > decoder.text.text_size:
                raise ValueError(
                    f"the decoder has text_size {decoder.text.text_size}, but the prior reads "
                    f"{self.text.vocabulary_size} pieces; set it to that"
                )
        # Outside the module tree: not saved, not averaged, not trained, always in eval mode.
        tokenizer.requires_grad_(False)
        object.__setattr__(
            self, "tokenizer", tokenizer.to(self.trainer.strategy.root_device).eval()
        )

    def _read_pieces(self) -> TextTokenizer:
        """Return the text pieces of the prior, whose vocabulary the decoder shares."""
        path = Path(self.tokenizer_folder) / "prior" / TEXT
        if not path.is_file():
            raise ValueError(
                f"the decoder reads text, but {path} does not exist; give the folder of a model "
                "whose prior was trained with captions, or leave text_size out"
            )
        return TextTokenizer(path.read_bytes())

    def on_fit_start(self) -> None:
        """Give a new run the weights it starts from; see that the tokenizer is the right one."""
        if self.start_from is not None and self.step == 0:
            read_manifest(Path(self.start_from))
            source = load_module(Path(self.start_from) / "decoder")
            require_alike(source, self.decoder)
            self._require_trained_control(source)
            inflate(source, self.decoder)
            self.ema.load_state_dict(EMA(self.decoder).state_dict())
        self.decoder.attach(self.tokenizer)

    def _require_trained_control(self, source: DiffusionDecoder) -> None:
        """Raise ValueError where a control is new and would stay without effect."""
        control = self.decoder.control
        if control is None or source.control is not None:
            return
        if not any(p.requires_grad for p in control.parameters()):
            raise ValueError(
                f"control is {control.kind!r}, which the decoder to start from has not, and "
                "neither adapters nor trained: temporal train it, so that it would steer nothing; "
                "leave it out, or train it first with trained: control"
            )

    def exported(self) -> DiffusionDecoder:
        """Return the decoder without adapters."""
        return merged(self.decoder) if self.adapter_rank else self.decoder

    def on_validation_start(self) -> None:
        self.decoder.attach(self.tokenizer)

    def objective(self, batch: Batch) -> Objective:
        window = self._window(batch, self.noise_seed)
        if not self.decoder.calibrated:
            self.decoder.calibrate(all_rows(window.clip), all_rows(window.base))
        return Objective(self.loss_of(window), {})

    def loss_of(self, window: Windowed) -> Float[Tensor, ""]:
        """Return what is minimised."""
        return self.decoder.loss(*window)

    @torch.no_grad()
    def _window(self, batch: Batch, seed: int) -> Windowed:
        """Encode clips, corrupt their tokens, decode these, and cut out a window."""
        generator, decoder = torch.Generator().manual_seed(seed), self.decoder
        small = reduced(batch.clip, *decoder.enlarge)
        tokens = decoder.corrupt(self.tokenizer.encode(small), generator)
        base = torch.zeros_like(batch.clip)
        if decoder.use != "none":
            base = enlarged(self.tokenizer.decode(tokens).float(), *decoder.enlarge)
        size, stride = min(decoder.window, tokens.shape[1]), decoder.temporal_stride
        first = int(torch.randint(tokens.shape[1] - size + 1, (), generator=generator))
        frames = slice(stride * first, stride * (first + size - 1) + 1)
        return Windowed(
            batch.clip[:, :, frames],
            tokens[:, first : first + size],
            base[:, :, frames],
            generator,
            self._texts(batch.captions),
            decoder.control.pictures(batch.clip[:, :, frames]) if decoder.control else None,
        )

    def _texts(self, captions: list[str]) -> Texts | None:
        """Return the pieces of captions, as many as fit, for a decoder that reads text."""
        if self.text is None or self.decoder.text is None:
            return None
        window = self.decoder.text.text_window
        return [self.text.encode(caption)[:window] for caption in captions]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        with self.ema.applied(self.decoder), autocast(self.device):
            loss = self.loss_of(self._window(batch, batch_idx))
            self.log("val/loss", loss, batch_size=len(batch.clip), sync_dist=True)
            if batch_idx == 0:
                self._compare(batch.clip[:4], self._texts(batch.captions[:4]))

    def on_validation_epoch_end(self) -> None:
        for name, metric in (("psnr", self.val_psnr), ("psnr_cnn", self.val_psnr_cnn)):
            self.log(f"val/{name}", metric.compute(), prog_bar=True)
            metric.reset()

    def _compare(self, clip: Float[Tensor, "B 3 T H W"], texts: Texts | None) -> None:
        """Decode a few clips by both decoders."""
        tokens = self.tokenizer.encode(reduced(clip, *self.decoder.enlarge))
        plain = enlarged(self.tokenizer.decode(tokens).float(), *self.decoder.enlarge)
        control = self.decoder.control.pictures(clip) if self.decoder.control else None
        steps = min(VAL_STEPS, self.decoder.steps)
        sampled = self.decoder.decode(tokens, steps=steps, texts=texts, control=control)
        truth, cnn, ours = (to_uint8(x.clamp(-1, 1)) for x in (clip, plain, sampled))
        self.val_psnr.update(ours, truth)
        self.val_psnr_cnn.update(cnn, truth)
        rows = rearrange([truth, cnn, ours], "three b t h w c -> (b three) t h w c")
        log_clips(self.loggers, "val/truth_above_cnn_above_sample", rows, self.step)


class DistillationModule(DiffusionDecoderModule):
    """Trains a decoder to sample in fewer steps, as its teacher does in twice as many.

    Args:
        decoder: With the arguments of the one in `start_from`.
        tokenizer_folder: Model folder of the trained tokenizer.
        max_steps: Steps of the whole run, divided evenly among the rounds.
        start_from: Model folder whose diffusion decoder is the first teacher.
        rounds: Steps of the student in each round, each half of those before; in the next round
            the student is the teacher. The decoder's own `steps` become those of the last.
        recipe: How the network is optimised.
    """

    def __init__(
        self,
        decoder: DiffusionDecoder,
        tokenizer_folder: str,
        max_steps: int,
        start_from: str,
        rounds: list[int] | None = None,
        recipe: Recipe = Recipe(),
    ) -> None:
        rounds = rounds or [32, 16, 8]
        if any(before != 2 * after for before, after in pairwise(rounds)) or min(rounds) < 1:
            raise ValueError(f"rounds is {rounds}, but each must be half of the one before")
        decoder.take_steps(rounds[-1])
        super().__init__(decoder, tokenizer_folder, max_steps, recipe, start_from)
        self.rounds = rounds
        self.teacher = copy.deepcopy(decoder).requires_grad_(False)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.step == 0:
            self.teacher.load_state_dict(self.decoder.state_dict())

    def loss_of(self, window: Windowed) -> Float[Tensor, ""]:
        return distillation_loss(self.decoder, self.teacher, self.rounds[self._round], *window)

    def objective(self, batch: Batch) -> Objective:
        if self.step > 0 and self._round_at(self.step) != self._round_at(self.step - 1):
            with self.ema.applied(self.decoder):
                self.teacher.load_state_dict(self.decoder.state_dict())
        return super().objective(batch)

    @property
    def _round(self) -> int:
        """Return the round of this step; validation looks at the one that was done last."""
        return self._round_at(self.step if self.training else max(0, self.step - 1))

    def _round_at(self, step: int) -> int:
        return step * len(self.rounds) // self.max_steps
