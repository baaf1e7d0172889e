"""What sampling keeps, against loops over sorted probabilities."""

import pytest
import torch

from lm.logits import probabilities
from lm.sampling import Sampling

LOGITS = 2 * torch.randn(5, 12, generator=torch.Generator().manual_seed(0))


def kept(chances):
    return [set(row.nonzero()[:, 0].tolist()) for row in chances]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_temperature_divides_logits(temperature):
    chances = probabilities(LOGITS, Sampling(temperature=temperature))
    torch.testing.assert_close(chances, (LOGITS / temperature).softmax(-1))


@pytest.mark.parametrize("temperature", [1e-30, 1e-40, 5e-324])
def test_a_temperature_of_next_to_nothing_is_greedy(temperature):
    chances = probabilities(LOGITS, Sampling(temperature=temperature))
    assert torch.equal(chances, probabilities(LOGITS, Sampling(temperature=0.0)))


def test_top_k_keeps_the_likeliest():
    chances = probabilities(LOGITS, Sampling(top_k=3))
    assert kept(chances) == [set(row.tolist()) for row in LOGITS.topk(3).indices]


@pytest.mark.parametrize("top_p", [0.01, 0.5, 0.9, 1.0])
def test_top_p_keeps_the_smallest_set_that_reaches_it(top_p):
    chances = probabilities(LOGITS, Sampling(top_p=top_p))
    for row, left in zip(LOGITS.softmax(-1), kept(chances), strict=True):
        total, expected = 0.0, set()
        for token in row.argsort(descending=True).tolist():
            if total < top_p:
                expected.add(token)
            total += row[token].item()
        assert left == expected


@pytest.mark.parametrize("min_p", [0.0, 0.1, 0.5, 1.0])
def test_min_p_keeps_what_is_not_far_below_the_likeliest(min_p):
    chances, whole = probabilities(LOGITS, Sampling(min_p=min_p)), LOGITS.softmax(-1)
    for row, left, drawn in zip(whole, kept(chances), chances, strict=True):
        expected = {i for i in range(12) if row[i] >= min_p * max(row)}
        assert left == expected
        among = [row[i] / sum(row[j] for j in expected) for i in sorted(expected)]
        torch.testing.assert_close(drawn[sorted(expected)], torch.stack(among))


def test_greedy_is_one_token():
    greedy = Sampling(temperature=0.0, top_p=0.5, min_p=0.5)
    assert kept(probabilities(LOGITS, greedy)) == [{i} for i in LOGITS.argmax(-1).tolist()]
