"""Two processes train like one."""

import subprocess
import sys

import torch

OPTIONS = [
    "--config=configs/demo_tokenizer.yaml",
    "--model.init_args.max_steps=2",
    "--data.val_clips=4",
    "--data.val_batch_size=2",
    "--trainer.val_check_interval=2",
    "--trainer.logger=false",
    "--trainer.enable_progress_bar=false",
    "--trainer.accelerator=cpu",
]


def test_two_gloo_processes_equal_one(small, tmp_path):
    """The same batches, split over two processes, give the same weights up to rounding."""
    ends = []
    for devices in (1, 2):
        root = tmp_path / str(devices)
        options = [*OPTIONS, *small, f"--trainer.default_root_dir={root}", f"--export={root}/model"]
        if devices == 2:
            options += ["--trainer.devices=2", "--trainer.strategy=ddp"]
        command = [sys.executable, "train.py", "fit", *options]
        done = subprocess.run(command, timeout=240, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert (root / "model" / "manifest.json").is_file()
        ends.append(torch.load(root / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    one, two = ends
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=2e-2, msg=name)
