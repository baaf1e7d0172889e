"""Inception-v1 I3D on RGB: Carreira and Zisserman 2017, arXiv 1705.07750.

Parts are named as in the widely shared PyTorch conversions of the Kinetics-400 weights, so that
their state dicts load as they are.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

# Widths of the branches: 1x1; 1x1 then 3x3; 1x1 then 3x3; pooled then 1x1.
_MIXED = {
    "Mixed_3b": (192, 64, 96, 128, 16, 32, 32),
    "Mixed_3c": (256, 128, 128, 192, 32, 96, 64),
    "Mixed_4b": (480, 192, 96, 208, 16, 48, 64),
    "Mixed_4c": (512, 160, 112, 224, 24, 64, 64),
    "Mixed_4d": (512, 128, 128, 256, 24, 64, 64),
    "Mixed_4e": (512, 112, 144, 288, 32, 64, 64),
    "Mixed_4f": (528, 256, 160, 320, 32, 128, 128),
    "Mixed_5b": (832, 256, 160, 320, 32, 128, 128),
    "Mixed_5c": (832, 384, 192, 384, 48, 128, 128),
}


def pad_same(
    x: Float[Tensor, "B D T H W"], kernel: Sequence[int], stride: Sequence[int]
) -> Float[Tensor, "B D T2 H2 W2"]:
    """Pad with zeros so that the output has ceil(length / stride) places, as TensorFlow does."""
    padding: list[int] = []
    for length, k, s in zip(reversed(x.shape[2:]), reversed(kernel), reversed(stride), strict=True):
        total = max(k - (s if length % s == 0 else length % s), 0)
        padding += [total // 2, total - total // 2]
    return F.pad(x, padding)


class Unit(nn.Module):
    """Convolution, normalisation, ReLU; or, as the last layer, a convolution with a bias."""

    def __init__(
        self, narrow: int, wide: int, kernel: int = 1, stride: int = 1, last: bool = False
    ) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(narrow, wide, kernel, stride, bias=last)
        self.bn = None if last else nn.BatchNorm3d(wide, eps=1e-3)

    def forward(self, x: Float[Tensor, "B D T H W"]) -> Float[Tensor, "B D2 T2 H2 W2"]:
        x = self.conv3d(pad_same(x, self.conv3d.kernel_size, self.conv3d.stride))
        return x if self.bn is None else F.relu(self.bn(x))


class Mixed(nn.Module):
    """Four branches side by side."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        narrow, one, before3, three, before5, five, pooled = widths
        self.b0 = Unit(narrow, one)
        self.b1a, self.b1b = Unit(narrow, before3), Unit(before3, three, 3)
        self.b2a, self.b2b = Unit(narrow, before5), Unit(before5, five, 3)
        self.b3b = Unit(narrow, pooled)

    def forward(self, x: Float[Tensor, "B D T H W"]) -> Float[Tensor, "B D2 T H W"]:
        pooled = _pool(x, (3, 3, 3), (1, 1, 1))
        branches = self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)
        return torch.cat(branches, dim=1)


class I3D(nn.Module):
    """Clips in [-1, 1] of 224 x 224 pixels and at least 9 frames to logits, averaged over time."""

    def __init__(self, num_classes: int = 400) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit(3, 64, 7, 2)
        self.Conv3d_2b_1x1 = Unit(64, 64)
        self.Conv3d_2c_3x3 = Unit(64, 192, 3)
        for name, widths in _MIXED.items():
            self.add_module(name, Mixed(widths))
        self.logits = Unit(1024, num_classes, last=True)
        self.requires_grad_(False).eval()

    def forward(self, clip: Float[Tensor, "B 3 T 224 224"]) -> Float[Tensor, "B K"]:
        x = _pool(self.Conv3d_1a_7x7(clip), (1, 3, 3), (1, 2, 2))
        x = _pool(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x)), (1, 3, 3), (1, 2, 2))
        for name in _MIXED:
            if name == "Mixed_4b":
                x = _pool(x, (3, 3, 3), (2, 2, 2))
            if name == "Mixed_5b":
                x = _pool(x, (2, 2, 2), (2, 2, 2))
            x = self.get_submodule(name)(x)
        return self.logits(F.avg_pool3d(x, (2, 7, 7), stride=1)).mean((2, 3, 4))


def _pool(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    return F.max_pool3d(pad_same(x, kernel, stride), kernel, stride)
