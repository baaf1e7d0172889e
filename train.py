"""Train or validate a model: python train.py fit --config configs/demo_tokenizer.yaml.

The only place that knows Lightning's Trainer. The schema of a YAML is the constructor signatures of
the classes it names; every argument can be overridden on the command line.
"""

import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from data.container import VideoError
from data.datamodule import VideoDataModule
from data.shards import ShardError
from data.token_datamodule import TokenDataModule
from diffusion import DiffusionDecoderModule
from layers.storage import require_folder
from lm import LatentPriorModule, PriorModule
from model_folder import require_room, require_same_parts
from pipeline import VideoPipeline
from tokenizer import TokenizerModule
from training.checkpoints import Checkpoints
from training.module import TrainedModule
from training.progress import StepProgress

NOT_FOR_THE_USER = (
    r".*isinstance\(treespec, LeafSpec\)",  # of Lightning's own making
    r".*does not have many workers",  # reading in the training process is right on few cores
    r".*smaller than the logging interval",
    r".*in eval mode at the start of training",  # a part that a second stage must not change
    r".*resuming from a checkpoint that ended before the epoch",  # the order follows the step
)


class CLI(LightningCLI):
    """LightningCLI for the modules and data of this project; ends with a model folder."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Offer what the modules can do."""
        known = LightningCLI.subcommands()
        return {name: known[name] for name in ("fit", "validate")}

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Take videos, the default, or cached tokens as data."""
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        parser.set_defaults({f"trainer.{k}": v for k, v in self.trainer_defaults.items()})
        parser.add_lightning_class_args(self._model_class, "model", subclass_mode=True)
        parser.add_subclass_arguments((VideoDataModule, TokenDataModule), "data", required=True)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("model.init_args.max_steps", "data.init_args.max_steps")
        parser.add_argument("--export", type=str | None, help="model folder to write after fit")
        parser.add_lightning_class_args(Checkpoints, "checkpoints")
        parser.link_arguments("trainer.default_root_dir", "checkpoints.root")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add logs in files of two kinds, and a progress bar that knows the time left."""
        settings = self._get(self.config_init, "trainer", {})
        if isinstance(settings["val_check_interval"], int):  # a short run is looked at once
            max_steps = self._get(self.config, "model.init_args.max_steps")
            kwargs["val_check_interval"] = min(settings["val_check_interval"], max_steps)
        root = settings["default_root_dir"] or "runs"
        if settings["logger"] is None:
            csv = CSVLogger(root, name="csv", flush_logs_every_n_steps=10)
            kwargs["logger"] = [TensorBoardLogger(root), csv]
        if settings["enable_progress_bar"] is not False:
            kwargs["callbacks"] = [*(settings["callbacks"] or []), StepProgress()]
        return super().instantiate_trainer(**kwargs)

    def before_instantiate_classes(self) -> None:
        """Never unpickle a checkpoint, whatever is to be done with it."""
        if self.subcommand is not None:
            self.config[self.subcommand]["weights_only"] = True

    def before_fit(self) -> None:
        """Find the last checkpoint, where Lightning would start over; look where the model goes."""
        export, model = self.config.fit.export, self.model
        if export is not None:
            require_folder(Path(export))
        if export is not None and isinstance(model, DiffusionDecoderModule):
            require_same_parts(Path(export), Path(model.tokenizer_folder))
        elif export is not None:
            made = ["tokenizer"]
            if not isinstance(model, TokenizerModule):
                made.append("prior")
            if getattr(model, "guide_tokenizer_folder", None) is not None:
                made.append("guide_tokenizer")
            require_room(Path(export), made)
        self._find_last()

    def before_validate(self) -> None:
        """Look at the last checkpoint by default, where Lightning would at an untrained model."""
        self.config.validate.ckpt_path = self.config.validate.ckpt_path or "last"
        self._find_last()

    def _find_last(self) -> None:
        command = self.subcommand
        if command is None or self.config[command].ckpt_path != "last":
            return
        path = self._get(self.config_init, "checkpoints").path
        if not path.is_file():
            earlier = sorted(map(str, path.parent.glob("earlier*.ckpt")))
            remedy = {
                "fit": f"leave --ckpt_path out to start anew, or give one of {', '.join(earlier)}"
                if earlier
                else "leave --ckpt_path out to start from the beginning",
                "validate": "give --ckpt_path, or the --trainer.default_root_dir of the training",
            }
            raise SystemExit(
                f"train.py: --ckpt_path is last, but {path} does not exist; {remedy[command]}"
            )
        self.config_init[command]["ckpt_path"] = str(path)

    def after_fit(self) -> None:
        """Save the averaged weights as a model folder, once all steps are done."""
        folder, module, data = self.config.fit.export, self.model, self.datamodule
        if folder is None or not self.trainer.is_global_zero:
            return
        if module.step < module.max_steps:
            print(
                f"stopped at step {module.step} of {module.max_steps}, so no model is written; "
                "--ckpt_path last goes on, with --model.init_args.max_steps to this or another end"
            )
            return
        size = data.size
        with module.ema.applied(module.network):
            if isinstance(module, TokenizerModule):
                pipeline = VideoPipeline(module.tokenizer, size, data.train.fps)
            elif isinstance(module, DiffusionDecoderModule):
                pipeline = VideoPipeline.from_pretrained(module.tokenizer_folder)
                pipeline.decoder = module.exported()
            elif isinstance(module, LatentPriorModule):
                pipeline = VideoPipeline(
                    module.tokenizer, size, data.train.fps, module.prior, module.text
                )
            else:
                assert isinstance(module, PriorModule)
                pipeline = VideoPipeline(
                    module.tokenizer,
                    size,
                    data.train.fps,
                    module.prior,
                    module.text,
                    classes=module.classes,
                    guide_tokenizer=module.guide_tokenizer,
                    text_encoder=module.text_encoder,
                )
            pipeline.save_pretrained(folder)
        print(f"model written to {folder}")

    def _parse_ckpt_path(self) -> None:
        """Let what the user says now win over what a checkpoint has stored, when training goes on.

        The module warns of every difference; Lightning would silently take the stored values.
        """
        if self.config.get("subcommand") != "fit":
            super()._parse_ckpt_path()


def main(arguments: list[str] | None = None, *, run: bool = True) -> CLI:
    """Run the command line."""
    torch.set_float32_matmul_precision("high")
    with warnings.catch_warnings():
        for message in NOT_FOR_THE_USER:
            warnings.filterwarnings("ignore", message)
        return CLI(
            TrainedModule,
            VideoDataModule,
            run=run,
            subclass_mode_model=True,
            save_config_kwargs={"overwrite": True},
            # The module counts steps and stops; the data know their share of a distributed batch.
            trainer_defaults={
                "max_epochs": -1,
                "use_distributed_sampler": False,
                "devices": 1,  # more are a choice: each takes its share of every batch
                "accelerator": "cuda" if torch.cuda.is_available() else "cpu",
            },
            seed_everything_default=0,
            args=arguments,
        )


if __name__ == "__main__":
    try:
        main()
    except (ShardError, VideoError) as error:
        sys.exit(f"train.py: {error}")
