"""The adversarial stage on captioned shapes: no jump at its start, and detail comes back."""

import csv
import subprocess
import sys

import pytest
import torch

from data.shapes import Shapes
from data.video import to_model_range, to_uint8
from evaluation.spectrum import high_frequency_gap
from pipeline import VideoPipeline

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

START = 300
NEVER = "--model.init_args.adversary.start_step=10000"


def trained(root, *arguments):
    """Train by the YAML; return the PSNR of each validation and the gap to the truth's detail."""
    command = [sys.executable, "train.py", "fit", "--config=configs/gan_tokenizer.yaml"]
    command += [f"--trainer.default_root_dir={root}", f"--export={root}/model"]
    subprocess.run([*command, *arguments], check=True, capture_output=True)
    with (root / "csv" / "version_0" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/psnr"]]
    psnr = {int(row["step"]) + 1: float(row["val/psnr"]) for row in rows}
    tokenizer = VideoPipeline.from_pretrained(root / "model").tokenizer
    shapes = Shapes(256, split="val")
    truth = torch.stack([shapes.read(i, 9).frames for i in range(32)])
    with torch.no_grad():
        tokens = tokenizer.encode(to_model_range(truth))
        clips = to_uint8(tokenizer.decode(tokens).clamp(-1, 1))
    return psnr, high_frequency_gap(clips, truth).item()


def test_the_adversary_enters_without_a_jump_and_brings_detail_back(tmp_path):
    psnr, gap = trained(tmp_path / "against")
    psnr_alone, gap_alone = trained(tmp_path / "alone", NEVER)
    before = [step for step in psnr if step <= START]
    assert len(before) == 12
    assert all(psnr[step] == psnr_alone[step] for step in before)
    assert min(psnr[step] for step in psnr if step > START) > psnr[START] - 1
    assert gap < 0.7 * gap_alone
