"""The factorised entropies against the same sums written out over every code."""

import pytest
import torch

from tokenizer.entropy import bit_entropy, code_distribution, entropy


def written_out(logits):
    """Distribution of each position over all codes, as a softmax over 2^d distances."""
    d = logits.shape[1]
    codes = ((torch.arange(2**d)[:, None] >> torch.arange(d)) & 1) * 2.0 - 1
    return (logits.double() / 2 @ codes.double().T).softmax(dim=1)


@pytest.mark.parametrize("bits", [1, 2, 5, 9])
def test_entropies_equal_the_softmax_over_all_codes(bits):
    logits = 3 * torch.randn(40, bits, dtype=torch.float64)
    chances = written_out(logits)
    each = -(chances * chances.log()).sum(dim=1)
    torch.testing.assert_close(bit_entropy(logits).sum(dim=1), each)
    mean = chances.mean(dim=0)
    assert float(entropy(code_distribution(logits))) == pytest.approx(
        float(-(mean * mean.log()).sum())
    )


def test_the_gradient_is_that_of_the_softmax_over_all_codes():
    logits = torch.randn(30, 6, dtype=torch.float64, requires_grad=True)
    (ours,) = torch.autograd.grad(entropy(code_distribution(logits)), logits)
    mean = written_out(logits).mean(dim=0)
    (theirs,) = torch.autograd.grad(-(mean * mean.log()).sum(), logits)
    torch.testing.assert_close(ours, theirs)


def test_sure_bits_have_no_entropy_and_a_finite_gradient():
    logits = torch.tensor([[500.0, -500.0, 0.0]], requires_grad=True)
    total = bit_entropy(logits).sum() - entropy(code_distribution(logits))
    total.backward()
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())
    assert bit_entropy(logits).tolist() == [[0.0, 0.0, pytest.approx(0.6931, abs=1e-4)]]


def test_a_quarter_million_codes_need_little_memory():
    logits = torch.randn(4096, 18, requires_grad=True)
    value = entropy(code_distribution(logits))
    value.backward()
    assert 0 < value.item() < 18 * 0.6932
