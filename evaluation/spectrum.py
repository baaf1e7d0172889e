"""How much detail of which size a clip has: power over spatial frequency.

Autoencoders trained on pixel errors blur: their reconstructions lack power at high frequencies.
"""

import torch
from einops import rearrange
from jaxtyping import Float64, UInt8
from torch import Tensor


def band_power(clips: UInt8[Tensor, "B T H W 3"], num_bands: int = 8) -> Float64[Tensor, " bands"]:
    """Return the mean power of all frames in rings of equal width, the lowest frequencies first.

    Frames in [0, 1] without their mean, under a Hann window, so that opposite borders do not make
    an edge. The last ring ends at half a cycle a pixel and holds the corners beyond it too.
    """
    height, width = clips.shape[2:4]
    frames = rearrange(clips, "b t h w c -> (b t c) h w").double() / 255
    frames = frames - frames.mean(dim=(1, 2), keepdim=True)
    window = torch.outer(_hann(height), _hann(width))
    power = torch.fft.fft2(frames * window).abs().square().mean(dim=0) / window.square().sum()
    vertical, horizontal = torch.fft.fftfreq(height), torch.fft.fftfreq(width)
    radius = torch.hypot(vertical[:, None], horizontal[None, :])
    ring = (radius * 2 * num_bands).long().clamp(max=num_bands - 1).flatten()
    total = torch.zeros(num_bands, dtype=torch.float64).index_add(0, ring, power.flatten())
    return total / ring.bincount(minlength=num_bands)


def high_frequency_gap(
    clips: UInt8[Tensor, "B T H W 3"], truth: UInt8[Tensor, "B T H W 3"], num_bands: int = 8
) -> Float64[Tensor, ""]:
    """Return how far the power of the upper half of the bands is from the truth's, in decibels.

    The mean over bands of the absolute difference; 0 is the truth's sharpness.
    """
    powers = [band_power(x, num_bands)[num_bands // 2 :] for x in (clips, truth)]
    floor = torch.finfo(torch.float64).tiny
    ours, theirs = (10 * power.clamp(min=floor).log10() for power in powers)
    return (ours - theirs).abs().mean()


def _hann(size: int) -> Float64[Tensor, " size"]:
    return torch.hann_window(size, periodic=True, dtype=torch.float64)
