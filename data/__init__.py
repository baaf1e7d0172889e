from data.datamodule import Batch, VideoDataModule
from data.folder import VideoFolder
from data.schedule import Stage
from data.shapes import Shapes
from data.shard_folder import ShardFolder
from data.source import ClipSource, Place, Sample

__all__ = [
    "Batch",
    "ClipSource",
    "Place",
    "Sample",
    "Shapes",
    "ShardFolder",
    "Stage",
    "VideoDataModule",
    "VideoFolder",
]
