"""A folder of videos as a source: what is held out, what is skipped, what is read."""

import json
from pathlib import Path

import pytest
import torch

from data.folder import VideoFolder
from data.video import VideoError, VideoWriter, write_video

CLIPS = Path(__file__).parents[2].parent / "shared/clips"


def make_video(path, num_frames, first=0, fps=8.0):
    """Frame k of the video is grey level 2 (first + k): a frame tells its place."""
    levels = torch.arange(first, first + num_frames, dtype=torch.uint8) * 2
    clip = levels[:, None, None, None].expand(-1, 16, 16, 3).contiguous()
    if path.suffix == ".gif":
        return write_video(path, clip, fps)
    with VideoWriter(path, fps, lossless=True) as writer:
        return writer.write(clip)


def places(sample):
    return [round(float(frame.float().mean()) / 2) for frame in sample.frames]


def folder(path, split="train", **settings):
    return VideoFolder(path, split=split, **{"size": 16, "min_frames": 5} | settings)


@pytest.fixture
def few(tmp_path):
    for k, num_frames in enumerate((40, 12, 7)):
        make_video(tmp_path / f"{k}.mp4", num_frames)
    return tmp_path


@pytest.fixture
def many(tmp_path):
    for k in range(20):
        make_video(tmp_path / f"{k:02d}.mp4", 6, first=6 * k)
    return tmp_path


def test_captions_lie_beside_the_videos(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("a.mp4", "b.gif", "deep/c.mp4", "d.MP4"):
        make_video(tmp_path / name, 6)
    (tmp_path / "a.txt").write_text(" a red \n ball ")
    (tmp_path / "b.json").write_text(json.dumps({"caption": "a blue ball", "fps": 3}))
    (tmp_path / "deep/c.txt").write_text("a red ball")
    source = folder(tmp_path)
    assert [source.read(k, 5).caption for k in range(4)] == [
        "a red ball",
        "a blue ball",
        "",
        "a red ball",
    ]
    assert source.captions == ["a blue ball", "a red ball"]
    assert source.fps == 8


def test_offset_moves_the_window_over_all_of_a_video(tmp_path):
    make_video(tmp_path / "a.mp4", 9)
    source = folder(tmp_path)
    starts = [places(source.read(0, 5, offset))[0] for offset in (0.0, 0.2, 0.5, 0.79, 0.999)]
    assert starts == [0, 1, 2, 3, 4]
    assert places(source.read(0, 5, 0.5)) == [2, 3, 4, 5, 6]


def test_few_videos_hold_out_their_last_fifth(few):
    train, val = folder(few), folder(few, "val")
    assert len(train) == 3
    seen = [
        {place for j in range(40) for place in places(train.read(index, 5, j / 40))}
        for index in range(3)
    ]
    assert seen == [{*range(32)}, {*range(7)}, {*range(7)}]
    assert [places(val.read(k, 5)) for k in range(len(val))] == [
        [32, 33, 34, 35, 36],
        [7, 8, 9, 10, 11],
    ]
    assert "last fifth (at least 5 frames) of 2 of 3 videos" in train.split_rule


def test_many_videos_hold_out_whole_files_by_seed(many):
    def files(split, seed):
        source = folder(many, split, seed=seed)
        return {places(source.read(k, 5))[0] // 6 for k in range(len(source))}

    for seed in (0, 1):
        train, val = files("train", seed), files("val", seed)
        assert (len(train), len(val)) == (18, 2)
        assert train | val == {*range(20)}
    assert files("val", 0) == files("val", 0) != files("val", 1)
    assert "2 of 20 videos, chosen by seed 0" in folder(many).split_rule


def test_broken_and_short_videos_are_named_in_one_warning(few):
    good = (few / "0.mp4").read_bytes()
    (few / "cut.mp4").write_bytes(good[: len(good) // 2])
    (few / "empty.webm").write_bytes(b"")
    (few / "._0.mp4").write_bytes(b"hidden, not even looked at")
    make_video(few / "short.mp4", 4)
    make_video(few / "worded.mp4", 6)
    (few / "worded.json").write_text("{")
    with pytest.warns(UserWarning, match="4 of 7 videos in .* cannot be used") as caught:
        source = folder(few)
    assert len(caught) == 1
    assert set(source.skipped) == {"cut.mp4", "empty.webm", "short.mp4", "worded.mp4"}
    assert all(name in str(caught[0].message) for name in source.skipped)
    assert "4 frames at 8 a second, but min_frames is 5" in source.skipped["short.mp4"]
    assert "caption" in source.skipped["worded.mp4"]
    assert len(source) == 3


def test_folders_without_a_usable_video_are_errors(tmp_path):
    with pytest.raises(VideoError, match="absent is not a folder"):
        folder(tmp_path / "absent")
    (tmp_path / "notes.txt").write_text("no video")
    with pytest.raises(VideoError, match=r"holds no video.*\.avi, \.gif, .*\.webm"):
        folder(tmp_path)
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(VideoError, match=r"1 of 1 videos in .* cannot be used: a\.mp4"):
        folder(tmp_path)


def test_a_folder_too_short_to_hold_anything_out_says_so(tmp_path):
    make_video(tmp_path / "a.mp4", 9)
    assert len(folder(tmp_path)) == 1
    with pytest.warns(UserWarning, match="no validation clips"):
        source = folder(tmp_path, "val")
    assert len(source) == 0
    assert source.captions == []


def test_frames_are_resampled_in_time_but_never_above_the_native_rate(tmp_path):
    make_video(tmp_path / "a.mp4", 48, fps=24.0)
    assert places(folder(tmp_path, fps=8.0).read(0, 6)) == [0, 3, 6, 9, 12, 15]
    assert places(folder(tmp_path, fps=30.0).read(0, 6)) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("memory_limit", [0, 15_000])
def test_videos_that_do_not_fit_in_memory_read_the_same(few, split, memory_limit):
    held, decoded = folder(few, split), folder(few, split, memory_limit=memory_limit)
    assert any(span.video.frames is None for span in decoded._spans)
    for index in range(len(held)):
        assert torch.equal(held.read(index, 5, 0.6).frames, decoded.read(index, 5, 0.6).frames)


def test_a_clip_does_not_share_memory_with_the_source(few):
    source = folder(few)
    source.read(0, 5).frames.fill_(0)
    assert places(source.read(0, 5)) == [0, 1, 2, 3, 4]


def test_settings_out_of_range_are_named(few):
    source = folder(few)
    for num_frames in (0, 8):
        with pytest.raises(ValueError, match=rf"num_frames is {num_frames}.*2\.mp4\) has 7"):
            source.read(2, num_frames)
    with pytest.raises(ValueError, match="offset is 1"):
        source.read(0, 5, 1.0)
    with pytest.raises(ValueError, match="min_frames is 0"):
        folder(few, min_frames=0)


@pytest.mark.skipif(not CLIPS.is_dir(), reason="no real clips here")
def test_real_clips_are_all_read():
    train = VideoFolder(CLIPS, size=32, min_frames=16)
    val = VideoFolder(CLIPS, "val", size=32, min_frames=16)
    assert len(train) == 7
    assert not train.skipped
    assert train.read(0, 16).frames.shape == (16, 32, 32, 3)
    assert val.read(len(val) - 1, 16).frames.shape == (16, 32, 32, 3)


@pytest.mark.parametrize("memory_limit", [0, 2_000_000_000])
def test_a_place_tells_the_frames_that_are_read(few, memory_limit):
    for split in ("train", "val"):
        source = folder(few, split, memory_limit=memory_limit)
        for index, offset, stride in ((0, 0.0, 1), (0, 0.7, 1), (0, 0.4, 3), (1, 0.9, 9)):
            sample = source.read(index, 3, offset, stride)
            assert sample.place == source.place(index, 3, offset, stride)
            start, used = sample.place.start, sample.place.stride
            assert places(sample) == [start, start + used, start + 2 * used]
            assert sample.place.key == f"{index}.mp4" or split == "val"


def test_a_stride_too_wide_for_a_video_is_lowered(few):
    source = folder(few)
    assert [source.place(k, 5, 0.0, 9).stride for k in range(3)] == [7, 1, 1]


def test_training_never_sees_what_validation_holds_out_under_other_conditions(tmp_path):
    for k in range(24):
        make_video(tmp_path / f"{k:02d}.mp4", 4 if k % 3 else 12)
    with pytest.warns(UserWarning, match="cannot be used"):
        sources = {
            (n, split): folder(tmp_path, split, min_frames=n)
            for n in (3, 9)
            for split in ("train", "val")
        }
    names = {
        key: {source.place(i, key[0]).key for i in range(len(source))}
        for key, source in sources.items()
    }
    assert names[3, "val"]
    for one in (3, 9):
        for other in (3, 9):
            assert not names[one, "train"] & names[other, "val"]
