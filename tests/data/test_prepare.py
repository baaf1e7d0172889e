"""Videos to shards: what is kept, what is skipped, and that no kill can change the result."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch

from data import prepare
from data.listing import list_videos
from data.manifest import Manifest
from data.shard_folder import ShardFolder
from data.transcode import Settings
from data.video import VideoWriter, iterate_frames
from data.workers import Event

LOSSLESS = Settings(size=16, fps=None, lossless=True, max_frames=8, gop=4)


def make_video(path, num_frames, first=0, fps=8.0, size=16):
    """Frame k of the video is grey level 2 (first + k): a frame tells its place."""
    levels = torch.arange(first, first + num_frames, dtype=torch.uint8) * 2
    with VideoWriter(path, fps, lossless=True) as writer:
        writer.write(levels[:, None, None, None].expand(-1, size, size, 3).contiguous())


def places(frames):
    return [round(float(frame.float().mean()) / 2) for frame in frames]


def listing(src):
    return list_videos(src, "video", ["caption"])


def serially(work, tasks, num_processes):
    """Do what `workers.run` does in this process."""
    while tasks:
        task = tasks.popleft()
        yield Event("done", task, work(task, lambda name: None))


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(prepare, "run", serially)


def prepared(src, out, settings=LOSSLESS, shard_videos=2):
    manifest = prepare.prepare(listing(src), out, settings, shard_videos=shard_videos, processes=1)
    return manifest, ShardFolder(str(out), min_frames=1)


def content(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_clips_are_the_videos_divided_in_order(tmp_path, here):
    (tmp_path / "src").mkdir()
    make_video(tmp_path / "src/a.mp4", 20)
    make_video(tmp_path / "src/b.mp4", 5, first=30)
    make_video(tmp_path / "src/c.mp4", 8, first=40)
    (tmp_path / "src/b.txt").write_text("a grey square")
    manifest, source = prepared(tmp_path / "src", tmp_path / "out")
    lengths = [source._clips[k].num_frames for k in range(len(source))]
    assert lengths == [8, 8, 4, 5, 8]
    seen = [place for k in range(5) for place in places(source.read(k, lengths[k]).frames)]
    assert seen == [*range(20), *range(30, 35), *range(40, 48)]
    assert [source.read(k, 1).caption for k in range(5)] == ["", "", "", "a grey square", ""]
    assert len(manifest.records) == 2
    assert prepare.summary(listing(tmp_path / "src"), manifest) == (
        "5 clips of 3 videos in 2 shards; 0 skipped"
    )


def test_size_and_rate_are_those_asked_for_and_slow_videos_keep_theirs(tmp_path, here):
    (tmp_path / "src").mkdir()
    make_video(tmp_path / "src/a.mp4", 48, fps=24.0, size=40)
    make_video(tmp_path / "src/b.mp4", 6, fps=4.0)
    settings = Settings(size=20, fps=8.0, lossless=True)
    _, source = prepared(tmp_path / "src", tmp_path / "out", settings)
    assert [clip.fps for clip in source._clips] == [8.0, 4.0]
    assert source.read(0, 6).frames.shape == (6, 20, 20, 3)
    expected = list(iterate_frames(tmp_path / "src/a.mp4", 20, fps=8.0))
    assert np.array_equal(source.read(0, 16).frames.numpy(), np.stack(expected))
    assert places(source.read(1, 6).frames) == [0, 1, 2, 3, 4, 5]


def test_a_lossy_clip_is_close_and_has_short_groups(tmp_path, here):
    (tmp_path / "src").mkdir()
    make_video(tmp_path / "src/a.mp4", 40)
    settings = Settings(size=16, fps=None, max_frames=64, gop=4)
    _, source = prepared(tmp_path / "src", tmp_path / "out", settings)
    starts = [places(source.read(0, 3, k / 38 + 1e-9).frames)[0] for k in range(38)]
    assert np.abs(np.array(starts) - np.arange(38)).max() <= 1


def test_actions_are_divided_with_their_frames(tmp_path, here):
    (tmp_path / "src").mkdir()
    for name, rows in (("a", 12), ("b", 11)):
        make_video(tmp_path / f"src/{name}.mp4", 12)
        np.save(tmp_path / f"src/{name}.actions.npy", np.arange(3.0 * rows).reshape(rows, 3))
    manifest, source = prepared(tmp_path / "src", tmp_path / "out")
    assert len(source) == 2
    actions = source.read(1, 4).actions
    assert actions is not None
    assert actions[:, 0].tolist() == [24, 27, 30, 33]
    (skipped,) = (record.skipped for record in manifest.records.values())
    assert "(11, 3), but the video gives 12 frames" in skipped["b.mp4"]


def test_the_provenance_of_a_clip_is_with_it(tmp_path, here):
    (tmp_path / "src").mkdir()
    make_video(tmp_path / "src/a.mp4", 12)
    prepared(tmp_path / "src", tmp_path / "out")
    lines = (tmp_path / "out/shard-000000.jsonl").read_text().splitlines()
    meta = json.loads(lines[1])[2]
    digest = subprocess.run(
        ["sha256sum", tmp_path / "src/a.mp4"], capture_output=True, text=True, check=True
    ).stdout.split()[0]
    assert meta == {
        "captions": [],
        "fps": 8.0,
        "num_frames": 4,
        "size": 16,
        "source": "a.mp4",
        "source_frame": 8,
        "source_sha256": digest,
    }


def test_a_shard_takes_so_many_videos_or_bytes(tmp_path):
    def sizes(shard_videos, *megabytes):
        videos = [prepare.Listed(str(k), str(k), m * 2**20, ()) for k, m in enumerate(megabytes)]
        tasks = prepare.plan(videos, LOSSLESS, tmp_path, shard_videos)
        assert [video for task in tasks for video in task.videos] == videos
        assert [task.first for task in tasks] == [int(task.videos[0].name) for task in tasks]
        return [len(task.videos) for task in tasks]

    assert sizes(2, 1, 1, 1, 1, 1) == [2, 2, 1]
    assert sizes(9, 200, 56, 1, 300, 1, 1) == [2, 1, 1, 2]


def test_another_run_must_ask_for_the_same(tmp_path, here):
    (tmp_path / "src").mkdir()
    make_video(tmp_path / "src/a.mp4", 12)
    prepared(tmp_path / "src", tmp_path / "out")
    before = content(tmp_path / "out")
    prepared(tmp_path / "src", tmp_path / "out")
    assert content(tmp_path / "out") == before
    other = Settings(size=18, fps=None, lossless=True, max_frames=8, gop=4)
    with pytest.raises(ValueError, match="begun with another size;"):
        prepared(tmp_path / "src", tmp_path / "out", other)
    make_video(tmp_path / "src/b.mp4", 12)
    with pytest.raises(ValueError, match="begun with another videos, list;"):
        prepared(tmp_path / "src", tmp_path / "out")
    with pytest.raises(ValueError, match="not empty and holds no shards"):
        prepared(tmp_path / "src", tmp_path / "src")
    with prepare.locked(tmp_path / "out"), pytest.raises(ValueError, match="another process"):
        prepared(tmp_path / "src", tmp_path / "out")


def test_a_video_that_ends_its_process_twice_is_passed_over(tmp_path, monkeypatch):
    (tmp_path / "src").mkdir()
    for k in range(3):
        make_video(tmp_path / f"src/{k}.mp4", 8, first=10 * k)

    def dying(work, tasks, num_processes):
        while tasks:
            task = tasks.popleft()
            if "1.mp4" in task.deadly:
                yield Event("done", task, work(task, lambda name: None))
            else:
                yield Event("report", task, "0.mp4")
                yield Event("report", task, "1.mp4")
                yield Event("died", task, -11)

    monkeypatch.setattr(prepare, "run", dying)
    manifest, source = prepared(tmp_path / "src", tmp_path / "out", shard_videos=3)
    assert [places(source.read(k, 1).frames) for k in range(2)] == [[0], [20]]
    (record,) = manifest.records.values()
    assert record.skipped == {"1.mp4": "reading it ended the process 2 times (code -11)"}


def test_bad_settings_are_named():
    for arguments, words in (
        ({"size": 33}, "size is 33.*even"),
        ({"fps": 0.0}, "fps is 0"),
        ({"fps": float("nan")}, "fps is nan"),
    ):
        with pytest.raises(ValueError, match=words):
            Settings(**arguments)


def count_lines(path):
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def killed_again_and_again(tmp_path, num_videos, num_kills, seed):
    """Kill the command at random moments after it made progress; compare with a serial run."""
    rng = random.Random(seed)
    src, out, whole = tmp_path / "src", tmp_path / "out", tmp_path / "whole"
    src.mkdir()
    for k in range(num_videos):
        make_video(src / f"{k:03d}.mp4", 40, first=k, size=96)
    (src / "broken.mp4").write_bytes(b"no video")
    (src / "000.txt").write_text("the first")
    command = [sys.executable, "-m", "data.prepare", str(src), str(out), "--size=96"]
    command += ["--shard-videos=1", "--processes=2", "--max-frames=16"]
    kills = 0
    while kills < num_kills:
        before = count_lines(out / "manifest.jsonl")
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
        while count_lines(out / "manifest.jsonl") <= before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        if process.poll() is not None:  # it was done before it could be killed
            assert process.returncode == 0
            shutil.rmtree(out)
            continue
        if kills % 2:
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
        kills += 1
    last = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "1 skipped\n  broken.mp4: " in last.stdout
    settings = Settings(size=96, max_frames=16)
    whole.mkdir()
    tasks = prepare.plan(listing(src).videos, settings, whole, 1)
    records = [event.content for event in serially(prepare.make_shard, deque(tasks), 1)]
    manifest = Manifest(whole)
    for record in records:
        manifest.add(record)
    found = content(out)
    found.pop("dataset.json")
    assert found == content(whole)
    assert len(ShardFolder(str(out), min_frames=1)) == 3 * num_videos


def test_three_kills_change_no_byte(tmp_path):
    killed_again_and_again(tmp_path, 20, 3, seed=0)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_twenty_kills_change_no_byte(tmp_path):
    killed_again_and_again(tmp_path, 160, 20, seed=1)
