"""The factorised entropies against the same sums written out over every code."""

import itertools

import pytest
import torch

from tokenizer.entropy import batch_entropy, digit_chances, sample_entropy

GRIDS = {
    "one bit": [[-1, 1]],
    "bits": [[-1, 1]] * 7,
    "levels": [[-2, -1, 0, 1, 2], [-1, 0, 1], [-4, -3, -2, -1, 0, 1, 2, 3]],
}


def written_out(latents, grid):
    """Chances of each position over all codes, as one softmax over all distances."""
    codes = torch.tensor(list(itertools.product(*grid)), dtype=latents.dtype)
    return (-torch.cdist(latents, codes).square() / 0.7).softmax(dim=1)


def entropies(latents, grid):
    levels = [torch.tensor(values, dtype=latents.dtype) for values in grid]
    chances = digit_chances(latents, levels, 0.7)
    return sample_entropy(chances), batch_entropy(chances)


@pytest.mark.parametrize("name", GRIDS)
def test_entropies_equal_the_softmax_over_all_codes(name):
    grid = GRIDS[name]
    latents = 2 * torch.randn(40, len(grid), dtype=torch.float64)
    ours = entropies(latents, grid)
    chances = written_out(latents, grid)
    mean = chances.mean(dim=0)
    torch.testing.assert_close(ours[0], -(chances * chances.log()).sum(dim=1).mean())
    torch.testing.assert_close(ours[1], -(mean * mean.log()).sum())


@pytest.mark.parametrize("name", GRIDS)
def test_the_gradient_is_that_of_the_softmax_over_all_codes(name):
    grid = GRIDS[name]
    latents = torch.randn(30, len(grid), dtype=torch.float64, requires_grad=True)
    (ours,) = torch.autograd.grad(entropies(latents, grid)[1], latents)
    mean = written_out(latents, grid).mean(dim=0)
    (theirs,) = torch.autograd.grad(-(mean * mean.log()).sum(), latents)
    torch.testing.assert_close(ours, theirs)


def test_sure_digits_have_no_entropy_and_a_finite_gradient():
    """In half precision an epsilon inside the logarithm made peers' losses NaN."""
    latents = torch.tensor([[500.0, -500.0]] * 3, requires_grad=True)
    sure, spread = entropies(latents, [[-1, 1]] * 2)
    (sure - spread).backward()
    assert sure.item() == 0
    assert spread.item() == 0
    assert latents.grad is not None
    assert bool(latents.grad.isfinite().all())


def test_a_quarter_million_codes_need_little_memory(largest):
    """Every position's distribution over 2^18 codes would take 4 GB."""
    latents = torch.randn(4096, 18, requires_grad=True)
    with largest as tensors:
        _, spread = entropies(latents, [[-1, 1]] * 18)
        spread.backward()
    assert tensors.size == 4096 * 2**9
    assert 0 < spread.item() < 18 * 0.6932
