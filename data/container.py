"""A video file opened with care: one stream, no file behind the file, every damage named.

A picture file is a video of one frame.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.stream import VideoStream
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

# Only plain containers: a playlist named .mp4 would make FFmpeg open the files it lists.
_CONTAINERS = "avi,gif,matroska,mov"
_PICTURES = "BMP", "JPEG", "PNG", "WEBP"

# A small file can name any size: what is unpacked or resized at once has to stay small.
_MOST_PIXELS, _MOST_TO_ONE = 2**26, 64


class VideoError(ValueError):
    """A file or byte string that is not the whole, readable video it should be."""


def describe(source: str | Path | bytes) -> str:
    """Name a source in an error message."""
    return f"the {len(source)} bytes given" if isinstance(source, bytes) else str(source)


@contextmanager
def open_video(source: str | Path | bytes) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a source and choose its stream; FFmpeg's errors inside the block become `VideoError`.

    Of several video streams it is the one FFmpeg calls best: the largest picture, as players do.
    """
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise VideoError(f"{source} is not a file; check the path")
    target = BytesIO(source) if isinstance(source, bytes) else str(Path(source).absolute())
    try:
        with av.open(target, "r", options={"format_whitelist": _CONTAINERS}) as container:
            stream = container.streams.best("video")
            # A cover picture inside a sound file is a video stream to FFmpeg.
            if stream is None or stream.disposition & Disposition.attached_pic:
                raise VideoError(f"{describe(source)} has no video stream; remove or replace it")
            assert isinstance(stream, VideoStream)
            stream.thread_type = "NONE"
            yield container, stream
    except (FFmpegError, UnicodeDecodeError) as error:  # the latter from damaged metadata
        reason = error.strerror if isinstance(error, FFmpegError) else error
        raise VideoError(
            f"{describe(source)} is broken, cut off or not an avi, gif, mkv, mov, mp4 or webm "
            f"video, nor a bmp, jpeg, png or webp picture ({reason}); remove or replace it"
        ) from error


def read_picture(source: str | Path | bytes) -> av.VideoFrame | None:
    """Return the one frame of a picture file, upright and opaque; None for any other source.

    Raises:
        VideoError: The picture is broken, too large, or one of several that follow each other.
    """
    if not isinstance(source, bytes) and not Path(source).is_file():
        return None
    target = BytesIO(source) if isinstance(source, bytes) else Path(source)
    try:
        with Image.open(target, formats=_PICTURES) as picture:
            _require_one(picture, describe(source))
            return av.VideoFrame.from_ndarray(_rgb(ImageOps.exif_transpose(picture)), "rgb24")
    except UnidentifiedImageError:
        return None
    except VideoError:
        raise
    except Exception as error:  # Pillow has no one error for damage
        raise VideoError(
            f"{describe(source)} is a broken or cut off picture ({error}); remove or replace it"
        ) from error


def _require_one(picture: Image.Image, name: str) -> None:
    short, long = sorted(picture.size)
    if short * long > _MOST_PIXELS or long > _MOST_TO_ONE * short:
        raise VideoError(
            f"{name} is {picture.height} x {picture.width} pixels, but a picture has at most "
            f"{_MOST_PIXELS} and is at most {_MOST_TO_ONE} times as long as wide; cut it"
        )
    # The second picture of a jpeg is another view of the same.
    if picture.format in ("PNG", "WEBP") and getattr(picture, "n_frames", 1) > 1:
        raise VideoError(f"{name} is a picture that moves; write it as a gif or an mp4")


def _rgb(picture: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    if picture.mode.startswith("I;16"):  # which Pillow would clip to its lowest levels
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    return np.asarray(picture.convert("RGB"))


def frame_rate(stream: VideoStream) -> float:
    """Give the mean frames a second; 1 for a lone picture, which has no rate."""
    return float(stream.average_rate or stream.guessed_rate or stream.base_rate or 1)


def decoded_frames(source: str | Path | bytes, fps: float | None) -> Iterator[av.VideoFrame]:
    """Decode all frames in the order shown, resampled to `fps` unless the video is slower."""
    picture = read_picture(source)
    if picture is not None:
        yield picture
        return
    with open_video(source) as (container, stream):
        native = float(stream.base_rate or frame_rate(stream))  # the finest step between frames
        frames = _whole_stream(container, stream, describe(source))
        if fps is None or fps >= native:
            yield from frames
        else:
            yield from _nearest_in_time(frames, fps, native)


def sampled_rate(source: str | Path | bytes, fps: float | None) -> float:
    """Give the frames a second that `decoded_frames` gives."""
    with open_video(source) as (_, stream):
        native = float(stream.base_rate or frame_rate(stream))
        return fps if fps is not None and fps < native else frame_rate(stream)


def frames_from(source: bytes, start: int, fps: float) -> Iterator[av.VideoFrame]:
    """Decode from frame `start` of a steady video of `fps`, beginning at the key frame before it.

    Only for files whose frame k is shown at k / fps, as `data.prepare` writes them.
    """
    with open_video(source) as (container, stream):
        assert stream.time_base is not None
        if start:
            container.seek(round(start / fps / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise VideoError(f"{describe(source)} are broken; replace them")
            assert frame.time is not None
            if round(frame.time * fps) >= start:
                yield frame


def _whole_stream(
    container: InputContainer, stream: VideoStream, name: str
) -> Iterator[av.VideoFrame]:
    num_packets, end = 0, 0.0
    for packet in container.demux():
        if packet.is_corrupt:
            raise VideoError(f"{name} is broken or cut off after {end:.2f} s; replace it")
        if packet.pts is not None and packet.size:
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if packet.stream_index == stream.index:
            num_packets += packet.size > 0
            for frame in packet.decode():
                assert isinstance(frame, av.VideoFrame)
                if frame.is_corrupt:
                    raise VideoError(f"{name} is broken near {end:.2f} s; replace it")
                yield frame
    _require_whole(container, stream, name, num_packets, end)


def _require_whole(
    container: InputContainer, stream: VideoStream, name: str, num_packets: int, end: float
) -> None:
    """Compare what was read with what the header promises: a cut between packets is no error."""
    seconds = (container.duration or 0) / av.time_base
    if "gif" not in container.format.name and end < 0.95 * seconds - 1 / frame_rate(stream):
        raise VideoError(f"{name} is cut off: it ends after {end:.2f} of {seconds:.2f} s")
    if container.format.name == "avi" and num_packets < stream.frames:
        raise VideoError(f"{name} is cut off: it has {num_packets} of {stream.frames} frames")


def _nearest_in_time(
    frames: Iterator[av.VideoFrame], fps: float, native: float
) -> Iterator[av.VideoFrame]:
    """Give the frame on screen at each k / fps, or the next where that begins within half a frame.

    At a steady rate that is the nearest frame; a frame that is shown for long is repeated.
    """
    shown, end, count, origin = None, 0.0, 0, None
    for frame in frames:
        begin = end if frame.time is None else frame.time
        origin = begin if origin is None else origin
        while shown is not None and origin + count / fps < begin - 0.5 / native:
            yield shown
            count += 1
        lasts = frame.duration * frame.time_base if frame.duration and frame.time_base else 0
        shown, end = frame, begin + float(lasts or 1 / native)
    while shown is not None and origin is not None and origin + count / fps < end - 0.5 / native:
        yield shown
        count += 1
