from lm.autoregressive import AutoregressivePrior
from lm.condition import Condition, Guide, Inputs
from lm.continuous import TokenDiffusionPrior
from lm.lightning_module import PriorModule
from lm.maskgit import MaskGITPrior
from lm.sampling import Sampling
from lm.text import TextTokenizer
from lm.text_encoder import T5TextEncoder
from lm.transformer import Transformer

__all__ = [
    "AutoregressivePrior",
    "Condition",
    "Guide",
    "Inputs",
    "MaskGITPrior",
    "PriorModule",
    "Sampling",
    "T5TextEncoder",
    "TextTokenizer",
    "TokenDiffusionPrior",
    "Transformer",
]
