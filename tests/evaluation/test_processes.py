"""One result, whatever the batch size and the number of processes."""

import json
import subprocess
import sys

import numpy as np
import pytest

# A fork for each process; the parent imports once and computes nothing.
SCRIPT = """
import os, sys, warnings
from pathlib import Path
import torch
from evaluation import experiment, result
from evaluation.experiment import Files, Options, evaluate
from evaluation.protocols import find

folder = Path(sys.argv[1])
experiment.TRAINING_CLIPS = 5


def run(rank, world, batch_size):
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    store = f"file://{folder}/store-{batch_size}"
    if world > 1:
        torch.distributed.init_process_group("gloo", store, rank=rank, world_size=world)
    options = Options(5, batch_size, num_replicates=10, rank=rank, world_size=world)
    answer = folder / "answer.npy"
    found = evaluate(find("moving-digits"), None, None, Files(), options, answer)
    if rank == 0:
        result.write(folder / f"{world}-{batch_size}.json", found.result)
    if world > 1:
        torch.distributed.barrier()


for world, batch_size in ((1, 5), (1, 2), (2, 2)):
    children = []
    for rank in range(world):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                run(rank, world, batch_size)
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * world
"""


def test_processes_and_batches_change_nothing(tmp_path):
    """Counts and hashes exactly, figures to 1e-6."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "answer.npy", rng.integers(0, 256, (5, 17, 64, 64, 3), np.uint8))
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {
        (world, size): json.loads((tmp_path / f"{world}-{size}.json").read_text())
        for world, size in ((1, 5), (1, 2), (2, 2))
    }
    whole = found[1, 5]
    assert {*whole["systems"]} >= {"model", "copy_last", "nearest_train", "real"}
    for other in found.values():
        for key in ("protocol", "counts", "hashes", "seeds"):
            assert other[key] == whole[key]
        assert numbers(other["systems"]) == pytest.approx(numbers(whole["systems"]), rel=1e-6)
    # Of the same batches, processes change not even the last bit.
    assert found[2, 2]["systems"] == found[1, 2]["systems"]


def numbers(tree):
    """Return every number of a result."""
    if isinstance(tree, dict):
        return [number for value in tree.values() for number in numbers(value)]
    if isinstance(tree, list):
        return [number for value in tree for number in numbers(value)]
    return [tree] if isinstance(tree, float) else []
