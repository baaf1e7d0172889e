"""What may enter a tokenizer, clips at one end, tokens or latents at the other, or build one.

Inputs are typed as plain tensors: these checks are what gives a shape or a type its sentence.
"""

import torch
from torch import Tensor, nn


def check_precision(tokenizer: nn.Module) -> None:
    """Raise ValueError unless all parameters are float32."""
    for p in tokenizer.parameters():
        if p.dtype != torch.float32:
            raise ValueError(
                f"the tokenizer is in {p.dtype}, which gives many other tokens; keep it in float32 "
                "and use autocast, under which about one in a hundred differs"
            )


def check_pixels(clip: Tensor) -> None:
    """Raise ValueError unless `clip` is floating point, B 3 T H W, not empty and in [-1, 1]."""
    if not clip.is_floating_point():
        raise ValueError(
            f"clip is {clip.dtype}, but pixels must be floating point in [-1, 1]; convert uint8 "
            "frames with data.video.to_model_range"
        )
    if clip.ndim != 5 or clip.shape[1] != 3:
        raise ValueError(
            f"clip has shape {tuple(clip.shape)}, but must be (B, 3, T, H, W): batch, RGB, frames, "
            "height, width; an image is a clip of one frame"
        )
    if not clip.numel():
        raise ValueError(f"clip has shape {tuple(clip.shape)}, so no pixel; give at least 1 frame")
    low, high = clip.aminmax()
    if not (low >= -1.01 and high <= 1.01):
        raise ValueError(
            f"clip has values in [{low:.3g}, {high:.3g}], but pixels must be finite and lie in "
            "[-1, 1]; convert uint8 frames with data.video.to_model_range"
        )


def check_strides(clip: Tensor, temporal: int, spatial: int) -> None:
    """Raise ValueError unless T, H and W of a later chunk are multiples of the strides."""
    T, H, W = clip.shape[2:]
    if T % temporal:
        below = T // temporal * temporal
        raise ValueError(
            f"the chunk has {T} frames, but behind the first one temporal stride {temporal} needs "
            f"{temporal} k; use {f'{below} or ' if below else ''}{below + temporal}"
        )
    if H % spatial or W % spatial:
        raise ValueError(
            f"clip is {H} x {W} pixels, but height and width must be multiples of the spatial "
            f"stride {spatial}; resize or crop it"
        )


def check_tokens(tokens: Tensor, codebook_size: int) -> None:
    """Raise ValueError unless `tokens` is integer, B t h w, not empty and in [0, codebook_size)."""
    if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        raise ValueError(
            f"tokens are {tokens.dtype}, but must be integers; decode what encode returned"
        )
    if tokens.ndim != 4 or not tokens.numel():
        raise ValueError(
            f"tokens have shape {tuple(tokens.shape)}, but must be (B, t, h, w), none of the sizes "
            "0; decode what encode returned"
        )
    low, high = (int(x) for x in tokens.long().aminmax())  # few operations take uint16
    if low < 0 or high >= codebook_size:
        raise ValueError(
            f"tokens lie in [{low}, {high}], but this tokenizer's codebook has {codebook_size} "
            "codes; decode with the tokenizer that encoded them"
        )


def check_latents(latents: Tensor, dim: int) -> None:
    """Raise ValueError unless `latents` is floating point, B `dim` t h w and not empty."""
    if not latents.is_floating_point():
        raise ValueError(
            f"latents are {latents.dtype}, but must be floating point; decode what encode_latents "
            "returned"
        )
    if latents.ndim != 5 or latents.shape[1] != dim or not latents.numel():
        raise ValueError(
            f"latents have shape {tuple(latents.shape)}, but must be (B, {dim}, t, h, w), none of "
            "them 0; decode with the tokenizer that encoded them"
        )


def check_levels(
    channels: list[int], strides: list[list[int]], encoder: list[int], decoder: list[int]
) -> None:
    """Raise ValueError unless each level has channels and depths, and a stride to the next."""
    if channels and min(channels) < 1:
        raise ValueError(f"channels is {channels}, but each level has 1 or more")
    if not len(strides) + 1 == len(channels) == len(encoder) == len(decoder):
        raise ValueError(
            f"channels {channels} has {len(channels)} levels, which needs as many encoder and "
            f"decoder depths {encoder, decoder} and one stride fewer, not {strides}"
        )


def check_factors(patch: list[int], strides: list[list[int]]) -> None:
    """Raise ValueError unless patch and strides are (temporal, spatial), of at least 1."""
    for name, given, pairs in (("patch", patch, [patch]), ("strides", strides, strides)):
        if any(len(pair) != 2 or min(pair) < 1 for pair in pairs):
            raise ValueError(
                f"{name} is {given}, but its factors are (temporal, spatial) and at least 1; write "
                "1 where an axis stays as it is"
            )
