"""How much of a clip survives the tokens."""

import math

from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from evaluation.codebook import CodebookUsage
from evaluation.pixel import FramePSNR, FrameSSIM


def reconstruction_figures(
    clips: UInt8[Tensor, "B T H W 3"],
    truth: UInt8[Tensor, "B T H W 3"],
    tokens: Int[Tensor, "B t h w"],
    codebook_size: int,
    objects: Bool[Tensor, "B T H W"] | None = None,
) -> dict[str, float]:
    """Return PSNR, SSIM, codes in use and bits a pixel; `psnr_object` where `objects` are known.

    Bits a pixel are those of the tokens as they are stored, log2(codebook size) each.
    """
    psnr, ssim, usage = FramePSNR(), FrameSSIM(), CodebookUsage(codebook_size)
    psnr.update(clips, truth)
    ssim.update(clips, truth)
    usage.update(tokens)
    figures = {
        "psnr": psnr.compute().item(),
        "ssim": ssim.compute().item(),
        "code_usage": usage.compute().share,
        "bits_per_pixel": tokens.numel() * math.log2(codebook_size) / truth[..., 0].numel(),
    }
    if objects is not None:
        psnr_object = FramePSNR()
        psnr_object.update(clips, truth, objects)
        figures["psnr_object"] = psnr_object.compute().item()
    return figures
