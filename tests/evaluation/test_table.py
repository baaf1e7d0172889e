"""The table of clips: the same in any order and over any number of processes."""

import os
import subprocess
import sys

import pytest
import torch

from evaluation.table import ClipTable

# Each process fills every second row; then one prints what both see.
TWO = """
import sys, torch, torch.distributed as dist
from evaluation.frechet import FrechetVideoDistance, RandomFeatures3D
from evaluation.codebook import CodebookUsage
from evaluation.inception_score import VideoInceptionScore
from evaluation.kernel import KernelVideoDistance
from evaluation.pixel import FramePSNR, PooledPSNR
from evaluation.table import ClipTable
rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if world > 1:
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=world)
generator = torch.Generator().manual_seed(0)
clips = torch.randint(256, (2, 12, 9, 16, 16, 3), generator=generator).byte()
tokens = torch.randint(50, (12, 8), generator=generator)
extractor = RandomFeatures3D(num_features=4)
table, psnr, pooled, usage = ClipTable(12, 3), FramePSNR(), PooledPSNR(), CodebookUsage(50)
frechet, kernel = FrechetVideoDistance(extractor), KernelVideoDistance(extractor)
score = VideoInceptionScore(extractor)
for i in range(rank, 12, world):
    one = slice(i, i + 1)
    table.update(torch.tensor([i]), clips[0, one].flatten(1)[:, :3].double())
    usage.update(tokens[one])
    score.update(clips[0, one])
    for metric in (psnr, pooled):
        metric.update(clips[0, one], clips[1, one])
    for metric in (frechet, kernel):
        metric.update(clips[0, one], real=True)
        metric.update(clips[1, one] // 2, real=False)
metrics = psnr, pooled, frechet, kernel, score
values = [float(metric.compute()) for metric in metrics], list(usage.compute())
rows = table.compute()
if rank == 0:
    torch.save((rows, *values), f"{folder}/{world}.pt")
if world > 1:
    dist.barrier()  # a process that leaves early takes the other one down
    dist.destroy_process_group()
"""


@pytest.fixture
def rows():
    return torch.rand(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_rows_come_in_any_order_and_batch(rows):
    table = ClipTable(7, 3)
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    for part in order.split(3):
        table.update(part, rows[part])
    assert torch.equal(table.compute(), rows)


def test_two_processes_see_the_table_of_one(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(TWO)
    for world in (1, 2):
        command = [sys.executable, str(script)]
        processes = [
            subprocess.Popen([*command, str(rank), str(world), str(tmp_path)], env=_environment())
            for rank in range(world)
        ]
        assert [process.wait(timeout=120) for process in processes] == [0] * world
    one, two = (torch.load(tmp_path / f"{world}.pt", weights_only=True) for world in (1, 2))
    assert torch.equal(one[0], two[0])
    assert one[1] == pytest.approx(two[1], rel=1e-6)
    assert one[2] == two[2]


def _environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(["."] + [p for p in sys.path if p])}


def test_lost_and_repeated_clips_are_counted(rows):
    table = ClipTable(7, 3)
    table.update(torch.arange(5), rows[:5])
    with pytest.raises(ValueError, match=r"2 of 7 clips came never, first \[5, 6\]"):
        table.compute()
    table.update(torch.arange(4, 7), rows[4:])
    table._computed = None
    with pytest.raises(ValueError, match=r"1 of 7 clips came twice or more, first \[4\]"):
        table.compute()


def test_what_is_not_finite_is_refused_with_its_number(rows):
    rows[2, 1] = torch.nan
    with pytest.raises(ValueError, match=r"measured of clips \[5\] is not finite"):
        ClipTable(7, 3).update(torch.arange(3, 7), rows[:4])
    with pytest.raises(ValueError, match="rows have 2 numbers, but the table has 3"):
        ClipTable(7, 3).update(torch.arange(7), rows[:, :2])
    with pytest.raises(ValueError, match="num_clips is 0"):
        ClipTable(0, 3)
