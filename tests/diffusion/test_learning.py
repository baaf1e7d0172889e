"""A decoder trained for seconds: what it was shown comes out."""

import pytest
import torch

from diffusion import DiffusionDecoder, DiffusionObjective, LogLinearSchedule, UNet3D
from tokenizer.checks import check_tokens


class TwoCodes:
    """A tokenizer of two codes, as far as a decoder that reads no pixels asks."""

    temporal_stride, spatial_stride, codebook_size = 4, 8, 2

    def fingerprint(self):
        return "01" * 8

    def decoder_fingerprint(self):
        return "02" * 8

    def check_tokens(self, tokens):
        check_tokens(tokens, self.codebook_size)

    def stream_encode(self, clips):
        raise AssertionError("nothing here encodes")

    def stream_decode(self, tokens):
        raise AssertionError("nothing here decodes")


def trained(clip, tokens, schedule=None, **options):
    """Return a decoder that was trained on clips and their tokens for seconds."""
    torch.manual_seed(0)
    options = {"use": "none", "window": 1, "token_width": 8, "corruption": 0.0, **options}
    decoder = DiffusionDecoder(
        UNet3D([32], [1]), 2, [4, 8], DiffusionObjective(schedule), **options
    )
    decoder.attach(TwoCodes())
    decoder.calibrate(clip, clip)
    optimizer = torch.optim.AdamW(decoder.parameters(), 1e-2)
    for step in range(150):
        optimizer.param_groups[0]["lr"] = 1e-2 * min(1, 2 - step / 75)
        loss = decoder.loss(clip, tokens, clip, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return decoder.eval()


def test_dark_and_bright_clips_come_back_dark_and_bright():
    tokens = torch.tensor([0, 1] * 8).view(16, 1, 1, 1).expand(-1, -1, 2, 2)
    clip = torch.where(tokens[:, :1, :1, :1, None] == 1, 0.9, -0.9).expand(-1, 3, 1, 16, 16)
    decoder = trained(clip, tokens, dropout=0.0)
    assert decoder.scale == pytest.approx(0.9, abs=1e-4)
    sampled = decoder.decode(tokens[:4], seed=7, steps=10)
    brightness = sampled.mean(dim=(1, 2, 3, 4))
    torch.testing.assert_close(brightness, torch.tensor([-0.9, 0.9, -0.9, 0.9]), atol=0.05, rtol=0)


@pytest.mark.parametrize("zero_terminal_snr", [True, False])
def test_brightness_does_not_drift_to_the_middle_with_zero_terminal_snr(zero_terminal_snr):
    """What it is for: without it the last step shows the brightness, which pure noise then lacks.

    The clips have a deviation of brightness of 0.55. No token says it, since all are dropped.
    """
    tokens = torch.zeros(16, 1, 2, 2, dtype=torch.long)
    clip = torch.linspace(-0.9, 0.9, 16).view(16, 1, 1, 1, 1).expand(-1, 3, 1, 16, 16)
    schedule = LogLinearSchedule(10.0, -3.0, zero_terminal_snr)
    decoder = trained(clip, tokens, schedule, dropout=1.0)
    sampled = decoder.decode(tokens[:12], seed=7, steps=20, guidance_scale=0.0)
    spread = sampled.mean(dim=(1, 2, 3, 4)).std()
    assert spread > 0.2 if zero_terminal_snr else spread < 0.15
