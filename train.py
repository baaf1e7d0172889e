"""Train, validate or test a model: python train.py fit --config configs/demo_tokenizer.yaml.

The only place that knows Lightning's Trainer. The schema of a YAML is the constructor signatures of
the classes it names; every argument can be overridden on the command line.
"""

import torch
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

import data
import tokenizer  # noqa: F401
from training.module import TrainedModule


class CLI(LightningCLI):
    """LightningCLI for one kind of module and one kind of data."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("model.init_args.max_steps", "data.max_steps")


def main(arguments: list[str] | None = None) -> CLI:
    """Run the command line."""
    torch.set_float32_matmul_precision("high")
    return CLI(
        TrainedModule,
        data.VideoDataModule,
        subclass_mode_model=True,
        save_config_kwargs={"overwrite": True},
        seed_everything_default=0,
        args=arguments,
    )


if __name__ == "__main__":
    main()
