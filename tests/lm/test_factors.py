"""Codes as digits: an exact likelihood, and samples that follow it."""

import pytest
import torch

from lm import AutoregressivePrior, Condition, Sampling, Transformer
from lm.factors import FactorTable

TEXTS = Condition([[3, 1, 4], [1, 5]])
TOKENS = torch.randint(60, (2, 2, 2, 2), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def prior():
    torch.manual_seed(0)
    prior = AutoregressivePrior(
        Transformer(width=32, depth=2, num_heads=2),
        codebook_size=60,
        grid=[2, 2, 2],
        text_size=9,
        text_window=4,
        factors=[5, 3, 4],
    )
    with torch.no_grad():
        for p in prior.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return prior.eval()


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_digits_are_those_of_mixed_radix_and_join_to_the_code():
    table, codes = FactorTable([5, 3, 4], 8, 1.0), torch.arange(60)
    digits = table.digits(codes)
    assert digits.tolist() == [[c % 5, c // 5 % 3, c // 15] for c in range(60)]
    assert torch.equal(table.join(digits), codes)
    rows = digits + torch.tensor([0, 5, 8])
    torch.testing.assert_close(table(), table.parts[rows].sum(1))
    torch.testing.assert_close(table.read(codes[7:9]), table()[7:9])


def test_probabilities_of_all_codes_add_up_to_one(prior):
    """Independent heads would too, so the digits must also depend on each other."""
    every = TOKENS[:1].repeat(60, 1, 1, 1)
    every[:, 1, 1, 1] = torch.arange(60)
    chances = prior.score(every, Condition(TEXTS.texts[:1] * 60))[:, -1].double().exp()
    assert chances.sum().item() == pytest.approx(1, abs=1e-5)
    joint = chances.view(4, 3, 5)
    product = joint.sum((1, 2))[:, None, None] * joint.sum((0, 2))[:, None] * joint.sum((0, 1))
    assert (joint - product).abs().max() > 1e-3


def test_loss_is_the_mean_of_scores(prior):
    scores = prior.score(TOKENS, TEXTS)
    assert prior.loss(TOKENS, TEXTS).item() == pytest.approx(-scores.mean().item(), abs=1e-5)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_a_sample_does_not_depend_on_its_batch(prior, scale):
    batch = prior.sample(TEXTS, generators(5, 6), sampling=Sampling(scale))
    assert torch.equal(
        batch[1:], prior.sample(Condition(TEXTS.texts[1:]), generators(6), sampling=Sampling(scale))
    )


def test_greedy_digits_are_the_likeliest_one_after_another(prior):
    greedy = prior.sample(TEXTS, generators(1, 2), sampling=Sampling(temperature=0.0))
    every = greedy[:1].repeat(60, 1, 1, 1)
    every[:, 1, 1, 1] = torch.arange(60)
    joint = prior.score(every, Condition(TEXTS.texts[:1] * 60))[:, -1].exp().view(4, 3, 5)
    first = joint.sum((0, 1)).argmax()
    second = joint[:, :, first].sum(0).argmax()
    third = joint[:, second, first].argmax()
    assert greedy[0, 1, 1, 1] == first + 5 * second + 15 * third


def test_samples_follow_the_probabilities(prior):
    context = TOKENS[:1, :1].repeat(600, 1, 1, 1)
    drawn = prior.sample(Condition([[]] * 600), generators(*range(600)), context=context)[
        :, 1, 0, 0
    ]
    every = torch.cat([TOKENS[:1, :1], TOKENS[:1, 1:]], 1).repeat(60, 1, 1, 1)
    every[:, 1, 0, 0] = torch.arange(60)
    chances = prior.score(every, Condition([[]] * 60))[:, 4].exp()
    seen = torch.bincount(drawn, minlength=60) / 600
    assert (seen - chances).abs().sum() / 2 < 0.17  # total variation; chance of noise alone 0.12
    uniform = torch.full((60,), 1 / 60)
    assert (uniform - chances).abs().sum() / 2 > 0.25


def test_every_parameter_gets_a_gradient(prior):
    prior.loss(TOKENS, TEXTS).backward()
    missing = [n for n, p in prior.named_parameters() if p.grad is None or not p.grad.any()]
    assert missing == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"factors": [5, 5]}, "make 25 codes"),
        ({"factors": [60], "tied": True}, "leave levels and tied out"),
        ({"factors": [5, 12], "levels": [5, 12]}, "leave levels and tied out"),
    ],
)
def test_what_cannot_be_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        AutoregressivePrior(Transformer(32, 1, 2), 60, [2, 2, 2], **arguments)


def test_no_table_of_all_logits_is_promised(prior):
    with pytest.raises(ValueError, match="makes no table of all logits"):
        prior.logits(TOKENS, TEXTS)
