"""A prior learns from cached tokens as from clips, and from those of its own tokenizer alone."""

import numpy as np
import pytest
import torch

import encode
from data.episodes import Episode, write_episodes
from pipeline import VideoPipeline


def episodes(first, last):
    for number in range(first, last):
        rng = np.random.default_rng(number)
        frames = rng.integers(256, size=(5, 32, 32, 3), dtype=np.uint8)
        yield Episode(f"episode{number}", frames, captions=(f"number {number % 2}",))


@pytest.fixture
def tokens(tiny_tokenizer, tmp_path):
    """Cache the tokens of twenty clips; beside them, the tokenizer's own folder."""
    VideoPipeline(tiny_tokenizer, 32, 8.0).save_pretrained(tmp_path / "tokenizer")
    write_episodes(tmp_path / "clips", episodes, 20, fps=8.0, kind="noise")
    folders = [str(tmp_path / name) for name in ("tokenizer", "clips", "tokens")]
    encode.main([*folders, "--frames=5"])
    return tmp_path / "tokens"


def arguments(tokens, *more):
    data = [f"--data.{split}.init_args={{path: {tokens}, split: {split}}}" for split in SPLITS]
    prior = "{width: 32, depth: 1, num_heads: 2}"
    return [
        "--data=TokenDataModule",
        *data,
        "--data.batch_size=2",
        "--data.val_clips=1",
        f"--model.init_args.prior.init_args.transformer={prior}",
        "--model.init_args.prior.init_args.codebook_size=200",
        "--model.init_args.prior.init_args.levels=[8, 5, 5]",
        "--model.init_args.prior.init_args.grid=[2, 4, 4]",
        f"--model.init_args.tokenizer_folder={tokens.parent}/tokenizer",
        "--model.init_args.max_steps=2",
        f"--trainer.default_root_dir={tokens.parent}/run",
        *more,
    ]


SPLITS = ("train", "val")


def test_a_prior_trains_on_cached_tokens_and_samples(fit, tokens):
    model = tokens.parent / "model"
    fit("demo_prior", *arguments(tokens, f"--export={model}"))
    pipe = VideoPipeline.from_pretrained(model)
    assert (pipe.size, pipe.fps) == (32, 8.0)
    assert pipe.generate(["number 1"], num_frames=5).shape == (1, 5, 32, 32, 3)


def test_tokens_of_another_tokenizer_are_refused_naming_both(fit, tokens, tiny_tokenizer):
    made_by = tiny_tokenizer.fingerprint()
    with torch.no_grad():
        tiny_tokenizer.encoder.project.weight.add_(1)
    other = tokens.parent / "other"
    VideoPipeline(tiny_tokenizer, 32, 8.0).save_pretrained(other)
    words = f"tokenizer {made_by}.*tokenizer {tiny_tokenizer.fingerprint()}"
    with pytest.raises(ValueError, match=words):
        fit("demo_prior", *arguments(tokens, f"--model.init_args.tokenizer_folder={other}"))


def test_tasks_made_of_pixels_are_refused(fit, tokens):
    tasks = "--model.init_args.tasks={interpolate: 1.0}"
    inputs = "--model.init_args.prior.init_args.inputs={tasks: [interpolate]}"
    with pytest.raises(ValueError, match=r"\['interpolate'\] are made of pixels"):
        fit("demo_prior", *arguments(tokens, tasks, inputs))
