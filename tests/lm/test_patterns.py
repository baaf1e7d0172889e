"""Layers that look within frames, along time or into windows: by loops, and by what is reached."""

import inspect

import pytest
import torch
from einops import rearrange
from torch.nn.attention.flex_attention import BlockMask

import layers.attention
import lm.transformer
from lm import AutoregressivePrior, Condition, Guide, Inputs, MaskGITPrior, Sampling, Transformer
from lm.captioning import caption_loss, write_captions
from lm.patterns import cells, narrowed, within

GRID = [3, 4, 4]
PLACES = torch.cartesian_prod(torch.arange(3), torch.arange(4), torch.arange(4))
TEXTS = Condition([[3, 1], [4]])
GENERATOR = torch.Generator().manual_seed(0)
TOKENS = torch.randint(17, (2, *GRID), generator=GENERATOR)
GUIDE = Guide(torch.randint(17, (2, 1, 4, 4), generator=GENERATOR), start=2)


def new_prior(kind=AutoregressivePrior, depth=2, tasks=("generate", "interpolate"), **transformer):
    torch.manual_seed(0)
    network = Transformer(width=32, depth=depth, num_heads=2, **transformer)
    prior = kind(network, 17, GRID, text_size=9, text_window=3, inputs=Inputs(list(tasks)))
    with torch.no_grad():
        for p in prior.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return prior.eval()


@pytest.mark.parametrize(
    ("pattern", "near"),
    [
        ("all", lambda a, b: True),
        ("space", lambda a, b: a[0] == b[0]),
        ("time", lambda a, b: a[1:] == b[1:]),
        ("window", lambda a, b: [a[0] // 2, a[1] // 2] == [b[0] // 2, b[1] // 2]),
    ],
)
def test_a_pattern_is_what_it_says(pattern, near):
    seen = within(PLACES, cells(pattern, [2, 2, 4]))
    rows = PLACES.tolist()
    assert seen.tolist() == [[near(a, b) for b in rows] for a in rows]


def test_what_is_no_token_of_a_video_sees_and_is_seen_as_before():
    on_grid = torch.tensor([False, True, True, False])
    places = torch.tensor([[0, 0, 0], [0, 0, 0], [1, 0, 0], [9, 9, 9]])
    mask = torch.ones(4, 4, dtype=torch.bool).tril()
    (table,) = narrowed(mask, [[1, 9, 9]], places, on_grid)
    assert (mask & ~table).nonzero().tolist() == [[2, 1]]
    assert not (table & ~mask).any()


@pytest.mark.parametrize("kind", [AutoregressivePrior, MaskGITPrior])
def test_everywhere_is_no_pattern(kind):
    """The same draws, by tables instead of a kernel's own causal order."""
    plain, tables = new_prior(kind), new_prior(kind, patterns=["all"])
    generators = lambda: [torch.Generator().manual_seed(i) for i in range(2)]
    assert torch.equal(plain.sample(TEXTS, generators()), tables.sample(TEXTS, generators()))


@pytest.mark.parametrize(
    ("pattern", "reached"),
    [
        ("space", lambda p: p[:, 0] == 1),
        ("time", lambda p: (p[:, 1:] == torch.tensor([2, 1])).all(-1)),
        ("window", lambda p: (p // torch.tensor([2, 2, 2]) == torch.tensor([0, 1, 0])).all(-1)),
    ],
)
def test_a_token_reaches_its_cell_and_no_other(pattern, reached):
    """One layer of a masked prior, where the mask of a token is taken off and put on."""
    prior = new_prior(MaskGITPrior, depth=1, patterns=[pattern], window=[2, 2, 2])
    prior.surroundings = None  # by which tokens reach each other, too
    masked = torch.ones(2, 48, dtype=torch.bool)
    hidden = prior.logits(TOKENS, masked, TEXTS)
    masked[:, 1 * 16 + 2 * 4 + 1] = False
    changed = (prior.logits(TOKENS, masked, TEXTS) != hidden).any(-1)
    assert torch.equal(changed, reached(PLACES).expand(2, -1))


def test_a_guide_is_seen_where_it_stands():
    """Through frames alone, the end frame reaches the last frame; its positions are that one's."""
    prior = new_prior(depth=1, patterns=["space"])
    condition = Condition(TEXTS.texts, "interpolate", guide=GUIDE)
    other = Condition(TEXTS.texts, "interpolate", guide=Guide((GUIDE.tokens + 1) % 17, start=2))
    changed = prior.logits(TOKENS, condition) != prior.logits(TOKENS, other)
    frames = rearrange(changed.any(-1), "b (t n) -> b t n", t=3)
    assert not frames[:, :2, 1:].any()  # the first is predicted from <video>, which sees all before
    assert not frames[:, 1, 0].any()  # and this one from the last token of the frame before
    assert frames[:, 2, 1:].all()


@pytest.mark.parametrize("patterns", [["space", "time"], ["space", "window"]])
@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_what_is_sampled_is_what_is_trained(patterns, attention):
    prior = new_prior(patterns=patterns, window=[3, 2, 2], num_kv_heads=1)
    prior.prefix_attention = attention
    condition = Condition(TEXTS.texts, "interpolate", guide=GUIDE)
    greedy = prior.sample(
        condition,
        [torch.Generator(), torch.Generator()],
        sampling=Sampling(temperature=0.0),
        context=TOKENS[:, :1],
    )
    best = prior.logits(greedy, condition).argmax(-1).view_as(greedy)
    assert torch.equal(best[:, 1:], greedy[:, 1:])


@pytest.mark.parametrize("kind", [AutoregressivePrior, MaskGITPrior])
def test_block_masks_hide_what_tables_hide(kind, monkeypatch):
    """Logits and gradients, in every layer; on a CPU the kernel's masks are written out again."""
    prior, seen = (
        new_prior(kind, patterns=["space", "window", "time"], window=[3, 2, 2], depth=3),
        [],
    )
    hidden = [torch.ones(2, 48, dtype=torch.bool)] if kind is MaskGITPrior else []

    def learnt():
        logits = prior.logits(TOKENS, *hidden, TEXTS)
        return logits, *torch.autograd.grad(
            logits.square().sum(), [*prior.transformer.parameters()]
        )

    def attention(q, k, v, *, causal, mask):
        seen.append(type(mask))
        return layers.attention.attention(q, k, v, causal=causal, mask=mask)

    tables = learnt()
    monkeypatch.setattr(layers.attention, "_takes_blocks", lambda mask: True)
    monkeypatch.setattr(lm.transformer, "attention", attention)
    blocks = learnt()
    assert seen == [BlockMask] * 3
    torch.testing.assert_close(blocks, tables)


def test_captions_are_written_as_they_are_learnt():
    prior = new_prior(tasks=("generate", "caption"), patterns=["space"])
    (pieces,) = write_captions(prior, TOKENS[:1], [torch.Generator()], Sampling(temperature=0.0))
    worse = [[*pieces[:i], (piece + 1) % 9, *pieces[i + 1 :]] for i, piece in enumerate(pieces)]
    nats = [caption_loss(prior, TOKENS[:1], [text]).item() for text in [pieces, *worse[-1:]]]
    assert nats == sorted(nats)


def test_a_pattern_that_is_none_is_refused_with_those_there_are():
    unchecked = inspect.unwrap(cells)  # outside of tests nobody compares a word with its type
    with pytest.raises(ValueError, match="no pattern 'spce'; choose among all, space, time, win"):
        unchecked("spce", None)


def test_a_window_needs_its_size():
    with pytest.raises(ValueError, match="needs its size"):
        Transformer(width=32, depth=1, num_heads=2, patterns=["window"])
    with pytest.raises(ValueError, match="needs its size"):
        Transformer(width=32, depth=1, num_heads=2, patterns=["window"], window=[1, 0, 2])
