"""Video files to uint8 clips and back, and the one conversion between uint8 and [-1, 1].

Frames are read and written through PyAV, which carries its own FFmpeg; Pillow writes GIF and reads
pictures, which are videos of one frame.
"""

from collections.abc import Iterator
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import av
import numpy as np
import torch
from av.container import OutputContainer
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from data.container import VideoError as VideoError
from data.container import decoded_frames, describe, frame_rate, open_video, read_picture
from data.resizing import centre, scaled

MAX_GIF_FPS = 50.0  # players take shorter delays for a mistake

# FFmpeg's faster rounding makes every picture a level darker, on the way in and on the way out.
SCALING = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


class VideoInfo(NamedTuple):
    """What a file says about its video before it is decoded.

    `num_frames` is the container's own count; where it keeps none (webm, mkv), the stored packets
    counted without decoding. `height` and `width` are those of the picture as shown, upright.
    """

    num_frames: int
    fps: float
    height: int
    width: int


def probe(source: str | Path | bytes) -> VideoInfo:
    """Read frame count, rate and size; only the first frame is decoded."""
    picture = read_picture(source)
    if picture is not None:
        return VideoInfo(1, 1.0, picture.height, picture.width)
    with open_video(source) as (container, stream):
        frame = next(container.decode(stream), None)
        if frame is None:
            raise VideoError(f"{describe(source)} holds no video frame")
        rate, height, width = frame_rate(stream), frame.height, frame.width
        if frame.rotation % 180:
            height, width = width, height
        num_frames = stream.frames
    if not num_frames:
        with open_video(source) as (container, stream):
            num_frames = sum(packet.size > 0 for packet in container.demux(stream))
    return VideoInfo(num_frames, rate, height, width)


def iterate_frames(
    source: str | Path | bytes,
    size: int | None = None,
    start: int = 0,
    stride: int = 1,
    fps: float | None = None,
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Decode frames one at a time, in the order shown and turned upright.

    Of several video streams the one FFmpeg calls best is read (the largest picture, as players
    do). Decoding takes one thread, so that loader workers do not multiply threads, and runs from
    the first frame even where `start` is later, so that a frame's number means the same in every
    file. A broken or cut-off file raises `VideoError` when the damage is reached.

    Args:
        source: A path, or the file's bytes; a picture (bmp, jpeg, png, webp) is one frame.
        size: Side of the square: the short side is resized to it, the long one centre-cropped.
            None keeps the picture as stored.
        start: How many frames to pass over.
        stride: Every how many frames to take.
        fps: Resample to this rate first, by the frame nearest in time; `start` and `stride` then
            count resampled frames. A slower video keeps its own frames.
    """
    for name, value, least in (("size", size, 1), ("start", start, 0), ("stride", stride, 1)):
        if value is not None and value < least:
            raise ValueError(f"{name} is {value}, but must be at least {least}")
    if fps is not None and not fps > 0:
        raise ValueError(f"fps is {fps}, but must be above 0; leave it out to keep every frame")
    return pictures(islice(decoded_frames(source, fps), start, None, stride), size)


def pictures(
    frames: Iterator[av.VideoFrame], size: int | None
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Convert decoded frames to upright RGB, of `size` as in `iterate_frames`."""
    reformatter = VideoReformatter()  # one for all frames: a scaler is slow to build
    height = width = 0
    for frame in frames:
        if not height:  # a stream that changes size midway keeps the size it began with
            height, width = scaled(frame.height, frame.width, size)
        picture = reformatter.reformat(
            frame, width, height, "rgb24", interpolation=SCALING, threads=1
        ).to_ndarray()
        if size is not None:
            picture = picture[centre(height, width, size)]
        yield np.ascontiguousarray(np.rot90(picture, frame.rotation // 90))


def decode_clip(
    source: str | Path | bytes,
    *,
    start: int = 0,
    num_frames: int | None = None,
    stride: int = 1,
    size: int | None = None,
) -> UInt8[Tensor, "T H W 3"]:
    """Decode one clip as `iterate_frames` does; without `num_frames`, to the end of the video."""
    if num_frames is not None and num_frames < 1:
        raise ValueError(f"num_frames is {num_frames}, but a clip has at least 1")
    frames = list(islice(iterate_frames(source, size, start, stride), num_frames))
    if len(frames) < (num_frames or 1):
        raise VideoError(
            f"{describe(source)} gives {len(frames)} frames from frame {start} at stride {stride}, "
            f"but {num_frames or 'at least 1'} were asked for; ask for fewer or start earlier"
        )
    return torch.from_numpy(np.stack(frames))


def to_model_range(clip: UInt8[Tensor, "*B T H W 3"]) -> Float[Tensor, "*B 3 T H W"]:
    """Map 0..255 to [-1, 1] and put the channels first; other than bytes are a ValueError."""
    if clip.dtype != torch.uint8:
        raise ValueError(f"frames are {clip.dtype}, but must be uint8; use data.video.to_uint8")
    return rearrange(clip, "... T H W C -> ... C T H W").float() / 127.5 - 1


def to_uint8(clip: Float[Tensor, "*B 3 T H W"]) -> UInt8[Tensor, "*B T H W 3"]:
    """Invert `to_model_range`: exactly on its values, by clamping and rounding on any other."""
    levels = ((clip.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return rearrange(levels, "... C T H W -> ... T H W C").contiguous()


class VideoWriter:
    """Stream frames into an mp4; the memory it takes does not grow with the video.

    The file appears under its name when the `with` block ends, and not at all if that fails.

    Args:
        path: Where to write; the suffix is .mp4.
        fps: Frames a second.
        lossless: Keep every pixel exactly (H.264 in RGB, which few browsers show). The default,
            4:2:0 at good quality, plays everywhere and repeats the last row or column of a
            picture whose height or width is odd.
        gop: Frames from one key frame to the next at most: a short one makes a window quick to
            reach. The default, 250, makes the file small.
    """

    def __init__(
        self, path: str | Path, fps: float, lossless: bool = False, gop: int = 250
    ) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() != ".mp4":
            raise ValueError(f"path is {self.path.name!r}, but VideoWriter writes .mp4 files only")
        if not fps > 0:
            raise ValueError(f"fps is {fps}, but must be above 0")
        self.fps, self.lossless, self.gop = fps, lossless, gop
        self._partial = self.path.with_name(f".{self.path.name}.partial")
        self._pixel_format = "rgb24" if lossless else "yuv420p"
        self._reformatter = VideoReformatter()
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._shape: tuple[int, ...] = ()

    def __enter__(self) -> "VideoWriter":
        return self

    def write(self, frames: UInt8[Tensor, "T H W 3"]) -> None:
        """Append frames; all calls bring the same height and width."""
        if not len(frames):
            return
        if self._stream is None:
            self._open(frames.shape[1], frames.shape[2])
        if frames.shape[1:3] != self._shape:
            raise ValueError(
                f"frames are {tuple(frames.shape[1:3])}, but the video began with {self._shape}; "
                "resize them or open another file"
            )
        for picture in frames.cpu().numpy():
            margin = [(0, self._padding(n)) for n in self._shape]
            picture = np.pad(picture, [*margin, (0, 0)], mode="edge")
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            self._encode(
                self._reformatter.reformat(
                    frame, format=self._pixel_format, interpolation=SCALING, threads=1
                )
            )

    def _padding(self, length: int) -> int:
        return 0 if self.lossless else length % 2

    def _open(self, height: int, width: int) -> None:
        self._shape = (height, width)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        container = av.open(
            str(self._partial), "w", format="mp4", options={"movflags": "faststart"}
        )
        codec, quality = ("libx264rgb", "0") if self.lossless else ("libx264", "18")
        rate = Fraction(self.fps).limit_denominator(1001)
        # x264's macroblock tree reads memory it never wrote at small widths: other bytes each run.
        options = {"crf": quality, "mbtree": "0", "g": str(self.gop)}
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = (n + self._padding(n) for n in self._shape)
        stream.pix_fmt = self._pixel_format
        stream.codec_context.thread_count = 1  # the same bytes on every machine
        self._container, self._stream = container, stream

    def _encode(self, frame: av.VideoFrame | None) -> None:
        assert self._container is not None
        assert self._stream is not None
        self._container.mux(self._stream.encode(frame))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._container is None:
            if kind is None:
                raise ValueError(f"no frame was written to {self.path}; write at least one")
            return
        try:
            if kind is None:
                self._encode(None)
            self._container.close()
            if kind is None:
                self._partial.replace(self.path)
        finally:
            self._partial.unlink(missing_ok=True)


def write_video(path: str | Path, clip: UInt8[Tensor, "T H W 3"], fps: float) -> None:
    """Write a clip as .mp4 or .gif, by the suffix of `path`.

    A GIF has one palette for all frames and repeats for ever; Pillow joins equal neighbouring
    frames into one that is shown longer.
    """
    path = Path(path)
    if not len(clip):
        raise ValueError("clip has 0 frames, but a video needs at least 1")
    if path.suffix.lower() == ".mp4":
        with VideoWriter(path, fps) as writer:
            writer.write(clip)
    elif path.suffix.lower() == ".gif":
        _write_gif(path, clip, fps)
    else:
        raise ValueError(f"path ends in {path.suffix!r}, but a video is written as .mp4 or .gif")


def _write_gif(path: Path, clip: UInt8[Tensor, "T H W 3"], fps: float) -> None:
    if not 0 < fps <= MAX_GIF_FPS:
        raise ValueError(f"fps is {fps}, but a GIF plays above 0, at most {MAX_GIF_FPS}; use mp4")
    height, width = clip.shape[1:3]
    column = Image.fromarray(rearrange(clip.cpu().numpy(), "T H W C -> (T H) W C"))
    column = column.quantize(255)  # of 256, one stays free to mark what does not change
    frames = [column.crop((0, top, width, top + height)) for top in range(0, column.height, height)]
    ends = [round(100 * (k + 1) / fps) for k in range(len(frames))]  # a GIF counts hundredths
    duration = [10 * (end - begin) for begin, end in pairwise([0, *ends])]
    path.parent.mkdir(parents=True, exist_ok=True)
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=duration, loop=0)
