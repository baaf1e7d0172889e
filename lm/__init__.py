from lm.autoregressive import AutoregressivePrior
from lm.continuous import TokenDiffusionPrior
from lm.lightning_module import PriorModule
from lm.maskgit import MaskGITPrior
from lm.text import TextTokenizer
from lm.transformer import Transformer

__all__ = [
    "AutoregressivePrior",
    "MaskGITPrior",
    "PriorModule",
    "TextTokenizer",
    "TokenDiffusionPrior",
    "Transformer",
]
