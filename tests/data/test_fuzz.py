"""Files of every broken and odd kind: prepare ends well, names each, and writes only into OUT."""

import json
import os
import random
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from data import prepare
from data.listing import list_videos
from data.shard_folder import ShardFolder
from data.transcode import Settings
from data.video import iterate_frames, write_video
from data.workers import Event


def picture(k, height=48, width=64):
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 3 + 5 * k, y * 4, x + y], axis=-1).astype(np.uint8)


def write(path, *, sizes=((48, 64),), sounds=0, times=None, rotation=0, codec="libx264"):
    """Write 12 frames a video stream, with as many sound streams as asked for."""
    pixels = "yuv444p" if any(n % 2 for size in sizes for n in size) else "yuv420p"
    with av.open(str(path), "w", format="matroska" if path.suffix == ".mkv" else "mp4") as out:
        videos, voices = [], []
        for height, width in sizes:
            stream = out.add_stream(codec, rate=8)
            stream.height, stream.width, stream.pix_fmt = height, width, pixels
            stream.codec_context.time_base = Fraction(1, 1000)
            if rotation:
                stream.set_display_rotation(rotation)
            videos.append(stream)
        for _ in range(sounds):
            voices.append(out.add_stream("aac", rate=8000, layout="mono"))
        for k, time in enumerate(times or range(0, 1500, 125)):
            for stream in videos:
                frame = av.VideoFrame.from_ndarray(picture(k, stream.height, stream.width), "rgb24")
                frame.pts, frame.time_base = time, Fraction(1, 1000)
                out.mux(stream.encode(frame))
        for stream in voices:
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            sound.sample_rate = 8000
            out.mux(stream.encode(sound))
        for stream in [*videos, *voices]:
            out.mux(stream.encode(None))


def rotate(path, target, degrees):
    """Copy a video's packets, to be shown turned: two encodings need not be equal to the bit."""
    with av.open(str(path)) as video, av.open(str(target), "w") as out:
        stream = out.add_stream_from_template(video.streams.video[0])
        stream.set_display_rotation(degrees)
        for packet in video.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)


GOOD = {
    "plain.mp4": {},
    "odd.mp4": {"sizes": ((33, 47),)},
    "thin.mp4": {"sizes": ((2, 200),)},
    "large among small.mkv": {"sizes": ((16, 16), (48, 64))},
    "four streams.mp4": {"sizes": ((16, 16), (48, 64)), "sounds": 2},
    "uneven.mp4": {"times": [0, 10, 500, 510, 520, 900, 901, 1000, 1200, 1201, 1202, 1400]},
    "rotated.mp4": {"rotation": 90},
    "%03d.mp4": {},
    "-i.mp4": {},
    "concat:a|b.mp4": {},
    "pipe:1.mp4": {},
    "new\nline, 'quote\" and 🎬.mp4": {},
    "http:--example.org.mp4": {},
}


def make_good(src):
    for name, options in GOOD.items():
        write(src / name, **options)
        (src / name).with_suffix(".txt").write_text(f"this is\x00 {name}\u202e\x1b[31m")


def make_bad(src, rng):
    """Write files that are no whole video; return their names."""
    whole = (src / "plain.mp4").read_bytes()
    contents = {
        "empty.mp4": b"",
        "text.avi": b"no video at all",
        "noise.webm": rng.randbytes(5000),
        "playlist.mp4": b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n",
        "concat.mp4": b"ffconcat version 1.0\nfile plain.mp4\n",
        **{f"cut-{n}.mp4": whole[: len(whole) * n // 10] for n in range(1, 10)},
    }
    for name, content in contents.items():
        (src / name).write_bytes(content)
    write(src / "sound.mp4", sizes=(), sounds=1)
    write(src / "bad caption.mp4")
    (src / "bad caption.txt").write_bytes(b"\xff\xfe\xfd")
    return {*contents, "sound.mp4", "bad caption.mp4"}


def make_strange(src, rng):
    """Write what may or may not be readable: bytes changed at random, what is no file."""
    whole = (src / "plain.mp4").read_bytes()
    for k in range(30):
        content = bytearray(whole)
        for _ in range(rng.choice([1, 10, 100])):
            content[rng.randrange(len(content))] = rng.randrange(256)
        (src / f"changed-{k}.mp4").write_bytes(content)
    (src / "folder.mp4").mkdir()
    (src / "nowhere.mp4").symlink_to("/nowhere.mp4")
    os.mkfifo(src / "fifo.mp4")
    Path(os.fsdecode(os.fsencode(src) + b"/\xff\xfe.mp4")).write_bytes(whole)


def snapshot(folder):
    return {
        str(path): (path.lstat().st_mtime_ns, path.lstat().st_size)
        for path in folder.rglob("*")
        if not path.is_relative_to(folder / "out")
    }


@pytest.fixture
def here(monkeypatch):
    def serially(work, tasks, num_processes):
        while tasks:
            task = tasks.popleft()
            yield Event("done", task, work(task, lambda name: None))

    monkeypatch.setattr(prepare, "run", serially)


def test_every_kind_of_file_is_prepared_or_named_and_nothing_is_written_elsewhere(
    tmp_path, monkeypatch, here
):
    src, rng = tmp_path / "src", random.Random(0)
    (tmp_path / "cwd").mkdir()
    src.mkdir()
    make_good(src)
    bad = make_bad(src, rng)
    make_strange(src, rng)
    monkeypatch.chdir(tmp_path / "cwd")
    before = snapshot(tmp_path)
    listing = list_videos(src, "video", ["caption"])
    settings = Settings(size=32, max_frames=8)
    manifest = prepare.prepare(listing, tmp_path / "out", settings, shard_videos=10, processes=1)
    assert snapshot(tmp_path) == before
    skipped = dict(listing.rejected)
    for record in manifest.records.values():
        skipped |= record.skipped
    assert bad <= skipped.keys()
    assert not GOOD.keys() & skipped.keys()
    assert all(reason for reason in skipped.values())
    prepare.summary(listing, manifest).encode()
    source = ShardFolder(str(tmp_path / "out"), min_frames=1)
    kept = {clip.source for clip in source._clips}
    assert kept | skipped.keys() == {v.name for v in listing.videos} | listing.rejected.keys()
    assert not kept & skipped.keys()
    for index, clip in enumerate(source._clips):
        sample = source.read(index, clip.num_frames)
        assert sample.frames.shape == (clip.num_frames, 32, 32, 3)
        if clip.source in GOOD:
            name = " ".join(clip.source.split())
            assert sample.caption == f"this is {name}\u202e [31m"


def test_rotation_and_uneven_times_are_undone_before_storing(tmp_path, here):
    src = tmp_path / "src"
    src.mkdir()
    write(src / "a upright.mp4")
    rotate(src / "a upright.mp4", src / "b rotated.mp4", 90)
    held = [0, 125, 250, 375, 500, 625, 1000, 1125, 1250, 1375, 1500, 1625]
    write(src / "c uneven.mp4", times=held)  # its frame 5 is shown for 3 / 8 s
    listing = list_videos(src, "video", ["caption"])
    settings = Settings(size=32, fps=4.0, lossless=True)
    prepare.prepare(listing, tmp_path / "out", settings, shard_videos=10, processes=1)
    source = ShardFolder(str(tmp_path / "out"), min_frames=1)
    upright, rotated = (source.read(k, 6).frames for k in range(2))
    turns = [torch.rot90(upright, turn, (1, 2)) for turn in (1, -1)]
    assert any(torch.equal(turn, rotated) for turn in turns)
    every = np.stack(list(iterate_frames(src / "a upright.mp4", 32))).astype(int)
    uneven = source.read(2, 7).frames.numpy()
    nearest = [int(np.abs(every - frame).mean((1, 2, 3)).argmin()) for frame in uneven]
    assert nearest == [0, 2, 4, 5, 6, 8, 10]


def test_a_table_of_hostile_paths_and_captions_reads_nothing_else(tmp_path, monkeypatch, here):
    rng = random.Random(1)
    write_video(tmp_path / "a.mp4", torch.zeros(4, 16, 16, 3, dtype=torch.uint8), 8.0)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    names = ["../../../../etc/passwd", "/dev/zero", "/dev/stdin", ".", "", "\0", "a.mp4/x", "|ls"]
    names += [
        "x" * 5000,
        "pipe:0",
        "http://127.0.0.1/a.mp4",
        "concat:a.mp4",
        "~/a.mp4",
        "$(id).mp4",
    ]
    rows = [{"video": name, "caption": chr(rng.randrange(0xD7FF))} for name in names]
    rows += [{"video": "a.mp4", "caption": chr(c)} for c in range(0, 0xD800, 11)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    before = snapshot(tmp_path)
    listing = list_videos(tmp_path / "t.jsonl", "video", ["caption"])
    settings = Settings(size=16)
    manifest = prepare.prepare(listing, tmp_path / "out", settings, shard_videos=4, processes=1)
    assert snapshot(tmp_path) == before
    source = ShardFolder(str(tmp_path / "out"), min_frames=1)
    assert {clip.source for clip in source._clips} == {"a.mp4"}
    assert len(source.captions) > 4900
    assert prepare.summary(listing, manifest).startswith(
        f"1 clips of 1 videos in 1 shards; {len(names)} skipped"
    )
