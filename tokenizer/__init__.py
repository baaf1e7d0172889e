from tokenizer.discriminator import Adversary, PatchDiscriminator
from tokenizer.lightning_module import TokenizerModule
from tokenizer.model import Reconstruction, Tokenizer
from tokenizer.perceptual import Perceptual
from tokenizer.quantizers import FSQ, KL, LFQ, VQ, Bottleneck, Quantized, Quantizer

__all__ = [
    "FSQ",
    "KL",
    "LFQ",
    "VQ",
    "Adversary",
    "Bottleneck",
    "PatchDiscriminator",
    "Perceptual",
    "Quantized",
    "Quantizer",
    "Reconstruction",
    "Tokenizer",
    "TokenizerModule",
]
