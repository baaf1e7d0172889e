"""Training and sampling on a device apart from the CPU, shown without one (`tests.elsewhere`)."""

import subprocess
import sys
from argparse import ArgumentTypeError

import pytest
import torch

from layers.processes import device, local_device

CHAIN = [
    "tests/lm/test_lightning_module.py::test_every_task_is_trained_and_the_model_can_be_asked_for_it",
    "tests/diffusion/test_lightning_module.py::"
    "test_the_command_trains_inflates_exports_and_the_pipeline_samples",
    "tests/test_latent_pipeline.py::test_a_story_is_one_video",
    "tests/test_sample.py::test_a_video_is_encoded_decoded_and_reconstructed",
    "tests/test_protocols_end_to_end.py::test_a_protocol_runs_from_the_files_of_its_benchmark"
    "[moving-digits]",
]
"""Trainings of tokenizer, prior and decoder by the command line, all tasks, all ways to sample."""
MIXED = """
import torch
from tests.elsewhere import NAME, Elsewhere
with Elsewhere():
    torch.ones(2) + torch.ones(2, device=NAME)
"""


def run(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True)


def test_models_train_and_sample_elsewhere():
    ran = run("-m", "pytest", "-q", "-p", "tests.elsewhere", "-p", "no:cacheprovider", *CHAIN)
    assert ran.returncode == 0, ran.stdout
    assert " passed" in ran.stdout.splitlines()[-1]


def test_tensors_of_two_devices_are_found():
    assert "aten.add.Tensor has tensors on two devices" in run("-c", MIXED).stderr


def test_a_device_that_is_not_here_is_refused():
    assert device(local_device()).type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ArgumentTypeError, match="use cpu, or cuda"):
        device("cudda")
