"""Quantizers on two processes do what one does with the whole batch."""

import pytest
import torch
from torch import distributed, multiprocessing

from tokenizer import LFQ, VQ

QUANTIZERS = {"LFQ": lambda: LFQ(6), "VQ": lambda: VQ(32, dim=4)}


def steps(name, rank, world_size):
    """Return what a rank ends with: the gradient of its latents, its codebook, its loss."""
    quantizer = QUANTIZERS[name]().train()
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        batch = torch.randn(4, quantizer.dim, 2, 4, 4, generator=generator)
        latents = batch.chunk(world_size)[rank].clone().requires_grad_()
        result = quantizer(latents)
        result.loss.backward()
    return latents.grad, list(quantizer.buffers()), result.loss.detach()


def rank_main(rank, name, folder):
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    torch.save(steps(name, rank, 2), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.parametrize("name", QUANTIZERS)
def test_two_processes_equal_one(name, tmp_path):
    multiprocessing.spawn(rank_main, (name, str(tmp_path)), nprocs=2)
    gradient, buffers, loss = steps(name, 0, 1)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    # DDP averages the gradients, so each rank's counts half.
    torch.testing.assert_close(torch.cat([rank[0] for rank in ranks]) / 2, gradient)
    torch.testing.assert_close((ranks[0][2] + ranks[1][2]) / 2, loss)
    for one, first, second in zip(buffers, ranks[0][1], ranks[1][1], strict=True):
        assert torch.equal(first, second)
        torch.testing.assert_close(one, first)
