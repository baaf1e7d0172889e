"""What two processes agree on equals what one finds in the rows of both."""

import subprocess
import sys

import torch

from layers.processes import all_rows, mean_of_processes

BOTH = """
import sys
import torch
from torch import distributed
from layers.processes import all_rows, mean_of_processes

rank, store, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
mine = torch.arange(6.0).view(2, 3)[rank].requires_grad_()
mean = mean_of_processes(mine)
(mean**2).sum().backward()
torch.save([mean.detach(), mine.grad, all_rows(mine[None].detach())], f"{out}{rank}.pt")
distributed.destroy_process_group()
"""


def test_two_processes_average_and_gather(tmp_path):
    store, out = tmp_path / "store", tmp_path / "rank"
    command = [sys.executable, "-W", "error", "-c", BOTH]
    runs = [subprocess.Popen([*command, str(rank), str(store), str(out)]) for rank in (0, 1)]
    assert [run.wait(timeout=120) for run in runs] == [0, 0]
    rows = torch.arange(6.0).view(2, 3).requires_grad_()
    mean = rows.mean(0)
    # DDP averages the gradients of the processes; each holds that of its own row twice.
    (mean**2).sum().backward()
    for rank in (0, 1):
        found, gradient, gathered = torch.load(f"{out}{rank}.pt", weights_only=True)
        torch.testing.assert_close(found, mean.detach())
        torch.testing.assert_close(gradient, 2 * rows.grad[rank])
        assert torch.equal(gathered, rows.detach())


def test_one_process_agrees_with_itself():
    x = torch.randn(2, 3)
    assert mean_of_processes(x) is x
    assert all_rows(x) is x
