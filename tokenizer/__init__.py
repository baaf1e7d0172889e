from tokenizer.lightning_module import TokenizerModule
from tokenizer.model import Reconstruction, Tokenizer
from tokenizer.quantizers import FSQ, Quantized, Quantizer

__all__ = ["FSQ", "Quantized", "Quantizer", "Reconstruction", "Tokenizer", "TokenizerModule"]
