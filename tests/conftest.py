import warnings
from collections.abc import Callable

import pytest
import torch

import train
from lm import AutoregressivePrior, Inputs, TextTokenizer, Transformer
from pipeline import VideoPipeline
from tokenizer import FSQ, Tokenizer

QUIET = [
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.logger=false",
    "--data.val_clips=2",
]
"""Options that keep a training short and silent."""

SMALL = [
    "--model.init_args.tokenizer.channels=[16, 32]",
    "--model.init_args.tokenizer.encoder_depths=[1, 1]",
    "--model.init_args.tokenizer.decoder_depths=[1, 1]",
    "--data.stages=[{num_frames: 1, batch_size: 4, share: 0.5}, "
    "{num_frames: 5, batch_size: 2, share: 0.5}]",
]
"""Options that make the demo's tokenizer tiny."""


@pytest.fixture
def tiny_tokenizer() -> Tokenizer:
    """A tokenizer of the demo's shape in small, with every parameter away from its start."""
    torch.manual_seed(0)
    tokenizer = Tokenizer(
        FSQ([8, 5, 5]), channels=[16, 32], encoder_depths=[1, 1], decoder_depths=[1, 1]
    )
    with torch.no_grad():
        for p in tokenizer.parameters():
            p.add_(0.05 * torch.randn_like(p))
    tokenizer.calibrate(torch.rand(4, 3, 5, 32, 32) * 2 - 1)
    return tokenizer.eval()


@pytest.fixture
def clip() -> torch.Tensor:
    return torch.rand(1, 3, 17, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture
def fit() -> Callable[..., None]:
    """Train by the command line of a YAML, quietly."""

    def run(config: str, *arguments: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # Lightning warns of few workers and of its own imports.
            train.main(["fit", f"--config=configs/{config}.yaml", *QUIET, *arguments])

    return run


@pytest.fixture
def small() -> list[str]:
    return SMALL


@pytest.fixture
def pipe(tiny_tokenizer: Tokenizer) -> VideoPipeline:
    """An untrained model of the demo's shape in small."""
    torch.manual_seed(0)
    prior = AutoregressivePrior(
        Transformer(width=32, depth=2, num_heads=2), codebook_size=200, grid=[5, 4, 4]
    )
    text = TextTokenizer.train(["a red circle moving left", "a blue square moving up"], 320)
    return VideoPipeline(tiny_tokenizer, size=32, fps=8.0, prior=prior, text=text)


@pytest.fixture
def new_pipe() -> Callable[..., VideoPipeline]:
    """Build an untrained model of some tasks, with every parameter away from its start."""

    def build(tokenizer, tasks, kind=AutoregressivePrior, **inputs) -> VideoPipeline:
        torch.manual_seed(0)
        prior = kind(
            Transformer(width=32, depth=1, num_heads=2),
            codebook_size=200,
            grid=[3, 4, 4],
            inputs=Inputs(tasks, **inputs),
        )
        with torch.no_grad():
            for p in prior.parameters():
                p.add_(0.1 * torch.randn_like(p))
        text = TextTokenizer.train(["a red circle moving left", "a blue square moving up"], 320)
        return VideoPipeline(tokenizer, 32, 8.0, prior, text, classes=["cat", "dog"])

    return build
