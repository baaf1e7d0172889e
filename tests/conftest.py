import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jaxtyping
import lightning
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import train
from lm import AutoregressivePrior, Inputs, TextTokenizer, Transformer
from pipeline import VideoPipeline
from tokenizer import FSQ, KL, Tokenizer


class Largest(TorchDispatchMode):
    """Watches for the most numbers in one tensor made within it, backward passes included."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.size = max([self.size, *sizes])
        return result


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


def quiet_trainer(root: Path, **options: Any) -> lightning.Trainer:
    """Return a trainer on the CPU that writes nothing, for modules that count their own steps."""
    return lightning.Trainer(
        accelerator="cpu",
        max_epochs=-1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=root,
        **options,
    )


@pytest.fixture
def _without_types():
    """Run as a user does: without the checker of shapes that tests put before every function."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


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
def continuous() -> Tokenizer:
    """The same with a continuous bottleneck."""
    torch.manual_seed(0)
    tokenizer = Tokenizer(KL(3), channels=[16, 32], encoder_depths=[1, 1], decoder_depths=[1, 1])
    with torch.no_grad():
        for p in tokenizer.parameters():
            p.add_(0.05 * torch.randn_like(p))
    tokenizer.calibrate(torch.rand(4, 3, 5, 32, 32) * 2 - 1)
    return tokenizer.requires_grad_(False).eval()


@pytest.fixture
def clip() -> torch.Tensor:
    return torch.rand(1, 3, 17, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture
def largest() -> Largest:
    return Largest()


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
def trajectory() -> Callable[..., tuple[dict[str, np.ndarray], np.ndarray]]:
    """Draw frames of two cameras and actions, by a seed."""

    def draw(seed: int, num_frames: int = 5) -> tuple[dict[str, np.ndarray], np.ndarray]:
        rng = np.random.default_rng(seed)
        shape = (num_frames, 64, 64, 3)
        frames = {camera: rng.integers(0, 256, shape, np.uint8) for camera in ("main", "aux1")}
        return frames, rng.normal(size=(num_frames, 4)).astype(np.float32)

    return draw


@pytest.fixture(scope="session")
def example_class() -> Any:
    """tf.train.Example, built out of its published definition by Google's own library."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="example.proto", syntax="proto3")
    kinds = {"BytesList": (12, False), "FloatList": (2, True), "Int64List": (3, True)}
    for name, (kind, packed) in kinds.items():
        field = file.message_type.add(name=name).field.add(
            name="value", number=1, label=3, type=kind
        )
        if packed:
            field.options.packed = True
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(kinds, 1):
        field = feature.field.add(name=name.lower(), number=number, label=1, type=11)
        field.type_name, field.oneof_index = f".{name}", 0
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=1, type=9)
    entry.field.add(name="value", number=2, label=1, type=11, type_name=".Feature")
    field = features.field.add(name="feature", number=1, label=3, type=11)
    field.type_name = ".Features.FeatureEntry"
    example = file.message_type.add(name="Example")
    example.field.add(name="features", number=1, label=1, type=11, type_name=".Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Example"))


@pytest.fixture
def write_bair(trajectory: Callable, example_class: Any) -> Callable[..., None]:
    """Write a file of BAIR robot pushing as TensorFlow does, a trajectory for each seed."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    def write(path: Path, seeds: list[int], num_frames: int = 5) -> None:
        with path.open("wb") as file:
            writer = RecordWriter(file)
            for seed in seeds:
                frames, actions = trajectory(seed, num_frames)
                example = example_class()
                feature = example.features.feature
                for k in range(num_frames):
                    feature[f"{k}/action"].floatlist.value.extend(actions[k].tolist())
                    for camera in frames:
                        content = frames[camera][k].tobytes()
                        feature[f"{k}/image_{camera}/encoded"].byteslist.value.append(content)
                writer.write(example.SerializeToString())

    return write


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
