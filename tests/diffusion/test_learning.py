"""A decoder trained for seconds: what it was shown comes out."""

import pytest
import torch

from diffusion import DiffusionDecoder, UNet3D


class TwoCodes:
    """A tokenizer of two codes, as far as a decoder that reads no pixels asks."""

    temporal_stride, spatial_stride, codebook_size = 4, 8, 2

    def fingerprint(self):
        return "01" * 8

    def decoder_fingerprint(self):
        return "02" * 8

    def stream_encode(self, clips):
        raise AssertionError("nothing here encodes")

    def stream_decode(self, tokens):
        raise AssertionError("nothing here decodes")


def test_dark_and_bright_clips_come_back_dark_and_bright():
    """What zero terminal SNR is for: without it brightness drifts to the middle."""
    torch.manual_seed(0)
    options = {"use": "none", "window": 1, "token_width": 8, "corruption": 0.0, "dropout": 0.0}
    decoder = DiffusionDecoder(UNet3D([32], [1]), 2, [4, 8], **options)
    decoder.attach(TwoCodes())
    tokens = torch.tensor([0, 1] * 8).view(16, 1, 1, 1).expand(-1, -1, 2, 2)
    clip = torch.where(tokens[:, :1, :1, :1, None] == 1, 0.9, -0.9).expand(-1, 3, 1, 16, 16)
    decoder.calibrate(clip, clip)
    assert decoder.scale == pytest.approx(0.9, abs=1e-4)
    optimizer = torch.optim.AdamW(decoder.parameters(), 1e-2)
    for step in range(150):
        optimizer.param_groups[0]["lr"] = 1e-2 * min(1, 2 - step / 75)
        loss = decoder.loss(clip, tokens, clip, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    sampled = decoder.eval().decode(tokens[:4], seed=7, steps=10)
    brightness = sampled.mean(dim=(1, 2, 3, 4))
    torch.testing.assert_close(brightness, torch.tensor([-0.9, 0.9, -0.9, 0.9]), atol=0.05, rtol=0)
