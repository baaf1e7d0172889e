"""Decoders that sample more frames or more pixels than the tokenizer has."""

import pytest
import torch

from diffusion import DiffusionDecoder, UNet3D
from diffusion.decoding import Sampling
from layers.resizing import enlarged


def build(tokenizer, enlarge, **options):
    torch.manual_seed(0)
    decoder = DiffusionDecoder(UNet3D([32], [1]), 200, [4, 8], enlarge=enlarge, **options)
    for p in decoder.parameters():
        p.data.add_(0.05 * torch.randn_like(p))
    decoder.attach(tokenizer)
    return decoder.eval()


@pytest.mark.parametrize("enlarge", [[2, 1], [1, 2], [2, 2]])
@pytest.mark.parametrize("num_latents", [1, 3, 6])
def test_a_clip_is_larger_than_the_cnn_s(tiny_tokenizer, enlarge, num_latents):
    decoder = build(tiny_tokenizer, enlarge)
    tokens = torch.randint(200, (1, num_latents, 2, 2))
    clip = decoder.decode(tokens, steps=1)
    frames = 1 + 4 * enlarge[0] * (num_latents - 1)
    assert clip.shape == (1, 3, frames, 16 * enlarge[1], 16 * enlarge[1])
    parts = decoder.stream_decode(tokens.split(1, dim=1), 0, Sampling(1))
    torch.testing.assert_close(torch.cat(list(parts), dim=2), clip, atol=1e-4, rtol=1e-4)


def test_an_untrained_one_enlarges_what_the_cnn_gives(tiny_tokenizer):
    decoder = DiffusionDecoder(UNet3D([32], [1]), 200, [4, 8], enlarge=[2, 2])
    decoder.attach(tiny_tokenizer)
    tokens = torch.randint(200, (1, 6, 2, 2))
    with torch.no_grad():
        expected = enlarged(tiny_tokenizer.decode(tokens), 2, 2).clamp(-1, 1)
    torch.testing.assert_close(decoder.decode(tokens, steps=1), expected, atol=1e-5, rtol=1e-5)


def test_the_base_is_read_with_noise_of_a_known_deviation(tiny_tokenizer, monkeypatch):
    decoder = build(tiny_tokenizer, [1, 2], base_noise=0.5)
    base = torch.zeros(16, 3, 9, 32, 32)
    tokens = torch.zeros(16, 3, 2, 2, dtype=torch.long)
    case = decoder.draw(base + 0.1, tokens, base, torch.Generator().manual_seed(0))
    found = case.condition.base.flatten(1).std(dim=1)
    torch.testing.assert_close(found, case.condition.base_noise, atol=0.01, rtol=0.02)
    assert 0.1 < case.condition.base_noise.mean() < 0.4
    # What is sampled is still the difference to the base without noise.
    torch.testing.assert_close(case.x, torch.full_like(case.x, 0.1))
    angle = torch.ones(16, 9)
    before = decoder.predict(case.noise, angle, case.condition)
    other = case.condition._replace(base_noise=torch.zeros(16))
    assert not torch.allclose(before, decoder.predict(case.noise, angle, other))


def test_what_cannot_be_enlarged_is_refused(tiny_tokenizer):
    with pytest.raises(ValueError, match="whole numbers"):
        build(tiny_tokenizer, [0, 1])
    with pytest.raises(ValueError, match="use"):
        build(tiny_tokenizer, [1, 2], use="none")
