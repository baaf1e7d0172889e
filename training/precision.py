"""Which precision a machine is fast in."""

import torch


def has_fast_bf16(device: torch.device) -> bool:
    """Say whether matrix products in bfloat16 beat float32 on this device."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported()
    return device.type == "mps"


def autocast(device: torch.device) -> torch.autocast:
    """Return a context of bfloat16 autocast where the device is fast in it, else of no change."""
    return torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bf16(device))
