"""An interrupted and resumed training equals one that never stopped, bit for bit."""

import subprocess
import sys

import pytest
import torch

STEPS = 8
OPTIONS = [
    "--export=null",
    f"--model.init_args.max_steps={STEPS}",
    "--trainer.val_check_interval=2",
    "--checkpoints.every_n_steps=2",
]


def checkpoint(root):
    return torch.load(root / "checkpoints" / "last.ckpt", weights_only=True)


def differences(a, b, place=""):
    """Return where two nested checkpoints are not bit for bit the same."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), place
        return [d for key in a for d in differences(a[key], b[key], f"{place}/{key}")]
    if isinstance(a, list | tuple):
        assert len(a) == len(b), place
        return [d for i in range(len(a)) for d in differences(a[i], b[i], f"{place}/{i}")]
    same = torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    return [] if same else [place]


COMMAND = [sys.executable, "train.py", "fit", "--config=configs/demo_tokenizer.yaml"]
ADVERSARIAL = [sys.executable, "train.py", "fit", "--config=configs/gan_tokenizer.yaml"]
ADVERSARIAL += [
    "--model.init_args.adversary.start_step=1",
    "--model.init_args.adversary.ramp_steps=4",
    "--model.init_args.adversary.r1_weight=1",
    "--model.init_args.adversary.r1_every=3",
    "--model.init_args.adversary.discriminators=[{width: 8, norm: spectral}, "
    "{temporal: true, width: 8}]",
]


INTERRUPTED = """
import os, signal, sys
import train
from training.checkpoints import Checkpoints

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
after_batch = Checkpoints.on_train_batch_end

def press(self, trainer, pl_module, *arguments):
    after_batch(self, trainer, pl_module, *arguments)
    if int(pl_module.steps_done) == 5:
        os.kill(os.getpid(), signal.SIGINT)

Checkpoints.on_train_batch_end = press
train.main(sys.argv[1:])
"""


def interrupted(command, arguments):
    """Press Ctrl-C after step 5 of a training; return what it said."""
    command = [sys.executable, "-c", INTERRUPTED, *command[2:], *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


@pytest.mark.parametrize("command", [COMMAND, ADVERSARIAL], ids=["plain", "adversarial"])
def test_ctrl_c_and_resume_change_nothing(command, small, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    options = [*small, *OPTIONS, "--data.val_clips=2", "--trainer.logger=false"]
    options.append("--trainer.enable_progress_bar=false")  # its drawing uses Python's random state
    # In processes of their own: the type checks of the tests draw from Python's random state too.
    straight = [*command, *options, f"--trainer.default_root_dir={whole}"]
    subprocess.run(straight, check=True, capture_output=True)
    options.append(f"--trainer.default_root_dir={broken}")
    said = interrupted(command, options)
    assert checkpoint(broken)["state_dict"]["steps_done"] == 4
    assert "--ckpt_path last resumes there" in said
    resume = [*command, *options, "--ckpt_path=last"]
    subprocess.run(resume, check=True, capture_output=True)
    ends = checkpoint(whole), checkpoint(broken)
    assert ends[1]["state_dict"]["steps_done"] == STEPS
    assert differences(*ends) == []


def test_a_missing_checkpoint_is_an_error(fit, small, tmp_path):
    root = f"--trainer.default_root_dir={tmp_path}"
    with pytest.raises(SystemExit, match=r"last\.ckpt does not exist"):
        fit("demo_tokenizer", *small, *OPTIONS, root, "--ckpt_path=last")


def test_a_new_run_keeps_the_checkpoint_of_the_old_one(fit, small, tmp_path):
    options = [*small, *OPTIONS, f"--trainer.default_root_dir={tmp_path}"]
    fit("demo_tokenizer", *options, "--model.init_args.max_steps=2")
    old = checkpoint(tmp_path)
    fit("demo_tokenizer", *options, "--model.init_args.max_steps=2", "--seed_everything=1")
    kept = torch.load(tmp_path / "checkpoints" / "earlier.ckpt", weights_only=True)
    assert differences(old, kept) == []
    assert differences(old, checkpoint(tmp_path)) != []


def test_a_flag_changed_on_resume_wins_and_is_said(fit, small, tmp_path):
    options = [*small, *OPTIONS, f"--trainer.default_root_dir={tmp_path}"]
    fit("demo_tokenizer", *options, "--model.init_args.max_steps=2")
    last = tmp_path / "checkpoints" / "last.ckpt"
    options += ["--model.init_args.max_steps=4", f"--ckpt_path={last}"]
    options += ["--model.init_args.recipe.learning_rate=0.25"]
    options += ["--model.init_args.recipe.weight_decay=0.5"]
    said = subprocess.run([*COMMAND, *options], check=True, capture_output=True, text=True)
    assert checkpoint(tmp_path)["state_dict"]["steps_done"] == 4
    assert "max_steps is 4, but the checkpoint was trained with 2" in said.stderr
    assert "recipe.learning_rate is 0.25" in said.stderr
    groups = checkpoint(tmp_path)["optimizer_states"][0]["param_groups"]
    assert [group["base_lr"] for group in groups] == [0.02, 0.25]
    assert {group["weight_decay"] for group in groups} == {0.5}
