"""Noise that is shaped like what it hides: patches in a basis where all directions weigh alike."""

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
