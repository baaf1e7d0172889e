from data.datamodule import Batch, Stage, VideoDataModule
from data.folder import VideoFolder
from data.shapes import Shapes
from data.source import ClipSource, Sample

__all__ = [
    "Batch",
    "ClipSource",
    "Sample",
    "Shapes",
    "Stage",
    "VideoDataModule",
    "VideoFolder",
]
