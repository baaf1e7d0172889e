import math

import pytest
import torch

from tokenizer import FSQ

LEVELS = [8, 5, 6, 3]


def closed_form(latents: torch.Tensor) -> torch.Tensor:
    """Level index of each dimension by the formula of the paper, in float64, by a plain loop."""
    digits = []
    for level, z in zip(LEVELS, latents.double().unbind(1), strict=True):
        half = (level - 1) * (1 + 1e-3) / 2
        offset = 0.5 if level % 2 == 0 else 0.0
        bounded = torch.tanh(z + math.atanh(offset / half)) * half - offset
        digits.append(bounded.round() + level // 2)
    tokens, radix = torch.zeros_like(digits[0]), 1
    for level, digit in zip(LEVELS, digits, strict=True):
        tokens, radix = tokens + digit * radix, radix * level
    return tokens.long()


def test_fsq_follows_its_closed_form():
    latents = 2 * torch.randn(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(FSQ(LEVELS)(latents).tokens, closed_form(latents))


def test_lookup_inverts_quantization():
    quantizer = FSQ(LEVELS)
    tokens = torch.arange(quantizer.codebook_size).reshape(1, 1, -1, 4)
    latents = quantizer.lookup(tokens)
    assert latents.unique(dim=1).shape[1] == 4
    quantized = quantizer(latents.clamp(-0.999, 0.999).atanh())
    # The grid itself is not a fixed point of the bounding curve; its own latents are.
    again = quantizer.lookup(quantized.tokens)
    torch.testing.assert_close(again, quantized.latents)


def test_autocast_changes_no_token():
    quantizer, latents = FSQ(LEVELS), torch.randn(1, 4, 2, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quantizer(latents).tokens, closed_form(latents))


def test_the_gradient_passes_straight_through():
    latents = torch.randn(1, 4, 1, 4, 4, requires_grad=True)
    FSQ(LEVELS)(latents).latents.sum().backward()
    assert latents.grad is not None
    assert bool((latents.grad > 0).all())


def test_too_few_levels_are_refused():
    with pytest.raises(ValueError, match="at least 3"):
        FSQ([8, 2])
