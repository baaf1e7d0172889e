from lm.autoregressive import AutoregressivePrior
from lm.condition import Condition, Guide, Inputs
from lm.latent_diffusion import LatentDiffusionPrior
from lm.latent_module import LatentPriorModule
from lm.latent_prior import LatentPrior
from lm.lightning_module import PriorModule
from lm.maskgit import MaskGITPrior
from lm.sampling import Sampling
from lm.text import TextTokenizer
from lm.text_encoder import T5TextEncoder
from lm.token_diffusion import TokenDiffusionPrior
from lm.transformer import Transformer

__all__ = [
    "AutoregressivePrior",
    "Condition",
    "Guide",
    "Inputs",
    "LatentDiffusionPrior",
    "LatentPrior",
    "LatentPriorModule",
    "MaskGITPrior",
    "PriorModule",
    "Sampling",
    "T5TextEncoder",
    "TextTokenizer",
    "TokenDiffusionPrior",
    "Transformer",
]
