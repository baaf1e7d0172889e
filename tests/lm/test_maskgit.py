"""The masked prior: what it masks, what it keeps, and what its numbers mean."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from lm import AutoregressivePrior, Condition, Inputs, MaskGITPrior, Sampling, Transformer
from lm.filling import FrameReader, draw_masked
from lm.masking import draw_frame_masks, draw_masks, lowest

TEXTS = Condition([[3, 1, 4], [1, 5]])
TOKENS = torch.randint(17, (2, 3, 2, 4), generator=torch.Generator().manual_seed(0))


def new_prior(**arguments):
    torch.manual_seed(0)
    prior = MaskGITPrior(
        Transformer(width=32, depth=2, num_heads=2),
        codebook_size=17,
        grid=[3, 2, 4],
        text_size=9,
        text_window=4,
        **arguments,
    )
    with torch.no_grad():
        for p in prior.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return prior.eval()


@pytest.fixture
def prior():
    return new_prior()


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def watch(prior, monkeypatch):
    """Record what the network is asked: tokens, masks and texts of each call."""
    calls, logits = [], prior.logits

    def recorded(tokens, masked, texts):
        calls.append((tokens, masked, texts))
        return logits(tokens, masked, texts)

    monkeypatch.setattr(prior, "logits", recorded)
    return calls


def test_a_masked_token_is_not_read_and_every_other_is(prior):
    masked = torch.zeros(2, 24, dtype=torch.bool)
    masked[:, 5] = True
    before = prior.logits(TOKENS, masked, TEXTS)
    for place in (0, 5, 23):
        changed = TOKENS.flatten(1).clone()
        changed[:, place] = (changed[:, place] + 1) % 17
        after = prior.logits(changed.view_as(TOKENS), masked, TEXTS)
        assert torch.equal(before, after) == (place == 5)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "exponential"])
@pytest.mark.parametrize("known", [0, 1, 2])
def test_only_unknown_tokens_count_in_the_schedule(monkeypatch, schedule, known):
    """Peers count the given tokens too, and so draw most unknown ones in the first step."""
    prior, steps = new_prior(schedule=schedule), 6
    calls = watch(prior, monkeypatch)
    sampled = prior.sample(
        TEXTS, generators(1, 2), context=TOKENS[:, :known], sampling=Sampling(steps=steps)
    )
    assert torch.equal(sampled[:, :known], TOKENS[:, :known])
    unknown = 24 - 8 * known
    share = {
        "cosine": lambda r: math.cos(math.pi / 2 * r),
        "linear": lambda r: 1 - r,
        "exponential": lambda r: 1 - unknown ** (r - 1),
    }[schedule]
    expected = [unknown]
    for step in range(1, steps):
        expected.append(min(max(math.floor(unknown * share(step / steps)), 1), expected[-1] - 1))
    assert [int(masked[0].sum()) for _, masked, _ in calls] == expected
    assert all(not masked[:, : 8 * known].any() for _, masked, _ in calls)


def test_a_token_once_kept_is_never_drawn_again_in_few_steps(prior, monkeypatch):
    calls = watch(prior, monkeypatch)
    final = prior.sample(TEXTS, generators(1, 2), sampling=Sampling(steps=7)).flatten(1)
    for (_, before, _), (tokens, after, _) in itertools.pairwise(calls):
        assert not (after & ~before).any()
        assert torch.equal(tokens.flatten(1)[~after], final[~after])


def test_the_last_of_many_steps_draw_again_what_was_least_sure(prior, monkeypatch):
    calls = watch(prior, monkeypatch)
    final = prior.sample(TEXTS, generators(1, 2), sampling=Sampling(steps=8)).flatten(1)
    after = [tokens.flatten(1) for tokens, *_ in calls[1:]] + [final]
    sureness = torch.zeros(2, 24)  # of each token in the step that drew it
    for step, ((tokens, masked, condition), drawn) in enumerate(zip(calls, after, strict=True)):
        assert torch.equal(tokens.flatten(1)[~masked], drawn[~masked])
        if step >= 5:
            count = (8, 5, 3)[step - 5]  # of 24: 0.3, 0.2 and 0.1, and none was left before
            assert torch.equal(masked, lowest(sureness, torch.tensor([count, count])))
        chances = MaskGITPrior.logits(prior, tokens, masked, condition).log_softmax(-1)
        now = chances.gather(-1, drawn[..., None])[..., 0]
        sureness = torch.where(masked, now, sureness)


@pytest.mark.parametrize("redrawn", [[1.0], [0.1, 0.0], [0.1] * 5])
def test_shares_that_cannot_be_drawn_again_are_refused(redrawn):
    with pytest.raises(ValueError, match="redrawn is"):
        new_prior(redrawn=redrawn)


def test_without_noise_the_surest_tokens_are_kept_first(prior):
    """One step of greedy decoding against the definition."""
    masked = torch.ones(2, 24, dtype=torch.bool)
    chances = prior.logits(TOKENS, masked, TEXTS).softmax(-1)
    sureness, guesses = chances.max(-1)
    kept = sureness.sort(descending=True).indices[:, : 24 - math.floor(24 * math.sqrt(0.5))]
    sampling = Sampling(steps=2, temperature=0.0, choice_temperature=0.0)
    sampled = prior.sample(TEXTS, generators(1, 2), sampling=sampling)
    assert torch.equal(sampled.flatten(1).gather(1, kept), guesses.gather(1, kept))


def test_temperature_has_an_effect(prior):
    """1xgpt divides probabilities by it, which normalising again undoes."""
    drawn = {
        temperature: torch.cat(
            [
                prior.sample(
                    TEXTS,
                    generators(2 * i, 2 * i + 1),
                    sampling=Sampling(temperature=temperature, steps=1),
                )
                for i in range(40)
            ]
        )
        for temperature in (0.25, 1.0, 4.0)
    }
    chances = prior.logits(
        TOKENS[:1], torch.ones(1, 24, dtype=torch.bool), Condition(TEXTS.texts[:1])
    )
    expected = [(chances / t).softmax(-1).max(-1).values.mean().item() for t in drawn]
    best = chances.argmax(-1)
    seen = [(sample[::2].flatten(1) == best).float().mean().item() for sample in drawn.values()]
    assert seen == pytest.approx(expected, abs=0.06)
    assert expected[0] > expected[1] + 0.1 > expected[2] + 0.2


def test_choice_temperature_decides_which_tokens_are_kept(prior, monkeypatch):
    calls = watch(prior, monkeypatch)
    for temperature in (0.0, 0.0, 50.0):
        sampling = Sampling(steps=2, choice_temperature=temperature)
        prior.sample(TEXTS, generators(1, 2), sampling=sampling)
    kept = [masked for _, masked, _ in calls[1::2]]
    assert torch.equal(kept[0], kept[1])
    assert not torch.equal(kept[0], kept[2])


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_a_sample_does_not_depend_on_its_batch(prior, scale):
    batch = prior.sample(TEXTS, generators(5, 6), sampling=Sampling(scale))
    assert torch.equal(
        batch[1:], prior.sample(Condition(TEXTS.texts[1:]), generators(6), sampling=Sampling(scale))
    )


def test_guidance_is_the_formula_in_one_batch(prior, monkeypatch):
    masked = torch.ones(2, 24, dtype=torch.bool)
    conditional, bare = (
        prior.logits(TOKENS, masked, texts) for texts in (TEXTS, Condition([[], []]))
    )
    calls = watch(prior, monkeypatch)
    sampling = Sampling(guidance_scale=3.0, temperature=0.0, steps=1)
    greedy = prior.sample(TEXTS, generators(1, 2), sampling=sampling)
    assert torch.equal(greedy.flatten(1), (bare + 3 * (conditional - bare)).argmax(-1))
    assert [len(tokens) for tokens, _, _ in calls] == [4]


def test_the_null_condition_is_what_dropping_a_text_trains(prior):
    """In phenaki-pytorch it is never dropped, so guidance has no other side."""
    losses = [
        prior.loss(TOKENS, texts, drop, torch.Generator().manual_seed(0)).item()
        for texts, drop in (
            (TEXTS, torch.tensor([True, True])),
            (Condition([[], []]), None),
            (TEXTS, torch.tensor([False, False])),
        )
    ]
    assert losses[0] == losses[1] != losses[2]


def test_loss_is_the_mean_of_clips_of_the_smoothed_cross_entropy_of_masked_tokens():
    prior = new_prior(label_smoothing=0.1)
    generator = torch.Generator().manual_seed(4)
    masked = draw_masks(TOKENS.shape, 0.25, generator)
    flat = TOKENS.flatten(1)
    log_chances = prior.logits(TOKENS, masked, TEXTS).log_softmax(-1)
    target = 0.9 * F.one_hot(flat, 17) + 0.1 / 17
    nats = -(target * log_chances).sum(-1)
    expected = torch.stack([row[hit].mean() for row, hit in zip(nats, masked, strict=True)]).mean()
    loss = prior.loss(TOKENS, TEXTS, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(loss, expected)


def test_pseudo_likelihood_masks_one_token_at_a_time(prior):
    scores, flat = prior.pseudo_log_likelihood(TOKENS, TEXTS), TOKENS.flatten(1)
    for n in (0, 11, 23):
        masked = torch.zeros(2, 24, dtype=torch.bool)
        masked[:, n] = True
        chances = prior.logits(TOKENS, masked, TEXTS).log_softmax(-1)
        expected = chances[torch.arange(2), n, flat[:, n]]
        torch.testing.assert_close(scores[:, n], expected)
    assert not hasattr(prior, "score")
    whole = prior.pseudo_log_likelihood(TOKENS, TEXTS, groups=1)
    chances = prior.logits(TOKENS, torch.ones_like(flat, dtype=torch.bool), TEXTS).log_softmax(-1)
    torch.testing.assert_close(whole, chances.gather(-1, flat[..., None])[..., 0])


@pytest.mark.parametrize(("shape", "error"), [((3, 4, 2), "3 x 4 x 2"), ((4, 2, 4), "up to 3")])
def test_a_likelihood_of_another_grid_is_refused(prior, shape, error):
    tokens = torch.zeros(2, *shape, dtype=torch.long)
    other = AutoregressivePrior(prior.transformer, 17, [3, 2, 4], text_size=9, text_window=4)
    for score in (prior.pseudo_log_likelihood, other.score):
        with pytest.raises(ValueError, match=error):
            score(tokens, TEXTS)


def test_unknown_tokens_may_lie_anywhere_and_in_different_numbers(prior):
    unknown = torch.rand(2, 3, 2, 4, generator=torch.Generator().manual_seed(3)) < 0.5
    unknown[0, 1] = False
    filled = prior.fill(TOKENS, unknown, TEXTS, generators(1, 2), sampling=Sampling(steps=5))
    assert torch.equal(filled[~unknown], TOKENS[~unknown])
    assert not torch.equal(filled, TOKENS)
    alone = prior.fill(
        TOKENS[1:],
        unknown[1:],
        Condition(TEXTS.texts[1:]),
        generators(2),
        sampling=Sampling(steps=5),
    )
    assert torch.equal(filled[1:], alone)


def test_training_reads_some_tokens_wrong(monkeypatch):
    """As many as `corruption` says at most, and predicts what they were."""
    prior = new_prior(corruption=0.5)
    read = []
    monkeypatch.setattr(
        prior,
        "vectors",
        lambda tokens, *rest: read.append(tokens) or type(prior).vectors(prior, tokens, *rest),
    )
    seeds = [torch.Generator().manual_seed(seed) for seed in range(20)]
    for generator in seeds:
        prior.loss(TOKENS, TEXTS, generator=generator)
    wrong = torch.stack([tokens != TOKENS for tokens in read if tokens.numel()])
    assert 0.15 < wrong.double().mean() < 0.35


def test_every_parameter_gets_a_gradient(prior):
    prior.loss(TOKENS, TEXTS, generator=torch.Generator().manual_seed(0)).backward()
    missing = [n for n, p in prior.named_parameters() if p.grad is None or not p.grad.any()]
    assert missing == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"sampling": Sampling(steps=25)}, "24 unknown"),
        ({"sampling": Sampling(steps=9), "context": TOKENS[:, :2]}, "8 unknown"),
        ({"sampling": Sampling(quantize="int8")}, "leave quantize out"),
        ({"context": TOKENS}, "3 of them given"),
        ({"num_latent_frames": 4}, "1 to 3"),
        ({"context": TOKENS[:1, :1]}, "1 contexts"),
        ({"context": TOKENS[:, :1, :, :2]}, "encode frames of the trained size"),
    ],
)
def test_what_cannot_be_sampled_is_refused(prior, arguments, words):
    with pytest.raises(ValueError, match=words):
        prior.sample(TEXTS, generators(1, 2), **arguments)


@pytest.mark.parametrize("name", ["label_smoothing", "corruption", "context_share"])
def test_shares_out_of_range_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} is 1.5"):
        new_prior(**{name: 1.5})


@pytest.mark.parametrize("groups", [0, 25])
def test_groups_out_of_range_are_refused(prior, groups):
    with pytest.raises(ValueError, match=r"1 \.\.\. 24"):
        prior.pseudo_log_likelihood(TOKENS, TEXTS, groups=groups)


def test_a_clip_without_unknown_tokens_is_refused(prior):
    nothing = torch.zeros_like(TOKENS, dtype=torch.bool)
    with pytest.raises(ValueError, match="no unknown token"):
        prior.fill(TOKENS, nothing, TEXTS, generators(1, 2))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("count", "words"), [(0, "no unknown token"), (4, "4 unknown tokens")])
def test_the_clip_with_the_fewest_unknown_tokens_decides(causal, count, words):
    unknown = torch.ones_like(TOKENS, dtype=torch.bool)
    unknown[1] = False
    unknown[1, 2].flatten()[:count] = True
    with pytest.raises(ValueError, match=words):
        new_prior(causal=causal).fill(
            TOKENS, unknown, TEXTS, generators(1, 2), sampling=Sampling(steps=6)
        )


def hide(tokens, shares=(0.5, 0.5, 0.5)):
    rows = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(7))
    return (rows < torch.tensor(shares)[:, None, None]).flatten(1)


@pytest.fixture(params=[None, ["space", "time"]], ids=["everywhere", "patterns"])
def causal(request):
    torch.manual_seed(0)
    network = Transformer(width=32, depth=2, num_heads=2, patterns=request.param)
    inputs = Inputs(action_ranges=[[-1.0, 1.0]], action_bins=4)
    prior = MaskGITPrior(network, 17, [3, 2, 4], 9, 4, inputs=inputs, causal=True)
    with torch.no_grad():
        for p in prior.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return prior.eval()


ACTED = Condition(TEXTS.texts, actions=torch.tensor([0, 1, 2, 3, 1, 2]).view(2, 3, 1, 1))


def test_a_causal_prior_reads_no_later_latent_frame(causal):
    masked = hide(TOKENS)
    before = causal.logits(TOKENS, masked, ACTED).unflatten(1, (3, 8))
    for frame in range(3):
        changed = TOKENS.clone()
        changed[:, frame] = (changed[:, frame] + 1) % 17
        after = causal.logits(changed, masked, ACTED).unflatten(1, (3, 8))
        same = [torch.equal(before[:, t], after[:, t]) for t in range(3)]
        assert same[:frame] == [True] * frame
        assert not any(same[frame:])


def test_what_is_kept_of_earlier_frames_equals_reading_them_again(causal):
    masked = hide(TOKENS, (0.0, 0.0, 0.5))
    reader = FrameReader(causal, ACTED, TOKENS.shape)
    tokens, hidden = TOKENS.flatten(2), masked.unflatten(1, (3, 8))
    for frame in range(3):
        for masks in (torch.ones_like(hidden[:, frame]), hidden[:, frame]):
            whole = torch.zeros_like(hidden)
            whole[:, frame] = masks
            expected = causal.logits(TOKENS, whole.flatten(1), ACTED).unflatten(1, (3, 8))
            found = reader.logits(tokens, tokens[:, frame], masks, frame)
            torch.testing.assert_close(found, expected[:, frame], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_a_causal_prior_draws_frame_after_frame(causal, scale):
    """Against a sampler that reads everything again in every step."""
    sampling = Sampling(scale, steps=6)
    context = TOKENS[:, :1]
    drawn = causal.sample(ACTED, generators(1, 2), context=context, sampling=sampling)
    both = ACTED if scale == 1.0 else ACTED.with_bare()
    sources, expected = generators(1, 2), torch.zeros_like(TOKENS)
    expected[:, :1] = context

    for frame in (1, 2):

        def ask(now, hidden, frame=frame):
            tokens = expected.repeat(len(now) // 2, 1, 1, 1)
            tokens[:, frame] = now.view(-1, 2, 4)
            masked = torch.zeros(tokens.shape, dtype=torch.bool)
            masked[:, frame] = hidden.view(-1, 2, 4)
            return causal.logits(tokens, masked.flatten(1), both)[:, 8 * frame : 8 * frame + 8]

        unknown = torch.ones(2, 8, dtype=torch.bool)
        steps = torch.tensor([3, 3])
        new = draw_masked(
            ask, expected[:, frame].flatten(1), unknown, steps, "cosine", [], sources, sampling
        )
        expected[:, frame] = new.view(2, 2, 4)
    assert torch.equal(drawn, expected)


def test_a_causal_prior_fills_what_is_unknown(causal):
    unknown = hide(TOKENS, (0.5, 0.0, 0.4)).view_as(TOKENS)
    filled = causal.fill(TOKENS, unknown, ACTED, generators(1, 2))
    assert torch.equal(filled[~unknown], TOKENS[~unknown])
    assert not torch.equal(filled, TOKENS)


def test_clips_with_unlike_holes_are_filled_as_each_alone(causal):
    unknown = torch.zeros(TOKENS.shape, dtype=torch.bool)
    unknown[0, 1:], unknown[1, 0, 0], unknown[1, 2] = True, True, True
    filled = causal.fill(TOKENS, unknown, ACTED, generators(1, 2))
    for i in range(2):
        row = Condition(ACTED.texts[i : i + 1], actions=ACTED.actions[i : i + 1])
        alone = causal.fill(TOKENS[i, None], unknown[i, None], row, generators(i + 1))
        assert torch.equal(alone[0], filled[i])


def test_the_loss_of_a_causal_prior_counts_masked_latent_frames_alike():
    prior = new_prior(causal=True, context_share=0.5)
    masked = draw_frame_masks(TOKENS.shape, 0.5, torch.Generator().manual_seed(4))
    nats = -prior.logits(TOKENS, masked, TEXTS).log_softmax(-1)
    nats = nats.gather(-1, TOKENS.flatten(1)[..., None])[..., 0]
    frames = zip(nats.view(6, 8), masked.view(6, 8), strict=True)
    expected = torch.stack([row[hit].mean() for row, hit in frames if hit.any()]).mean()
    loss = prior.loss(TOKENS, TEXTS, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(loss, expected)


def test_fewer_steps_than_latent_frames_are_refused():
    with pytest.raises(ValueError, match="in 3 parts; take 3 to 24"):
        new_prior(causal=True).sample(TEXTS, generators(1, 2), sampling=Sampling(steps=2))


def test_a_token_is_told_what_stands_around_it():
    prior = new_prior(surroundings=True)
    torch.nn.init.normal_(prior.surroundings.weight, std=0.1)
    plain = new_prior(surroundings=False)
    plain.load_state_dict(prior.state_dict(), strict=False)
    masked = torch.ones(2, 24, dtype=torch.bool)
    assert not torch.allclose(*(one.logits(TOKENS, masked, TEXTS) for one in (prior, plain)))
    for parameter in prior.surroundings.parameters():
        torch.nn.init.zeros_(parameter)
    assert torch.equal(*(one.logits(TOKENS, masked, TEXTS) for one in (prior, plain)))
