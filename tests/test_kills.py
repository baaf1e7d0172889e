"""A training that is killed at random moments ends, bit for bit, like one that never was."""

import subprocess
import sys

import pytest
import torch

# Imports once; each attempt is a fork, which begins to train at once. The parent computes nothing,
# so that no thread is lost in the fork.
SCRIPT = """
import os, random, shutil, signal, sys, time, warnings
from pathlib import Path
import train

root, kills, arguments = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
last, rng = root / "checkpoints" / "last.ckpt", random.Random(0)


def start():
    pid = os.fork()
    if pid == 0:
        warnings.simplefilter("ignore")
        code = 1
        try:
            train.main(["fit", *arguments, *(["--ckpt_path=last"] if last.is_file() else [])])
            code = 0
        finally:
            os._exit(code)
    return pid


def stamp():
    return last.stat().st_mtime_ns if last.is_file() else 0


while kills:
    before, pid, ended = stamp(), start(), (0, 0)
    while stamp() == before and ended == (0, 0):
        time.sleep(0.002)
        ended = os.waitpid(pid, os.WNOHANG)
    time.sleep(rng.uniform(0, 0.2))
    ended = ended if ended != (0, 0) else os.waitpid(pid, os.WNOHANG)
    if ended != (0, 0):  # it was done before it could be killed
        assert ended[1] == 0, "the training failed"
        shutil.rmtree(root)
        continue
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    kills -= 1
assert os.waitpid(start(), 0)[1] == 0, "the training failed"
"""


def ends_alike(folder, small, kills, steps):
    ends = []
    for name, count in (("whole", 0), ("killed", kills)):
        root = folder / name
        options = ["--config=configs/demo_tokenizer.yaml", *small, "--export=null"]
        options += [f"--model.init_args.max_steps={steps}", "--checkpoints.every_n_steps=2"]
        options += [f"--trainer.default_root_dir={root}", "--data.val_clips=4"]
        options += ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
        command = [sys.executable, "-c", SCRIPT, str(root), str(count), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        last = root / "checkpoints" / "last.ckpt"
        ends.append(torch.load(last, weights_only=True)["state_dict"])
    assert ends[0]["steps_done"] == steps
    assert all(torch.equal(ends[1][name], value) for name, value in ends[0].items())


def test_three_kills_change_no_bit(small, tmp_path):
    ends_alike(tmp_path, small, 3, 24)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_twenty_kills_change_no_bit(small, tmp_path):
    ends_alike(tmp_path, small, 20, 120)
