"""Train, validate or test a model: python train.py fit --config configs/demo_tokenizer.yaml.

The only place that knows Lightning's Trainer. The schema of a YAML is the constructor signatures of
the classes it names; every argument can be overridden on the command line.
"""

import torch
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from data import VideoDataModule
from lm import PriorModule
from pipeline import VideoPipeline
from tokenizer import TokenizerModule
from training.module import TrainedModule


class CLI(LightningCLI):
    """LightningCLI for the modules and data of this project; ends with a model folder."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("model.init_args.max_steps", "data.max_steps")
        parser.add_argument("--export", type=str | None, help="model folder to write after fit")

    def after_fit(self) -> None:
        """Save the averaged weights as a model folder."""
        folder, module, data = self.config.fit.export, self.model, self.datamodule
        if folder is None or not self.trainer.is_global_zero:
            return
        size = data.train.read(0, 1).frames.shape[1]
        with module.ema.applied(module.network):
            if isinstance(module, TokenizerModule):
                pipeline = VideoPipeline(module.tokenizer, size, data.train.fps)
            else:
                assert isinstance(module, PriorModule)
                tokenizer, prior = module.tokenizer, module.prior
                pipeline = VideoPipeline(tokenizer, size, data.train.fps, prior, module.text)
            pipeline.save_pretrained(folder)
        print(f"model written to {folder}")


def main(arguments: list[str] | None = None) -> CLI:
    """Run the command line."""
    torch.set_float32_matmul_precision("high")
    return CLI(
        TrainedModule,
        VideoDataModule,
        subclass_mode_model=True,
        save_config_kwargs={"overwrite": True},
        seed_everything_default=0,
        args=arguments,
    )


if __name__ == "__main__":
    main()
