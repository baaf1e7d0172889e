from diffusion.decoder import DiffusionDecoder
from diffusion.denoiser import Denoiser
from diffusion.dit import DiT
from diffusion.inflation import inflate
from diffusion.lightning_module import DiffusionDecoderModule, DistillationModule
from diffusion.objective import DiffusionObjective
from diffusion.schedule import CosineSchedule, LogLinearSchedule, Schedule
from diffusion.unet3d import UNet3D

__all__ = [
    "CosineSchedule",
    "Denoiser",
    "DiT",
    "DiffusionDecoder",
    "DiffusionDecoderModule",
    "DiffusionObjective",
    "DistillationModule",
    "LogLinearSchedule",
    "Schedule",
    "UNet3D",
    "inflate",
]
