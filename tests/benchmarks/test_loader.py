"""The loader's benchmark: what it counts is there, and a long run keeps rate and memory."""

import json

import pytest

from benchmarks import loader
from data.shard_folder import ShardFolder


def test_a_small_run_reports_on_the_clips_it_made(tmp_path, capfd):
    options = ["--size=32", "--videos=4", "--frames=20", "--rounds=1", "--clips=32", "--window=9"]
    report = loader.main([f"--json={tmp_path}/report.json", *options])
    assert json.loads((tmp_path / "report.json").read_text()) == report._asdict()
    assert (report.clips, report.frames_per_clip, report.size) == (4, 20, 32)
    assert report.clips_read == 32
    assert report.ratio > 0.1
    assert "ratio" in capfd.readouterr().out


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_the_loader_is_as_fast_as_pyav_and_keeps_its_memory_over_ten_thousand_clips():
    report = loader.main(["--clips=10000"])
    assert report.ratio >= 0.9
    assert report.clips_read >= 10_000
    assert report.megabytes_late - report.megabytes_early < 30


def test_both_contestants_decode_every_frame(tmp_path):
    (tmp_path / "videos").mkdir()
    loader.make_videos(tmp_path / "videos", 2, 12, 32)
    loader.prepare.main([f"{tmp_path}/videos", f"{tmp_path}/shards", "--size=32", "--processes=1"])
    source = ShardFolder(f"{tmp_path}/shards", min_frames=1)
    assert loader.raw([source.video(k) for k in range(2)]) == loader.ours(source) == 24
