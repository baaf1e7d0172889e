"""Two processes train like one."""

import subprocess
import sys

import pytest
import torch

PLAIN = ["--config=configs/demo_tokenizer.yaml"]
ADVERSARIAL = [
    "--config=configs/gan_tokenizer.yaml",
    "--model.init_args.adversary.start_step=0",
    "--model.init_args.adversary.ramp_steps=1",
    "--model.init_args.adversary.discriminators=[{width: 8}, {temporal: true, width: 8}]",
]
OPTIONS = [
    "--model.init_args.max_steps=2",
    "--data.val_clips=4",
    "--data.val_batch_size=2",
    "--trainer.val_check_interval=2",
    "--trainer.logger=false",
    "--trainer.enable_progress_bar=false",
    "--trainer.accelerator=cpu",
]


@pytest.mark.parametrize("config", [PLAIN, ADVERSARIAL], ids=["plain", "adversarial"])
def test_two_gloo_processes_equal_one(config, small, tmp_path):
    """The same batches, split over two processes, move the weights to the same place.

    Up to rounding in bfloat16, which Muon enlarges; the same two steps with other batches end as
    far away as the start is.
    """
    ends = []
    for devices, seed in ((1, 0), (2, 0), (1, 1)):
        root = tmp_path / f"{devices}-{seed}"
        options = [
            *config,
            *OPTIONS,
            *small,
            f"--trainer.default_root_dir={root}",
            f"--export={root}/model",
        ]
        options.append(f"--data.seed={seed}")
        if devices == 2:
            options += ["--trainer.devices=2", "--trainer.strategy=ddp"]
        command = [sys.executable, "train.py", "fit", *options]
        done = subprocess.run(command, timeout=240, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert (root / "model" / "manifest.json").is_file()
        ends.append(torch.load(root / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    one, two, other = ends
    for player in (
        ("tokenizer.decoder", "adversary") if config is ADVERSARIAL else ("tokenizer.decoder",)
    ):
        assert distance(one, two, player) < 0.2 * distance(one, other, player)


def distance(a, b, player):
    """Root mean square over weights that no calibration touches."""
    names = [name for name in a if name.startswith(player) and a[name].is_floating_point()]
    return torch.cat([(a[n] - b[n]).flatten() for n in names]).square().mean().sqrt().item()
