"""The priors over continuous latents."""

import pytest
import torch

from diffusion import DiT, UNet3D
from layers.storage import load_module, save_module
from lm import Condition, LatentDiffusionPrior, Sampling, TokenDiffusionPrior, Transformer

TEXTS = [[3, 1, 4], [1]]


def by_unet():
    return LatentDiffusionPrior(UNet3D([32], [1], text_width=16), 3, [4, 4, 4], text_size=9)


def by_dit():
    network = DiT(32, 1, 2, window=2, text_width=16)
    return LatentDiffusionPrior(network, 3, [4, 4, 4], text_size=9)


def by_token():
    transformer = Transformer(width=32, depth=2, num_heads=2)
    return TokenDiffusionPrior(transformer, 3, [4, 4, 4], text_size=9, head_width=16, head_depth=1)


def ready(build):
    torch.manual_seed(0)
    prior = build()
    for p in prior.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    prior.calibrate(latents() * 3 + 1)
    return prior.eval()


@pytest.fixture(params=[by_unet, by_dit, by_token], ids=["U-Net", "DiT", "per token"])
def prior(request):
    return ready(request.param)


def latents():
    return torch.randn(2, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0))


def draw(prior, texts, generators, context=None, num_latent_frames=None, **choices):
    return prior.sample(
        Condition(texts),
        generators,
        sampling=Sampling(**choices),
        context=context,
        num_latent_frames=num_latent_frames,
    )


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_a_sample_depends_on_its_generator_and_text_alone(prior):
    both = draw(prior, TEXTS, generators(5, 6), steps=3)
    assert both.shape == (2, 3, 4, 4, 4)
    alone = draw(prior, TEXTS[1:], generators(6), steps=3)
    torch.testing.assert_close(both[1:], alone, atol=1e-4, rtol=1e-4)
    other = draw(prior, [[2], [1]], generators(5, 6), steps=3)
    assert not torch.allclose(both[0], other[0], atol=1e-3)


def test_a_context_is_kept_and_counts(prior):
    context = latents()[:, :, :2]
    one = draw(prior, TEXTS, generators(5, 6), context=context, steps=3)
    torch.testing.assert_close(one[:, :, :2], context, atol=1e-5, rtol=1e-5)
    other = draw(prior, TEXTS, generators(5, 6), context=context + 1, steps=3)
    assert not torch.allclose(one[:, :, 2:], other[:, :, 2:], atol=1e-3)


def test_guidance_of_one_is_off_and_more_is_not(prior):
    plain = draw(prior, TEXTS, generators(5, 6), steps=1)
    assert torch.equal(plain, draw(prior, TEXTS, generators(5, 6), steps=1, guidance_scale=1.0))
    bare = draw(prior, [[], []], generators(5, 6), steps=1)
    none = draw(prior, TEXTS, generators(5, 6), steps=1, guidance_scale=0.0)
    torch.testing.assert_close(none, bare, atol=1e-4, rtol=1e-4)
    twice = draw(prior, TEXTS, generators(5, 6), steps=1, guidance_scale=2.0)
    assert not torch.allclose(twice, plain, atol=1e-3)


def test_calibration_brings_channels_to_one_size(prior):
    prior.calibrate(latents() * torch.tensor([1.0, 10.0, 0.1])[:, None, None, None] + 7)
    last = prior.head.out if isinstance(prior, TokenDiffusionPrior) else prior.project
    for p in last.parameters():
        p.data.zero_()
    losses = [
        prior.loss(
            latents() * torch.tensor([1.0, 10.0, 0.1])[:, None, None, None] + 7,
            TEXTS,
            torch.tensor([False, True]),
            torch.Generator().manual_seed(seed),
        ).item()
        for seed in range(20)
    ]
    # Latents and noise have deviation 1, and so has the velocity.
    assert sum(losses) / 20 == pytest.approx(1, abs=0.05)


def test_a_saved_prior_is_bit_for_bit_the_same(prior, tmp_path):
    save_module(prior, tmp_path)
    again = load_module(tmp_path)
    one, other = (draw(p, TEXTS, generators(1, 2), steps=2) for p in (prior, again))
    assert torch.equal(one, other)


def test_what_cannot_be_is_refused(prior):
    with pytest.raises(ValueError, match="window by window"):
        draw(prior, TEXTS, generators(1, 2), num_latent_frames=5)
    with pytest.raises(ValueError, match="window by window"):
        draw(prior, TEXTS, generators(1, 2), context=latents())
    with pytest.raises(ValueError, match="one each"):
        draw(prior, TEXTS, generators(1), steps=1)
    with pytest.raises(ValueError, match="not tokens"):
        prior.check_sampling(Sampling(top_k=3), 10)
    with pytest.raises(ValueError, match="the task is 'inpaint'"):
        prior.check_condition(Condition(TEXTS, "inpaint"))
    with pytest.raises(ValueError, match="set both"):
        LatentDiffusionPrior(UNet3D([32], [1]), 3, [4, 4, 4], text_size=9)


def test_what_sampling_would_not_use_is_refused_before_it(prior):
    with pytest.raises(ValueError, match="not tokens; leave temperature"):
        draw(prior, TEXTS, generators(1, 2), steps=1, top_k=3)


@pytest.mark.parametrize("shape", [(1, 3, 1, 4, 4), (2, 3, 1, 6, 6), (2, 3, 1, 2, 8)])
def test_a_context_of_another_size_is_refused(prior, shape):
    with pytest.raises(ValueError, match=r"goes on from \(2, 3, 1, 4, 4\); encode a clip"):
        draw(prior, TEXTS, generators(1, 2), torch.zeros(shape), steps=1)


def test_a_latent_is_drawn_from_the_state_that_training_gives_it(monkeypatch):
    """One by one with a cache, and all at once as in training: the same states."""
    torch.manual_seed(0)
    prior = by_token().eval()
    for p in prior.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    seen = []
    draw_row = prior._draw_row

    def spy(states, *arguments):
        seen.append(states)
        return draw_row(states, *arguments)

    monkeypatch.setattr(prior, "_draw_row", spy)
    drawn = draw(prior, TEXTS, generators(5, 6), steps=2)
    rows = drawn.flatten(2).transpose(1, 2)
    expected = prior.states(rows, TEXTS)
    torch.testing.assert_close(torch.stack(seen, dim=1), expected, atol=1e-4, rtol=1e-4)
    # And no state knows the latents from its own on.
    rows = rows.clone()
    rows[:, 30:] += 1
    assert torch.equal(prior.states(rows, TEXTS)[:, :31], expected[:, :31])


@pytest.fixture(params=[by_unet, by_dit], ids=["U-Net", "DiT"])
def editor(request):
    return ready(request.param)


def test_an_edit_that_keeps_nothing_is_a_sample(editor):
    edited = editor.edit(latents(), TEXTS, 1.0, seed=5, steps=3, guidance_scale=2.0)
    drawn = draw(editor, TEXTS, generators(5, 6), steps=3, guidance_scale=2.0)
    torch.testing.assert_close(edited, drawn)


def test_an_edit_is_as_far_from_its_clip_as_its_strength_says(editor):
    moved = [
        (editor.edit(latents(), TEXTS, strength, steps=2) - latents()).square().mean()
        for strength in (0.05, 0.5, 1.0)
    ]
    assert moved[0] < 0.1 * moved[1] < 0.1 * moved[2]


def test_an_edit_follows_its_text_and_its_seed(editor):
    plain, text, seed = (
        editor.edit(latents(), texts, 0.6, seed, steps=2)
        for texts, seed in ((TEXTS, 5), ([[2], [1]], 5), (TEXTS, [5, 7]))
    )
    assert not torch.allclose(plain[0], text[0], atol=1e-3)
    torch.testing.assert_close(plain[1], text[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(plain[0], seed[0], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(plain[1], seed[1], atol=1e-3)


def test_an_edit_that_cannot_be_is_refused(editor):
    for strength in (0.0, 1.5):
        with pytest.raises(ValueError, match=r"must lie in \(0, 1\]"):
            editor.edit(latents(), TEXTS, strength)
    with pytest.raises(ValueError, match="steps"):
        editor.edit(latents(), TEXTS, 0.5, steps=0)
    with pytest.raises(ValueError, match="cannot keep single frames; leave kept out"):
        editor.edit(latents(), TEXTS, 0.5, kept=torch.ones(13, dtype=torch.bool))
    with pytest.raises(ValueError, match="5 latent frames are asked for"):
        editor.edit(latents()[:, :, [0, 1, 2, 3, 3]], TEXTS, 0.5)
