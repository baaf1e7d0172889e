from lm.autoregressive import AutoregressivePrior
from lm.text import TextTokenizer
from lm.transformer import Transformer

__all__ = ["AutoregressivePrior", "TextTokenizer", "Transformer"]
