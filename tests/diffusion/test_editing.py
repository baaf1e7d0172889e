"""SDEdit: what is kept of a clip, and what is refused."""

import pytest
import torch

from diffusion import DiffusionDecoder, UNet3D, decoding
from diffusion.objective import noised
from diffusion.schedule import noise_level, signal


def build(tokenizer, **options):
    torch.manual_seed(0)
    options = {"use": "read", "text_size": 20, **options}
    network = UNet3D([32], [1], text_width=16 if options["text_size"] else 0)
    decoder = DiffusionDecoder(network, 200, [4, 8], **options)
    for p in decoder.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    decoder.attach(tokenizer)
    return decoder.eval()


@pytest.fixture
def source():
    return torch.rand(2, 3, 17, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_a_strength_of_almost_nothing_changes_almost_nothing(tiny_tokenizer, source):
    decoder = build(tiny_tokenizer)
    changes = [
        (decoder.edit(source, [[1], [2]], strength, steps=2) - source).square().mean()
        for strength in (0.02, 0.5, 1.0)
    ]
    assert changes[0] < 0.01
    assert changes[0] < changes[1] < changes[2]


def test_an_edit_starts_from_the_noised_clip_without_its_tokens(
    tiny_tokenizer, source, monkeypatch
):
    decoder = build(tiny_tokenizer, window=5)
    decoder.scale.fill_(0.5)
    seen = []

    def spy(z, angle, condition):
        seen.append((z, angle, condition))
        return torch.zeros_like(z)

    monkeypatch.setattr(decoder, "velocity", spy)
    decoder.edit(source, [[1], [2, 3]], 0.6, seed=4, steps=3)
    assert len(seen) == 3
    z, angle, condition = seen[0]
    assert bool(condition.dropped.all())
    assert condition.texts == [[1], [2, 3]]
    expected = decoder.objective.schedule.angle(torch.tensor(0.6)).float()
    torch.testing.assert_close(angle, torch.full((2, 17), float(expected)))
    noise = (z - signal(expected) * source / 0.5) / noise_level(expected)
    assert noise.std() == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(noised(source / 0.5, noise, expected), z)


def test_all_of_a_long_clip_is_edited(tiny_tokenizer, source):
    decoder = build(tiny_tokenizer, window=2)
    assert decoder.edit(source, [[1], [2]], 0.5, steps=1).shape == source.shape


def test_frames_that_are_kept_stay_as_they_are(tiny_tokenizer, source):
    """And what lies between comes of the text and of them alone."""
    decoder, frames = build(tiny_tokenizer, window=5), torch.arange(17) % 16 == 0
    changed = torch.where(frames[:, None, None], source, -source)
    edited, other = (
        decoder.edit(clip, [[1], [2]], 1.0, steps=2, kept=frames) for clip in (source, changed)
    )
    torch.testing.assert_close(edited[:, :, frames], source[:, :, frames], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(edited, other, atol=1e-4, rtol=1e-4)
    free = decoder.edit(source, [[1], [2]], 1.0, steps=2)
    assert not torch.allclose(edited[:, :, ~frames], free[:, :, ~frames], atol=1e-3)


def test_frames_that_are_kept_pull_at_the_others_unless_they_are_replaced(
    tiny_tokenizer, source, monkeypatch
):
    """Replacement is guidance of no weight."""
    decoder, frames = build(tiny_tokenizer, window=5), torch.arange(17) % 16 == 0
    guided, replaced = (
        decoder.edit(source, [[1], [2]], 1.0, steps=2, kept=frames, joint=joint)
        for joint in ("guided", "replaced")
    )
    torch.testing.assert_close(replaced[:, :, frames], source[:, :, frames], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(guided[:, :, ~frames], replaced[:, :, ~frames], atol=1e-3)
    monkeypatch.setattr(decoding, "GUIDANCE_WEIGHT", 0.0)
    still = decoder.edit(source, [[1], [2]], 1.0, steps=2, kept=frames, joint="guided")
    torch.testing.assert_close(still, replaced, atol=1e-5, rtol=1e-5)


def test_the_text_and_its_guidance_count(tiny_tokenizer, source):
    decoder = build(tiny_tokenizer)
    one, other = (decoder.edit(source, [[k], [k]], 0.9, steps=1) for k in (1, 2))
    assert not torch.allclose(one, other, atol=1e-4)
    guided = decoder.edit(source, [[1], [1]], 0.9, steps=1, guidance_scale=3.0)
    assert not torch.allclose(one, guided, atol=1e-4)


@pytest.mark.parametrize("strength", [0.0, -0.5, 1.5])
def test_a_strength_out_of_range_is_refused(tiny_tokenizer, source, strength):
    with pytest.raises(ValueError, match="strength"):
        build(tiny_tokenizer).edit(source, [[1], [2]], strength)


@pytest.mark.parametrize("options", [{"use": "refine"}, {"text_size": 0}, {"enlarge": [1, 2]}])
def test_a_decoder_that_cannot_edit_says_so(tiny_tokenizer, source, options):
    with pytest.raises(ValueError, match="editing needs"):
        build(tiny_tokenizer, **options).edit(source, [[1], [2]], 0.5)


def test_other_input_that_cannot_be_is_refused(tiny_tokenizer, source):
    with pytest.raises(ValueError, match="cut it"):
        build(tiny_tokenizer).edit(source[:, :, :16], [[1], [2]], 0.5)
    with pytest.raises(ValueError, match="reads 24"):
        build(tiny_tokenizer).edit(source, [[1] * 25, [2]], 0.5)
    tokens = torch.zeros(1, 1, 4, 4, dtype=torch.long)
    with pytest.raises(ValueError, match="reads no text"):
        build(tiny_tokenizer, text_size=0).decode(tokens, texts=[[1]])
    with pytest.raises(ValueError, match="set both"):
        DiffusionDecoder(UNet3D([32], [1], text_width=8), 200, [4, 8])
