import pytest
import torch

from lm.codes import CodeTable
from tokenizer import FSQ


def test_codes_share_the_parts_of_their_fsq_levels():
    """Two codes have a part in common exactly where their quantized latents agree."""
    levels = [5, 3, 4]
    table = CodeTable(60, 8, 1.0, levels)
    latents = FSQ(levels).lookup(torch.arange(60)[None, None, None])[0, :, 0, 0].T
    same = (latents[:, None] - latents).abs() < 1e-6
    shared = table.digits[:, None] == table.digits
    assert torch.equal(same, shared)
    by_hand = [table.own[v] + sum(table.parts[row] for row in table.digits[v]) for v in range(60)]
    torch.testing.assert_close(table(), torch.stack(by_hand))


def test_without_levels_each_code_stands_alone():
    table = CodeTable(60, 8, 1.0)
    assert torch.equal(table(), table.own)
    assert table().std().item() == pytest.approx(1, abs=0.1)


def test_levels_of_another_codebook_are_refused():
    with pytest.raises(ValueError, match="make 60 codes, but codebook_size is 64"):
        CodeTable(64, 8, 1.0, [5, 3, 4])


def test_the_gradient_of_shared_parts_is_the_same_every_time():
    """Threads that add to one row in any order would round otherwise from run to run."""
    table = CodeTable(625, 64, 1.0, [5, 5, 5, 5])
    weight = torch.randn(625, 64)

    def gradient():
        (gradient,) = torch.autograd.grad((table() * weight).sum(), [table.parts])
        return gradient

    first = gradient()
    assert all(torch.equal(gradient(), first) for _ in range(50))
