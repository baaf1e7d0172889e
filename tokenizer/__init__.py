from tokenizer.lightning_module import TokenizerModule
from tokenizer.model import Reconstruction, Tokenizer
from tokenizer.quantizers import FSQ, KL, LFQ, VQ, Bottleneck, Quantized, Quantizer
from tokenizer.tiling import TiledTokenizer

__all__ = [
    "FSQ",
    "KL",
    "LFQ",
    "VQ",
    "Bottleneck",
    "Quantized",
    "Quantizer",
    "Reconstruction",
    "TiledTokenizer",
    "Tokenizer",
    "TokenizerModule",
]
