"""Noise that is shaped like what it hides: as large in each place, and in each direction."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffusion.condition import fold, unfold

LEVEL = 1 / 127.5  # a level of 255 of a clip in [-1, 1]; what varies less is not made louder


class Whitening(nn.Module):
    """Brings the principal components of patches to deviation 1, and back.

    What a CNN leaves open is mostly coarse. Noise of one deviation in every pixel hides the coarse
    long before the fine, so that at the end each pixel of an edge is drawn by itself; in this basis
    all of it is hidden, and found again, together.

    Args:
        patch: Pixels on the side of a patch.
    """

    basis: Tensor
    deviations: Tensor

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.register_buffer("basis", torch.eye(3 * patch**2))
        self.register_buffer("deviations", torch.ones(3 * patch**2))

    @torch.no_grad()
    def fit(self, x: Float[Tensor, "B 3 T H W"]) -> None:
        """Take the components of the patches of some clips, about zero."""
        rows = fold(x.double(), self.patch).movedim(1, 0).flatten(1)
        variances, basis = torch.linalg.eigh(rows @ rows.mT / rows.shape[1])
        self.basis.copy_(basis)
        self.deviations.copy_(variances.clamp(min=LEVEL**2).sqrt())

    def inward(self, x: Float[Tensor, "B 3 T H W"]) -> Float[Tensor, "B 3 T H W"]:
        """Return the components; those of a patch stand where its pixels stood."""
        return self._turned(x, self.basis.mT / self.deviations[:, None])

    def outward(self, x: Float[Tensor, "B 3 T H W"]) -> Float[Tensor, "B 3 T H W"]:
        """Undo `inward`."""
        return self._turned(x, self.basis * self.deviations)

    def _turned(self, x: Tensor, matrix: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            turned = torch.einsum(
                "b d t h w, e d -> b e t h w", fold(x.float(), self.patch), matrix
            )
        return unfold(turned, self.patch)


class LocalScale(nn.Module):
    """How far clips lie from what a CNN makes of them, read off how much that varies in a patch.

    At an edge a CNN misses by ten times what it misses of a smooth place, and noise of one
    deviation for both drowns what is fine there. On textured shapes what a decoder samples has a
    kurtosis of 12 patch by patch without and of 2.5 with it, which is no more than a network
    trained to tell the size from 5 x 5 patches reaches.

    Args:
        patch: Pixels on the side of a patch.
        knots: Patches of a batch are ranked by how much they vary, and parted into so many groups.
    """

    variations: Tensor
    scales: Tensor

    def __init__(self, patch: int, knots: int = 32) -> None:
        super().__init__()
        self.patch, self.knots = patch, knots
        self.register_buffer("variations", torch.arange(knots, dtype=torch.float))
        self.register_buffer("scales", torch.ones(knots))

    @torch.no_grad()
    def fit(self, x: Float[Tensor, "B 3 T H W"], base: Float[Tensor, "B 3 T H W"]) -> None:
        """Take the root mean square of each group of patches.

        Args:
            x: What the CNN's clips lack.
            base: The CNN's clips.
        """
        variation, order = self._variation(base).flatten().sort()
        squares = fold(x.float(), self.patch).square().mean(1).flatten()[order]
        starts = [len(order) * group // self.knots for group in range(self.knots + 1)]
        for group, (start, end) in enumerate(pairwise(starts)):
            ranks = slice(start, max(end, start + 1))  # with few patches, some stand for two groups
            self.variations[group] = variation[ranks].mean()
            self.scales[group] = squares[ranks].mean().sqrt().clamp(min=LEVEL)

    def forward(self, base: Float[Tensor, "B 3 T H W"]) -> Float[Tensor, "B 1 T H W"]:
        """Return what to divide by in each pixel of a clip, between groups in proportion."""
        variation = self._variation(base)
        right = torch.bucketize(variation, self.variations).clamp(1, self.knots - 1)
        start, end = self.variations[right - 1], self.variations[right]
        weight = ((variation - start) / (end - start).clamp(min=1e-6)).clamp(0, 1)
        scale = self.scales[right - 1].lerp(self.scales[right], weight)
        return scale.repeat_interleave(self.patch, 2).repeat_interleave(self.patch, 3)[:, None]

    def _variation(self, base: Tensor) -> Float[Tensor, "B T h w"]:
        """Return the deviation of the grey values of each patch."""
        return fold(base.float().mean(1, keepdim=True), self.patch).std(1, correction=0)
