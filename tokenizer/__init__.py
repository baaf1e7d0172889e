from tokenizer.bottleneck import Bottleneck, Quantized, Quantizer
from tokenizer.discriminator import Adversary, PatchDiscriminator
from tokenizer.frames import FrameTokenizer
from tokenizer.latents import LatentCodec, codec_of
from tokenizer.lightning_module import TokenizerModule
from tokenizer.model import Reconstruction, Tokenizer
from tokenizer.perceptual import Perceptual
from tokenizer.quantizers import FSQ, KL, LFQ, VQ
from tokenizer.tiling import TiledTokenizer

__all__ = [
    "FSQ",
    "KL",
    "LFQ",
    "VQ",
    "Adversary",
    "Bottleneck",
    "FrameTokenizer",
    "LatentCodec",
    "PatchDiscriminator",
    "Perceptual",
    "Quantized",
    "Quantizer",
    "Reconstruction",
    "TiledTokenizer",
    "Tokenizer",
    "TokenizerModule",
    "codec_of",
]
