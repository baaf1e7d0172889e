"""Codebook usage against counts done by hand."""

import pytest
import torch

from evaluation.codebook import CodebookUsage


def usage(size, *batches):
    metric = CodebookUsage(size)
    for batch in batches:
        metric.update(batch)
    return metric.compute()


@pytest.mark.parametrize("used", [1, 2, 8])
def test_even_use_of_k_codes_has_perplexity_k(used):
    tokens = torch.arange(8 * used).remainder(used).reshape(2, 1, 4, used)
    share, perplexity, bits, num_tokens, *_ = usage(16, tokens)
    assert share == used / 16
    assert perplexity == pytest.approx(used)
    assert bits == pytest.approx(torch.tensor(used).log2().item())
    assert num_tokens == 8 * used


def test_uneven_use_has_the_entropy_of_its_frequencies():
    assert usage(4, torch.tensor([3, 3, 1, 0])).entropy_bits == pytest.approx(1.5)


def test_quantiles_are_relative_to_the_mean_code():
    tokens = torch.cat([torch.full((k,), k) for k in range(11)])  # code k occurs k times
    counts = usage(11, tokens)
    assert (counts.p10, counts.p90) == pytest.approx((1 / 5, 9 / 5))


def test_batches_add_up_in_any_order():
    tokens = torch.randint(50, (6, 2, 3, 3), generator=torch.Generator().manual_seed(0))
    assert usage(50, tokens) == usage(50, tokens[4:].int(), tokens[:1], tokens[1:4])


def test_tokens_outside_the_codebook_are_named():
    with pytest.raises(ValueError, match="tokens reach from 0 to 4, but codebook_size is 4"):
        usage(4, torch.tensor([0, 4]))
    with pytest.raises(ValueError, match="tokens reach from -1"):
        usage(4, torch.tensor([-1]))
    with pytest.raises(ValueError, match="no token was counted"):
        usage(4, torch.zeros(0, dtype=torch.long))
    with pytest.raises(ValueError, match="codebook_size is 0"):
        CodebookUsage(0)
