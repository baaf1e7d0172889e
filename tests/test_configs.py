"""Every YAML says what it is and builds its model, without memory and without opening a file."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from training.module import TrainedModule

CONFIGS = sorted(Path("configs").glob("*.yaml"))


# In a process of its own, which has imported what train.py imports and nothing else.
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_is_read_whole_by_the_command_line(path):
    command = [sys.executable, "train.py", "fit", f"--config={path}", "--print_config"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "class_path" in done.stdout


# Without the command line, Lightning warns that networks are saved as hyperparameters too.
@pytest.mark.filterwarnings("ignore:Attribute '.*' is an instance of `nn.Module`")
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_names_its_command_and_builds_on_the_meta_device(path):
    header = path.read_text().split("\n")[:2]
    assert f"train.py fit --config {path}" in header[0]
    assert "minutes" in header[1]
    parser = ArgumentParser()
    parser.add_subclass_arguments(TrainedModule, "model")
    config = parser.parse_object({"model": yaml.safe_load(path.read_text())["model"]})
    with torch.device("meta"):
        model = parser.instantiate(config)["model"]
    assert {p.device.type for p in model.network.parameters()} == {"meta"}
