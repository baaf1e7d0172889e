"""The autoregressive prior against plain loops."""

import math

import pytest
import torch

from lm import AutoregressivePrior, Condition, MaskGITPrior, Sampling, Transformer

TEXTS = Condition([[3, 1, 4], [1, 5]])


@pytest.fixture
def prior() -> AutoregressivePrior:
    torch.manual_seed(0)
    transformer = Transformer(width=32, depth=2, num_heads=2)
    prior = AutoregressivePrior(
        transformer, codebook_size=17, grid=[3, 2, 2], text_size=9, text_window=4
    )
    with torch.no_grad():
        for p in prior.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return prior.eval()


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(17, (2, 3, 2, 2), generator=torch.Generator().manual_seed(0))


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_logits_do_not_depend_on_later_tokens(prior, tokens):
    before = prior.logits(tokens, TEXTS)
    for place in range(12):
        changed = tokens.clone().flatten(1)
        changed[:, place:] = (changed[:, place:] + 1) % 17
        after = prior.logits(changed.view_as(tokens), TEXTS)
        assert torch.equal(before[:, : place + 1], after[:, : place + 1])


def uncached(prior, texts, generator, context, scale):
    flat = context.flatten(1)
    uniform = torch.rand(12 - flat.shape[1], generator=generator)
    for u in uniform:
        padded = torch.cat([flat, flat.new_zeros(1, 12 - flat.shape[1])], 1).view(1, 3, 2, 2)
        logits = prior.logits(padded, texts)[0, flat.shape[1]]
        if scale != 1:
            bare = prior.logits(padded, Condition([[]]))[0, flat.shape[1]]
            logits = bare + scale * (logits - bare)
        total = logits.double().softmax(-1).cumsum(-1)
        flat = torch.cat([flat, (total <= u.double()).sum().view(1, 1)], 1)
    return flat.view(1, 3, 2, 2)


@pytest.mark.parametrize("scale", [1.0, 2.5])
@pytest.mark.parametrize("known", [0, 1])
def test_cached_sampling_equals_uncached(prior, tokens, known, scale):
    context = tokens[:, :known]
    sampled = prior.sample(TEXTS, generators(5, 6), context=context, sampling=Sampling(scale))
    for i, seed in enumerate((5, 6)):
        alone = uncached(
            prior, Condition(TEXTS.texts[i : i + 1]), *generators(seed), context[i : i + 1], scale
        )
        assert torch.equal(sampled[i : i + 1], alone)


@pytest.mark.parametrize("tied", [False, True])
def test_a_prefix_that_sees_itself_whole_is_sampled_as_it_is_trained(tokens, tied):
    torch.manual_seed(0)
    prior = AutoregressivePrior(
        Transformer(width=32, depth=2, num_heads=2),
        codebook_size=17,
        grid=[3, 2, 2],
        text_size=9,
        text_window=4,
        tied=tied,
        prefix_attention="bidirectional",
    ).eval()
    for p in prior.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    context = tokens[:1, :1]
    sampled = prior.sample(Condition(TEXTS.texts[:1]), generators(5), context=context)
    assert torch.equal(
        sampled, uncached(prior, Condition(TEXTS.texts[:1]), *generators(5), context, 1.0)
    )
    before = prior.logits(tokens, TEXTS)
    changed = tokens.clone()
    changed[:, 2, 1, 0] += 1  # the last but one, which only the last may see
    after = prior.logits(changed % 17, TEXTS)
    assert torch.equal(before[:, :-1], after[:, :-1])
    assert not torch.equal(before[:, -1], after[:, -1])
    # What the last piece of a prompt is reaches every state of the prefix.
    texts = Condition([[3, 1, 4, 5], [3, 1, 4, 6]])
    table = prior.rotary(prior.lead_places(texts))
    states = prior.transformer(prior.lead(texts), table, prior.mask(7, 7))
    assert not torch.allclose(states[0, 0], states[1, 0])


def test_a_sample_does_not_depend_on_its_batch(prior):
    batch = prior.sample(TEXTS, generators(5, 6))
    assert torch.equal(batch[1:], prior.sample(Condition(TEXTS.texts[1:]), generators(6)))


def test_score_is_the_sum_of_log_probabilities(prior, tokens):
    scores = prior.score(tokens, TEXTS)
    logits = prior.logits(tokens, TEXTS)
    for b in range(2):
        for n in range(12):
            chances = torch.log_softmax(logits[b, n].double(), -1)
            assert scores[b, n].item() == pytest.approx(
                chances[tokens.flatten(1)[b, n]].item(), abs=1e-5
            )
    assert -scores.mean().item() == pytest.approx(prior.loss(tokens, TEXTS).item(), abs=1e-5)


@pytest.mark.parametrize("kind", [AutoregressivePrior, MaskGITPrior])
def test_a_tied_prior_reads_and_predicts_by_one_table(kind, tokens):
    """Its gradient is the sum of those of two tables that hold the same vectors."""
    torch.manual_seed(0)
    tied, apart = (kind(Transformer(32, 2, 2), 17, [3, 2, 2], tied=tied) for tied in (True, False))
    for p in tied.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    apart.load_state_dict(tied.state_dict() | {"head.own": tied.codes.own.detach().clone()})
    count = {prior: sum(p.numel() for p in prior.parameters()) for prior in (tied, apart)}
    assert count[apart] - count[tied] == 17 * 32
    assert torch.equal(tied.output_table(), tied.codes.own)
    for prior in (tied, apart):
        prior.loss(tokens, TEXTS, generator=torch.Generator().manual_seed(0)).backward()
    read, predicted = apart.codes.own.grad, apart.head.own.grad
    assert read.any()
    assert predicted.any()
    torch.testing.assert_close(tied.codes.own.grad, read + predicted)


def test_every_parameter_gets_a_gradient(prior, tokens):
    prior.loss(tokens, TEXTS).backward()
    missing = [n for n, p in prior.named_parameters() if p.grad is None or not p.grad.any()]
    assert missing == []


def test_greedy_and_top_k_one_agree(prior):
    greedy = prior.sample(TEXTS, generators(1, 2), sampling=Sampling(temperature=0.0))
    assert torch.equal(greedy, prior.sample(TEXTS, generators(3, 4), sampling=Sampling(top_k=1)))


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("top_k", 0),
        ("temperature", -1.0),
        ("min_p", 1.5),
        ("steps", 3),
        ("steps", 0),
        ("choice_temperature", -1.0),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("guidance_scale", math.inf),
        ("guidance_scale", math.nan),
        ("choice_temperature", math.nan),
        ("top_p", math.nan),
        ("min_p", math.nan),
    ],
)
def test_sampling_arguments_out_of_range_are_refused(prior, argument, value):
    with pytest.raises(ValueError, match=argument):
        prior.sample(TEXTS, generators(1, 2), sampling=Sampling(**{argument: value}))


def test_a_prompt_that_is_too_long_is_refused(prior, tokens):
    with pytest.raises(ValueError, match="reads 4"):
        prior.loss(tokens, Condition([[1] * 5, []]))
