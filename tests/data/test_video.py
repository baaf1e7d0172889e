"""Files to clips and back: exact counts, exact conversions, and every kind of broken file."""

import io
import random
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from einops import rearrange
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from data.resizing import resize_and_crop
from data.video import (
    VideoError,
    VideoWriter,
    decode_clip,
    iterate_frames,
    probe,
    to_model_range,
    to_uint8,
    write_video,
)

CLIPS = Path(__file__).parents[2].parent / "shared/clips"


def smooth_clip(num_frames=17, height=48, width=64):
    """Soft colours that drift to the right: what a codec keeps well."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    frames = [
        np.stack([(1 + np.sin(3 * x - 0.2 * k)) / 2, y, (x + y) / 2], axis=-1)
        for k in range(num_frames)
    ]
    return torch.from_numpy(np.round(255 * np.stack(frames)).astype(np.uint8))


def numbered_clip(num_frames, size=16):
    """Frame k is one grey level, 10 k: a decoded frame tells its own number."""
    levels = torch.arange(num_frames, dtype=torch.uint8)[:, None, None, None] * 10
    return levels.expand(-1, size, size, 3).contiguous()


def numbers(frames):
    return [round(float(np.asarray(frame).mean()) / 10) for frame in frames]


def write_container(path, clip, codec, *, muxing=None, rotation=0):
    with av.open(str(path), "w", options=muxing or {}) as container:
        stream = container.add_stream(codec, rate=8)
        stream.height, stream.width = clip.shape[1:3]
        stream.pix_fmt = "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        for picture in clip.numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def write_sound(path):
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def psnr(clip, other):
    return peak_signal_noise_ratio(clip.numpy(), other.numpy())


def test_to_uint8_inverts_to_model_range_on_every_level():
    levels = torch.arange(256, dtype=torch.uint8)
    clip = rearrange(levels, "(T H W C) -> T H W C", T=1, H=16, W=16).expand(-1, -1, -1, 3)
    unit = to_model_range(clip)
    assert unit.shape == (3, 1, 16, 16)
    assert (unit.min(), unit.max()) == (-1, 1)
    assert torch.equal(to_uint8(unit), clip)
    assert torch.equal(to_uint8(to_model_range(torch.stack([clip, clip]))[1]), clip)


def test_to_uint8_clamps_and_rounds_to_nearest():
    values = torch.tensor([-7.0, -1 + 0.4 / 127.5, -1 + 0.6 / 127.5, 7.0])
    assert to_uint8(values.expand(3, 1, 1, 4))[0, 0, :, 0].tolist() == [0, 0, 1, 255]


@pytest.mark.parametrize("num_frames", [1, 2, 17])
def test_mp4_keeps_the_frame_count_and_the_picture(tmp_path, num_frames):
    clip = smooth_clip(num_frames)
    write_video(tmp_path / "clip.mp4", clip, fps=8.0)
    decoded = decode_clip(tmp_path / "clip.mp4")
    assert decoded.shape == clip.shape
    assert psnr(clip, decoded) > 38
    assert probe(tmp_path / "clip.mp4") == (num_frames, 8.0, 48, 64)


def test_mp4_does_not_shift_grey_levels(tmp_path):
    clip = numbered_clip(26)
    write_video(tmp_path / "clip.mp4", clip, fps=8.0)
    assert (decode_clip(tmp_path / "clip.mp4").float() - clip.float()).abs().mean() < 0.5


def test_lossless_mp4_is_exact_even_for_noise_of_odd_size(tmp_path):
    noise = torch.randint(256, (5, 33, 47, 3), generator=torch.Generator().manual_seed(0))
    with VideoWriter(tmp_path / "clip.mp4", 8.0, lossless=True) as writer:
        writer.write(noise.to(torch.uint8))
    assert torch.equal(decode_clip(tmp_path / "clip.mp4").long(), noise)


def test_an_odd_size_is_padded_by_its_edge(tmp_path):
    clip = smooth_clip(2, 33, 47)
    write_video(tmp_path / "clip.mp4", clip, fps=8.0)
    decoded = decode_clip(tmp_path / "clip.mp4")
    assert decoded.shape == (2, 34, 48, 3)
    assert psnr(clip, decoded[:, :33, :47]) > 30
    assert (decoded[:, 33].float() - decoded[:, 32].float()).abs().mean() < 4


def test_writing_in_pieces_gives_the_same_file(tmp_path):
    clip = smooth_clip(9)
    write_video(tmp_path / "whole.mp4", clip, fps=8.0)
    with VideoWriter(tmp_path / "pieces.mp4", 8.0) as writer:
        for piece in clip.split([0, 1, 3, 5]):
            writer.write(piece)
    assert (tmp_path / "whole.mp4").read_bytes() == (tmp_path / "pieces.mp4").read_bytes()


def test_a_failed_writer_leaves_nothing_and_the_old_file_stays(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"old")

    def fail_midway():
        with VideoWriter(tmp_path / "clip.mp4", 8.0) as writer:
            writer.write(smooth_clip(2))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_midway()
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]
    assert (tmp_path / "clip.mp4").read_bytes() == b"old"


def test_the_writer_refuses_no_frames_and_frames_of_another_size(tmp_path):
    with pytest.raises(ValueError, match="no frame"), VideoWriter(tmp_path / "clip.mp4", 8.0):
        pass
    with VideoWriter(tmp_path / "clip.mp4", 8.0) as writer:
        writer.write(smooth_clip(1))
        with pytest.raises(ValueError, match=r"\(32, 32\).*\(48, 64\)"):
            writer.write(smooth_clip(1, 32, 32))
    assert len(decode_clip(tmp_path / "clip.mp4")) == 1


def test_gif_round_trip_keeps_frames_and_time(tmp_path):
    write_video(tmp_path / "clip.gif", smooth_clip(17), fps=8.0)
    decoded = decode_clip(tmp_path / "clip.gif")
    assert decoded.shape == (17, 48, 64, 3)
    assert psnr(smooth_clip(17), decoded) > 27
    with av.open(str(tmp_path / "clip.gif")) as container:
        assert container.duration == pytest.approx(17 / 8 * av.time_base, rel=0.01)


def test_equal_frames_of_a_gif_come_back_by_time(tmp_path):
    still = numbered_clip(2).repeat_interleave(torch.tensor([6, 1]), dim=0)
    write_video(tmp_path / "clip.gif", still, fps=10.0)
    assert numbers(iterate_frames(tmp_path / "clip.gif", fps=2.0)) == [0, 0]
    assert numbers(iterate_frames(tmp_path / "clip.gif")) == [0, 1]


def test_write_video_names_the_suffixes_it_takes(tmp_path):
    with pytest.raises(ValueError, match=r"'\.webm'.*\.mp4 or \.gif"):
        write_video(tmp_path / "clip.webm", smooth_clip(1), fps=8.0)
    with pytest.raises(ValueError, match="0 frames"):
        write_video(tmp_path / "clip.mp4", smooth_clip(1)[:0], fps=8.0)
    with pytest.raises(ValueError, match="fps is 0"):
        write_video(tmp_path / "clip.mp4", smooth_clip(1), fps=0.0)


def test_start_and_stride_count_frames_as_shown(tmp_path):
    write_video(tmp_path / "clip.mp4", numbered_clip(20), fps=8.0)
    clip = decode_clip(tmp_path / "clip.mp4", start=4, num_frames=5, stride=3)
    assert numbers(clip) == [4, 7, 10, 13, 16]
    assert numbers(iterate_frames(tmp_path / "clip.mp4", start=18)) == [18, 19]


@pytest.mark.parametrize(
    ("fps", "expected"),
    [(4.0, [*range(0, 24, 2)]), (24.0, [*range(24)]), (3.0, [0, 3, 5, 8, 11, 13, 16, 19, 21])],
)
def test_resampling_takes_the_frame_nearest_in_time(tmp_path, fps, expected):
    write_video(tmp_path / "clip.mp4", numbered_clip(24), fps=8.0)
    taken = numbers(iterate_frames(tmp_path / "clip.mp4", fps=fps))
    assert all(abs(k * 8 / min(fps, 8) - number) <= 0.5 for k, number in enumerate(taken))
    assert taken == expected


def test_bytes_decode_like_the_file(tmp_path):
    write_video(tmp_path / "clip.mp4", smooth_clip(3), fps=8.0)
    data = (tmp_path / "clip.mp4").read_bytes()
    assert torch.equal(decode_clip(data), decode_clip(str(tmp_path / "clip.mp4")))


def test_decoding_at_a_size_equals_decoding_and_resizing(tmp_path):
    write_video(tmp_path / "clip.mp4", smooth_clip(3, 60, 100), fps=8.0)
    small = decode_clip(tmp_path / "clip.mp4", size=32)
    assert small.shape == (3, 32, 32, 3)
    resized = resize_and_crop(decode_clip(tmp_path / "clip.mp4"), 32)
    assert (small.float() - resized.float()).abs().mean() < 1


def test_resize_and_crop_keeps_the_centre_of_the_long_side():
    clip = torch.zeros(1, 8, 24, 3, dtype=torch.uint8)
    clip[:, :, 8:16] = 200
    assert torch.equal(resize_and_crop(clip, 8), torch.full((1, 8, 8, 3), 200, dtype=torch.uint8))
    assert resize_and_crop(clip.transpose(1, 2), 5).shape == (1, 5, 5, 3)


def test_rotation_is_undone(tmp_path):
    clip = smooth_clip(2, 32, 48)
    write_container(tmp_path / "plain.mp4", clip, "libx264")
    write_container(tmp_path / "turned.mp4", clip, "libx264", rotation=90)
    turned, plain = decode_clip(tmp_path / "turned.mp4"), decode_clip(tmp_path / "plain.mp4")
    assert torch.equal(turned, torch.rot90(plain, 1, (1, 2)))  # FFmpeg counts anticlockwise
    assert probe(tmp_path / "turned.mp4")[2:] == (48, 32)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.webm", "libvpx"), ("a.mkv", "libx264"), ("a.mov", "libx264"), ("a.avi", "mpeg4")],
)
def test_other_containers_are_counted_and_a_cut_is_found(tmp_path, name, codec):
    noise = torch.randint(256, (20, 32, 32, 3), generator=torch.Generator().manual_seed(0))
    write_container(tmp_path / name, noise.to(torch.uint8), codec)
    assert probe(tmp_path / name) == (20, 8.0, 32, 32)
    assert len(decode_clip(tmp_path / name)) == 20
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(VideoError, match=name):
        decode_clip(tmp_path / name)


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.6, 0.97])
def test_an_mp4_cut_anywhere_is_an_error_that_names_it(tmp_path, kept):
    muxing = {"movflags": "faststart"}
    write_container(tmp_path / "cut.mp4", smooth_clip(40), "libx264", muxing=muxing)
    data = (tmp_path / "cut.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: int(kept * len(data))])
    with pytest.raises(VideoError, match=r"cut\.mp4"):
        decode_clip(tmp_path / "cut.mp4")


@pytest.mark.parametrize("content", [b"", b"a plain text\n" * 50, b"\x00" * 4096])
def test_what_is_not_a_video_is_an_error_that_names_it(tmp_path, content):
    (tmp_path / "odd.mp4").write_bytes(content)
    for read in (decode_clip, probe):
        with pytest.raises(VideoError, match=r"odd\.mp4"):
            read(tmp_path / "odd.mp4")
        with pytest.raises(VideoError, match=f"the {len(content)} bytes given"):
            read(content)


def test_a_playlist_named_mp4_opens_no_other_file(tmp_path):
    write_video(tmp_path / "secret.mp4", smooth_clip(2), fps=8.0)
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile secret.mp4\n")
    with pytest.raises(VideoError, match=r"list\.mp4"):
        decode_clip(tmp_path / "list.mp4")


def test_sound_without_pictures_and_missing_files_are_named(tmp_path):
    write_sound(tmp_path / "sound.mp4")
    with pytest.raises(VideoError, match=r"sound\.mp4 has no video stream"):
        decode_clip(tmp_path / "sound.mp4")
    with pytest.raises(VideoError, match=r"absent\.mp4 is not a file"):
        decode_clip(tmp_path / "absent.mp4")


def picture_bytes(kind, picture, **options):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "options", "error"),
    [
        ("png", {}, 0),
        ("bmp", {}, 0),
        ("webp", {"lossless": True}, 0),
        ("jpeg", {"quality": 95}, 6),
    ],
)
def test_a_picture_is_a_video_of_one_frame(tmp_path, kind, options, error):
    clip = smooth_clip(1, 47, 65)
    path = tmp_path / f"%03d.{kind}"  # to FFmpeg, a row of files
    path.write_bytes(picture_bytes(kind, clip[0].numpy(), **options))
    for source in (path, str(path), path.read_bytes()):
        assert probe(source) == (1, 1.0, 47, 65)
        assert (decode_clip(source).int() - clip.int()).abs().max() <= error
        assert [frame.shape for frame in iterate_frames(source, 16, fps=8.0)] == [(16, 16, 3)]


def test_a_picture_is_turned_upright_and_its_levels_are_kept(tmp_path):
    turned = Image.Exif()
    turned[0x112] = 6  # shown after a quarter turn to the right
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    upright = decode_clip(picture_bytes("png", grey, exif=turned))
    assert np.array_equal(upright[0, :, :, 0].numpy(), np.rot90(grey, -1))
    fine = decode_clip(picture_bytes("png", grey.astype(np.uint16) << 8))
    assert np.array_equal(fine[0], np.stack([grey] * 3, axis=-1))
    Image.fromarray(grey).convert("RGBA").save(tmp_path / "clear.png")
    assert np.array_equal(decode_clip(tmp_path / "clear.png"), fine)


def test_pictures_too_large_too_narrow_or_moving_are_refused(tmp_path):
    for size, words in (((9000, 8000), "8000 x 9000 pixels"), ((1, 70), "as long as wide")):
        Image.new("1", size).save(tmp_path / "large.png")
        with pytest.raises(VideoError, match=rf"large\.png.*{words}"):
            decode_clip(tmp_path / "large.png")
    header = picture_bytes("bmp", np.zeros((1, 1), np.uint8))
    with pytest.raises(VideoError, match="exceeds limit"):
        probe(header[:18] + (60000).to_bytes(4, "little") * 2 + header[26:])
    first, second = (Image.new("L", (8, 8), level) for level in (0, 255))
    for name in ("moving.png", "moving.webp"):
        first.save(tmp_path / name, save_all=True, append_images=[second])
        with pytest.raises(VideoError, match="write it as a gif"):
            probe(tmp_path / name)


@pytest.mark.parametrize("kind", ["png", "bmp", "webp", "jpeg"])
@pytest.mark.filterwarnings("ignore")  # of Pillow, where it goes on
def test_a_damaged_picture_is_a_video_error_or_one_frame(kind):
    rng = random.Random(0)
    whole = picture_bytes(kind, smooth_clip(1, 24, 24)[0].numpy())
    for source in (whole[: len(whole) // 2], whole[:20]):
        with pytest.raises(VideoError, match=f"{len(source)} bytes given"):
            decode_clip(source)
    for _ in range(100):
        content = bytearray(whole)
        for _ in range(rng.choice([1, 10])):
            content[rng.randrange(len(content))] = rng.randrange(256)
        with suppress(VideoError):
            assert decode_clip(bytes(content), size=16).shape == (1, 16, 16, 3)


def test_too_few_frames_are_counted_in_the_error(tmp_path):
    write_video(tmp_path / "short.mp4", numbered_clip(10), fps=8.0)
    with pytest.raises(VideoError, match=r"short\.mp4 gives 3 frames.* 4 were asked"):
        decode_clip(tmp_path / "short.mp4", start=4, num_frames=4, stride=2)
    with pytest.raises(VideoError, match="gives 0 frames"):
        decode_clip(tmp_path / "short.mp4", start=10)


@pytest.mark.parametrize("setting", [{"size": 0}, {"start": -1}, {"stride": 0}, {"num_frames": 0}])
def test_settings_out_of_range_are_named(setting):
    ((name, value),) = setting.items()
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        decode_clip(b"", **setting)
    with pytest.raises(ValueError, match="fps is 0"):
        iterate_frames(b"", fps=0.0)


@pytest.mark.skipif(not CLIPS.is_dir(), reason="no real clips here")
def test_the_best_of_several_streams_is_read_and_real_clips_survive_mp4(tmp_path):
    info = probe(CLIPS / "torchcodec_nasa_13013.mp4")
    assert info == (390, pytest.approx(29.97, abs=0.01), 270, 480)
    frames = iterate_frames(CLIPS / "torchcodec_nasa_13013.mp4", size=32, stride=10)
    assert [frame.shape for frame in frames] == [(32, 32, 3)] * 39
    clip = decode_clip(CLIPS / "cosmos_drive_2.mp4", num_frames=8, stride=3, size=64)
    write_video(tmp_path / "clip.mp4", clip, fps=10.0)
    assert psnr(clip, decode_clip(tmp_path / "clip.mp4")) > 28


def test_damaged_metadata_is_a_video_error(tmp_path):
    path = tmp_path / "clip.mp4"
    write_video(path, smooth_clip(), 8.0)
    content = path.read_bytes()
    assert b"Lavf" in content
    path.write_bytes(content.replace(b"Lavf", b"\xd5\xff\xfe\xd5"))
    with pytest.raises(VideoError, match=r"clip\.mp4 is broken"):
        decode_clip(path)
