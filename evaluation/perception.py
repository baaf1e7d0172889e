"""What other networks see in frames: perceptual distance, and how steady a clip looks to them.

LPIPS: Zhang et al. 2018, arXiv 1801.03924. Frame consistency: the CLIP-temp of EvalCrafter, Liu et
al. 2023, arXiv 2310.11440.
"""

from itertools import pairwise
from pathlib import Path

import torch
from einops import rearrange, reduce
from jaxtyping import Float, Float64, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from evaluation.extractors import device_of, file_hash, load_script


class PerceptualDistance(nn.Module):
    """LPIPS, or any other distance of pictures, from a TorchScript file.

    Args:
        path: A network from two batches of pictures in [-1, 1], N x 3 x H x W, to N numbers.
        sha256: What the file's hash must be.
    """

    def __init__(self, path: str | Path, sha256: str | None = None) -> None:
        super().__init__()
        self.sha256 = file_hash(path, sha256)
        self.name = f"lpips_{Path(path).stem}-{self.sha256[:8]}"
        self.network = load_script(path)

    @torch.no_grad()
    def forward(
        self, prediction: UInt8[Tensor, "B T H W 3"], target: UInt8[Tensor, "B T H W 3"]
    ) -> Float64[Tensor, "B T"]:
        """Return the distance of each frame to its target."""
        x, y = (
            rearrange(clip.to(device_of(self)), "B T H W C -> (B T) C H W").float() / 127.5 - 1
            for clip in (prediction, target)
        )
        return self.network(x, y).cpu().double().reshape(prediction.shape[:2])


def consistency(frames: Float[Tensor, "B T D"]) -> Float64[Tensor, "B S"]:
    """Return the cosine between each frame's features and those of the frame before."""
    frames = F.normalize(frames.double(), dim=-1)
    pairs = [reduce(a * b, "B D -> B", "sum") for a, b in pairwise(frames.unbind(1))]
    return torch.stack(pairs, dim=1)


def pixel_features(clip: UInt8[Tensor, "B T H W 3"]) -> Float[Tensor, "B T D"]:
    """Describe frames without any weights: by their pixels, the mean grey of the clip taken off."""
    flat = rearrange(clip, "B T H W C -> B T (H W C)").float()
    return flat - flat.mean((1, 2), keepdim=True)
