"""Recipes of published size: the priors have the shapes and parameters that the papers state."""

from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from lm import PriorModule

FOLDER = Path("configs/paper")


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


def test_every_recipe_is_looked_at():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {
        "videogpt",
        "tats",
        "magvit_l",
        "lwm_7b",
        "magvit_v2",
        "videopoet_8b",
        "phenaki",
        "maskvit",
    }
