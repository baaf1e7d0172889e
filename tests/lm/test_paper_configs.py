"""Recipes of published size: the priors have the shapes and parameters that the papers state."""

from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

import train
from lm import PriorModule

FOLDER = Path("configs/paper")

STRIDES = {
    "videogpt": 4,
    "tats": 4,
    "magvit_l": 4,
    "lwm_7b": None,
    "magvit_v2": 4,
    "videopoet_8b": 4,
    "phenaki": 2,
    "maskvit": None,
}
"""Frames a latent frame of each paper's tokenizer; None where it encodes frame by frame."""


@pytest.mark.filterwarnings("ignore:Attribute '.*' is an instance of `nn.Module`")
@pytest.mark.parametrize(
    ("name", "tokens", "parameters"),
    [
        # 12 width^2 parameters a layer and two tables of codes.
        ("videogpt", 4096, 8 * 12 * 576**2 + 2 * 2048 * 576),
        ("tats", 1024, 24 * 12 * 1024**2 + 2 * 16384 * 1024),
        ("magvit_l", 1024, 305e6),
        ("lwm_7b", 32768, 6.74e9),  # Llama 2 7B
        ("magvit_v2", 1280, 840e6),
        ("videopoet_8b", 1280, 8e9),
        ("phenaki", 1536, 1.8e9),
        ("maskvit", 4096, 24 * 12 * 1024**2 + 2 * 1024**2),
    ],
)
def test_a_prior_has_its_published_size(name, tokens, parameters):
    path = FOLDER / f"{name}.yaml"
    header = [line for line in path.read_text().split("\n") if line.startswith("#")]
    assert header[0] == f"# python train.py fit --config {path}"
    assert "A100" in " ".join(header)
    parser = ArgumentParser()
    parser.add_class_arguments(PriorModule, "model")
    model = yaml.safe_load(path.read_text())["model"]["init_args"]
    with torch.device("meta"):
        prior = parser.instantiate(parser.parse_object({"model": model}))["model"].prior
    assert prior.num_tokens == tokens
    count = sum(p.numel() for p in prior.parameters())
    assert count == pytest.approx(parameters, rel=0.02)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Lightning's own making
@pytest.mark.parametrize(("name", "stride"), STRIDES.items())
def test_a_recipe_is_read_whole_and_its_clips_fill_the_grid(name, stride, monkeypatch):
    """All sections are parsed by the command line; nothing is built, downloaded or opened."""
    monkeypatch.setattr(train.CLI, "instantiate_classes", lambda cli: None)
    monkeypatch.setattr("sys.argv", ["train.py", f"--config={FOLDER / name}.yaml"])
    config = train.main(run=False).config
    model, (stage,) = config.model.init_args, config.data.init_args.stages
    assert model.single_frames == (stride is None)
    latents = stage.num_frames if stride is None else 1 + (stage.num_frames - 1) / stride
    assert latents == model.prior.init_args.grid[0]
    assert config.trainer.default_root_dir == f"runs/{name}/prior" == config.checkpoints.root
    assert config.trainer.val_check_interval == config.checkpoints.every_n_steps == 1000


def test_every_recipe_is_looked_at():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == STRIDES.keys()
