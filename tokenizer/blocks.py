"""Causal building blocks of the 3D CNN: what enters from time is the present and the past.

All temporal padding stands in front and repeats the first frame, so that a static clip has static
latents and an image is a clip of one frame. Every layer that looks back can keep its last inputs
in a cache, which makes chunk by chunk equal to one pass.

Haar stem: Cosmos tokenizer (NVIDIA 2025, arXiv 2501.03575). Non-parametric shortcuts around the
resampling layers: deep compression autoencoder (Chen et al. 2024, arXiv 2410.10733).
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from einops import repeat as expand
from jaxtyping import Float
from torch import Tensor, nn

from layers.norms import ChannelLayerNorm

Cache = dict[nn.Module, Tensor]
"""Last input frames of each causal layer, filled by the first chunk of a stream."""


class CausalConv3d(nn.Conv3d):
    """3D convolution whose output at a frame sees that frame and the ones before.

    A temporal stride s maps 1 + s k frames to 1 + k. With a cache, later chunks must hold a
    multiple of s frames.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int],
        stride: tuple[int, int] = (1, 1),
    ) -> None:
        time, space = kernel
        super().__init__(
            in_channels,
            out_channels,
            kernel_size=(time, space, space),
            stride=(stride[0], stride[1], stride[1]),
            padding=(0, space // 2, space // 2),
        )

    def forward(
        self, x: Float[Tensor, "B C T H W"], cache: Cache | None = None
    ) -> Float[Tensor, "B C2 T2 H2 W2"]:
        time, stride = self.kernel_size[0], self.stride[0]
        past = x[:, :, :1].expand(-1, -1, time - 1, -1, -1)
        if cache is not None:
            past = cache.get(self, past)
        padded = torch.cat([past, x], dim=2) if past.shape[2] else x
        if cache is not None:
            # The next chunk starts one stride after the last window did. A view would keep it all.
            cache[self] = padded[:, :, padded.shape[2] - (time - stride) :].clone()
        return super().forward(padded)


class ResidualBlock(nn.Module):
    """Pre-norm residual block of two causal convolutions.

    Factorised: 1 x 3 x 3 in space, then 3 x 1 x 1 in time (2.25 times fewer operations than full).
    """

    def __init__(self, channels: int, *, factorized: bool) -> None:
        super().__init__()
        first, second = ((1, 3), (3, 1)) if factorized else ((3, 3), (3, 3))
        self.norm1 = ChannelLayerNorm(channels)
        self.conv1 = CausalConv3d(channels, channels, first)
        self.norm2 = ChannelLayerNorm(channels)
        self.conv2 = CausalConv3d(channels, channels, second)
        nn.init.zeros_(self.conv2.weight)

    def forward(
        self, x: Float[Tensor, "B C T H W"], cache: Cache | None = None
    ) -> Float[Tensor, "B C T H W"]:
        h = self.conv1(F.silu(self.norm1(x)), cache)
        return x + self.conv2(F.silu(self.norm2(h)), cache)


class Downsample(nn.Module):
    """Strided causal convolution beside a shortcut: space-time to depth, averaged over groups."""

    def __init__(self, in_channels: int, out_channels: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.stride, self.out_channels = stride, out_channels
        _check_groups(in_channels * stride[0] * stride[1] ** 2, out_channels, "Downsample")
        kernel = (2 * stride[0] - 1, 3 if stride[1] > 1 else 1)
        self.conv = CausalConv3d(in_channels, out_channels, kernel, stride)

    def forward(
        self, x: Float[Tensor, "B C T H W"], cache: Cache | None = None
    ) -> Float[Tensor, "B C2 T2 H2 W2"]:
        time, space = self.stride
        # The first frame fills the group that it leads; later chunks hold whole groups.
        leading = 0 if cache is not None and self.conv in cache else time - 1
        groups = torch.cat([x[:, :, :1].expand(-1, -1, leading, -1, -1), x], dim=2)
        shortcut = rearrange(
            groups, "b c (t s) (h p) (w q) -> b (c s p q) t h w", s=time, p=space, q=space
        )
        shortcut = reduce(shortcut, "b (d g) t h w -> b d t h w", "mean", d=self.out_channels)
        return self.conv(x, cache) + shortcut


class Upsample(nn.Module):
    """Convolution to depth, then depth to space-time, beside the repeated input as a shortcut.

    The first latent frame stands for one frame: a stream drops its leading s - 1 frames.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.stride, self.volume = stride, stride[0] * stride[1] ** 2
        _check_groups(out_channels * self.volume, in_channels, "Upsample")
        self.copies = out_channels * self.volume // in_channels
        kernel = (1, 3 if stride[1] > 1 else 1)
        self.conv = CausalConv3d(in_channels, out_channels * self.volume, kernel)

    def forward(
        self, x: Float[Tensor, "B C T H W"], cache: Cache | None = None
    ) -> Float[Tensor, "B C2 T2 H2 W2"]:
        time, space = self.stride
        started = cache is not None and self in cache
        shortcut = expand(x, "b c t h w -> b (c g) t h w", g=self.copies)
        depth = self.conv(x, cache) + shortcut
        if cache is not None:
            cache[self] = depth.new_empty(0)
        out = rearrange(
            depth, "b (c s p q) t h w -> b c (t s) (h p) (w q)", s=time, p=space, q=space
        )
        return out if started else out[:, :, time - 1 :]


class PatchStem(nn.Module):
    """Invertible stem: s x p x p pixels become channels, as they are or as a Haar wavelet packet.

    The packet's lowest band is the mean of its pixels. `shift` and `scale` bring each channel to
    mean 0 and deviation 1 over the data, once `Tokenizer.calibrate` has seen some. All of it is one
    small matrix product a patch, in float32: what neighbours differ by is lost in bfloat16.
    """

    matrix: Tensor
    shift: Tensor
    scale: Tensor

    def __init__(
        self, temporal: int, spatial: int, *, wavelet: bool = True, channels: int = 3
    ) -> None:
        super().__init__()
        self.temporal, self.spatial = temporal, spatial
        pixels = temporal * spatial**2
        packet = _wavelet_packet(temporal, spatial) if wavelet else torch.eye(pixels)
        matrix = torch.kron(packet, torch.eye(channels))
        self.register_buffer("matrix", matrix, persistent=False)
        self.register_buffer("shift", torch.zeros(len(matrix), 1, 1, 1))
        self.register_buffer("scale", torch.ones(len(matrix), 1, 1, 1))

    def forward(
        self, x: Float[Tensor, "B C T H W"], cache: Cache | None = None
    ) -> Float[Tensor, "B C2 T2 H2 W2"]:
        started = cache is not None and self in cache
        if not started:
            x = torch.cat([x[:, :, :1].expand(-1, -1, self.temporal - 1, -1, -1), x], dim=2)
        if cache is not None:
            cache[self] = x.new_empty(0)
        patches = rearrange(
            x,
            "b c (t s) (h p) (w q) -> b t h w (s p q c)",
            s=self.temporal,
            p=self.spatial,
            q=self.spatial,
        )
        shift, scale = self.shift.flatten(), self.scale.flatten()
        bands = _linear(patches, self.matrix / scale[:, None], -shift / scale)
        return rearrange(bands, "b t h w c -> b c t h w")

    def inverse(
        self, x: Float[Tensor, "B C2 T2 H2 W2"], cache: Cache | None = None
    ) -> Float[Tensor, "B C T H W"]:
        """Turn channels back into pixels, without the copies of the first frame."""
        started = cache is not None and self in cache
        if cache is not None:
            cache[self] = x.new_empty(0)
        inverse = self.matrix.T / self.matrix[0].square().sum()  # orthogonal rows of one length
        bands = rearrange(x, "b c t h w -> b t h w c")
        bias = (inverse * self.shift.flatten()).sum(dim=1)
        patches = _linear(bands, inverse * self.scale.flatten(), bias)
        x = rearrange(
            patches,
            "b t h w (s p q c) -> b c (t s) (h p) (w q)",
            s=self.temporal,
            p=self.spatial,
            q=self.spatial,
        )
        return x if started else x[:, :, self.temporal - 1 :]


def _wavelet_packet(temporal: int, spatial: int) -> Float[Tensor, "bands pixels"]:
    """Return the Haar packet of a patch: halves on halves of sums and differences of neighbours."""
    pixels = temporal * spatial**2
    x = torch.eye(pixels).view(pixels, 1, temporal, spatial, spatial)
    levels_t, levels_s = _levels(temporal, "temporal"), _levels(spatial, "spatial")
    for axis, levels in ((2, levels_t), (3, levels_s), (4, levels_s)):
        for _ in range(levels):
            even, odd = x.unflatten(axis, (-1, 2)).unbind(axis + 1)
            x = torch.cat([even + odd, even - odd], dim=1) / 2
    return x.flatten(1).T.contiguous()


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return F.linear(x.float(), weight, bias)


def _levels(factor: int, axis: str) -> int:
    if factor < 1 or factor & (factor - 1):
        raise ValueError(f"{axis} patch is {factor}, but a Haar stem needs a power of two")
    return int(math.log2(factor))


def _check_groups(many: int, few: int, layer: str) -> None:
    if many % few:
        raise ValueError(
            f"{layer} averages {many} channels into {few}, which does not divide them; "
            "choose channels whose ratio is a whole number"
        )
