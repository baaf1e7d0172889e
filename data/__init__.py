"""Sources of clips. The data module, which imports Lightning, is `data.datamodule`."""

from data.folder import VideoFolder
from data.schedule import Stage
from data.shapes import Shapes
from data.shard_folder import ShardFolder
from data.source import ClipSource, Place, Sample

__all__ = [
    "ClipSource",
    "Place",
    "Sample",
    "Shapes",
    "ShardFolder",
    "Stage",
    "VideoFolder",
]
