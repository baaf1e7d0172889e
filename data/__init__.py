"""Sources of clips and of tokens.

The data modules, which import Lightning, are `data.datamodule` and `data.token_datamodule`.
"""

from data.digits import Digits
from data.folder import VideoFolder
from data.schedule import Stage
from data.shapes import Shapes
from data.shard_folder import ShardFolder
from data.source import ClipSource, Place, Sample
from data.stochastic_mnist import StochasticMNIST
from data.tokens import TokenFolder

__all__ = [
    "ClipSource",
    "Digits",
    "Place",
    "Sample",
    "Shapes",
    "ShardFolder",
    "Stage",
    "StochasticMNIST",
    "TokenFolder",
    "VideoFolder",
]
