"""Captions written by the model that makes the clips."""

import pytest
import torch

from lm import AutoregressivePrior, Condition, Inputs, MaskGITPrior, Sampling, Transformer
from lm.captioning import asked, caption_loss, write_captions
from lm.sequence import BOS, line

TOKENS = torch.randint(17, (2, 3, 2, 2), generator=torch.Generator().manual_seed(0))
GREEDY = Sampling(temperature=0.0)


def new_prior(tasks=("generate", "caption"), **inputs):
    torch.manual_seed(0)
    prior = AutoregressivePrior(
        Transformer(width=32, depth=2, num_heads=2),
        codebook_size=17,
        grid=[3, 2, 2],
        text_size=9,
        text_window=4,
        inputs=Inputs(list(tasks), **inputs),
    )
    with torch.no_grad():
        for p in prior.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return prior.eval()


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def log_chances(prior, tokens, text):
    """Read the text piece by piece, each time all anew."""
    table, rows = prior.text_head(), []
    for count in range(len(text) + 1):
        ids = torch.tensor([[prior.vocabulary.first_text + piece for piece in text[:count]]])
        pieces = prior.embedding(ids.long().view(1, -1))
        x = torch.cat([prior.lead(asked(tokens), BOS), pieces], dim=1)
        places = torch.cat([prior.lead_places(asked(tokens)), line(count, 7 + 3)])
        state = prior.transformer(x, prior.rotary(places))[0, -1]
        rows.append((table @ state).log_softmax(-1))
    return torch.stack(rows)


def test_the_loss_is_that_of_each_piece_and_of_the_end():
    prior, texts = new_prior(), [[3, 1, 4], [5]]
    nats = []
    for tokens, text in zip(TOKENS, texts, strict=True):
        chances = log_chances(prior, tokens[None], text)
        nats += [-chances[k, piece] for k, piece in enumerate([*text, 9])]
    expected = torch.stack(nats).mean()
    torch.testing.assert_close(caption_loss(prior, TOKENS, texts), expected)


def test_the_likeliest_piece_is_written_until_the_end():
    prior = new_prior()
    with torch.no_grad():
        prior.text_head.own[9] += 0.4 * prior.text_head.own[2]  # so that some text ends early
    written = write_captions(prior, TOKENS, generators(1, 2), GREEDY)
    for tokens, text in zip(TOKENS, written, strict=True):
        best = log_chances(prior, tokens[None], text).argmax(-1).tolist()
        assert best[: len(text)] == text
        assert len(text) == 4 or best[-1] == 9


def test_a_caption_does_not_depend_on_its_batch():
    prior = new_prior()
    both = write_captions(prior, TOKENS, generators(3, 4), Sampling())
    assert both[1:] == write_captions(prior, TOKENS[1:], generators(4), Sampling())


@pytest.mark.parametrize("size", [5, 50])
def test_the_clip_is_read_with_its_own_codes_where_guides_have_others(size):
    plain, prior, texts = new_prior(), new_prior(guide_codebook_size=size), [[3, 1, 4], [5]]
    prior.load_state_dict(plain.state_dict(), strict=False)
    loss = caption_loss(prior, TOKENS, texts)
    assert torch.equal(loss, caption_loss(plain, TOKENS, texts))
    written = write_captions(prior, TOKENS, generators(1, 2), GREEDY)
    assert written == write_captions(plain, TOKENS, generators(1, 2), GREEDY)


def test_small_weights_write_too():
    texts = write_captions(new_prior(), TOKENS, generators(3, 4), Sampling(quantize="int8"))
    assert len(texts) == 2


def test_a_prior_learns_to_say_what_it_sees():
    prior, texts = new_prior().train(), [[3, 1, 4], [5]]
    optimizer = torch.optim.Adam(prior.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        caption_loss(prior, TOKENS, texts).backward()
        optimizer.step()
    assert write_captions(prior.eval(), TOKENS, generators(1, 2), Sampling()) == texts


def test_what_cannot_be_captioned_is_refused():
    with pytest.raises(ValueError, match="trained for generate;"):
        write_captions(new_prior(["generate"]), TOKENS, generators(1, 2), GREEDY)
    with pytest.raises(ValueError, match="guidance_scale"):
        write_captions(new_prior(), TOKENS, generators(1, 2), Sampling(2.0))
    with pytest.raises(ValueError, match="one piece after another"):
        MaskGITPrior(Transformer(32, 1, 2), 17, [3, 2, 2], inputs=Inputs(["caption"]))
    with pytest.raises(ValueError, match="needs a guide"):
        new_prior().loss(TOKENS, Condition([[], []], "caption"))
