"""Benchmarks as they were given out, in small: which videos are read, and their exact pixels."""

from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from PIL import Image

from data import Digits, Shapes
from data.episodes import Episode, write_episodes
from data.folder import VideoFolder
from data.resizing import resize_and_crop
from data.shard_folder import ShardFolder
from evaluation.protocols import find
from evaluation.video_sets import open_videos


def write_avi(path, num_frames, level=0, codec="mpeg4", height=24, width=32, rate=25):
    """Write a video whose brightness is `level`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4" if path.suffix == ".mp4" else "avi") as out:
        stream = out.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for _ in range(num_frames):
            picture = np.full((height, width, 3), level, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        out.mux(stream.encode(None))


def brightness(video, end=3, size=16):
    return round(video.read(end, size).frames.float().mean().item())


@pytest.mark.parametrize("inside", ["softmotion30_44k/test", "test", "."])
def test_bair_is_the_second_camera_of_its_test_files(tmp_path, trajectory, write_bair, inside):
    (tmp_path / inside).mkdir(parents=True, exist_ok=True)
    write_bair(tmp_path / inside / "traj_0_to_1.tfrecords", [0, 1])
    write_bair(tmp_path / inside / "traj_2_to_2.tfrecords", [2])
    kind, videos, *_ = open_videos(find("bair"), tmp_path, 64, None)
    assert (kind, len(videos), videos[0].num_frames) == ("as given out", 3, 5)
    for seed, video in enumerate(videos):
        frames, actions = trajectory(seed)
        sample = video.read(4, 64)
        assert np.array_equal(sample.frames.numpy(), frames["aux1"][:4])
        assert np.array_equal(sample.actions[1:].numpy(), actions[:3])  # each leads to the next
        assert (sample.actions[0] == 0).all()


@pytest.mark.parametrize("whole_path", [True, False])
def test_moving_mnist_is_its_one_array(tmp_path, whole_path):
    frames = np.random.default_rng(0).integers(0, 256, (20, 4, 64, 64), np.uint8)
    np.save(tmp_path / "mnist_test_seq.npy", frames)
    data = tmp_path / "mnist_test_seq.npy" if whole_path else tmp_path
    kind, videos, *_ = open_videos(find("moving-mnist"), data, 64, None)
    assert (kind, len(videos), videos[0].num_frames) == ("as given out", 4, 20)
    for index, video in enumerate(videos):
        assert np.array_equal(video.read(20, 64).frames[..., 1].numpy(), frames[:, index])


def test_kinetics_reads_what_its_list_names_and_is_still_there(tmp_path):
    rows = ["label,youtube_id,time_start,time_end,split", "high jump,ab_cd,10,20,val"]
    rows += ["yoga,gone,1,11,val", "yoga,-xyz,1,11,val"]
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/val.csv").write_text("\n".join(rows) + "\n")
    write_avi(tmp_path / "val/ab_cd_000010_000020.mp4", 16, 40, "libx264")
    write_avi(tmp_path / "val/yoga/-xyz_000001_000011.mp4", 17, 80, "libx264")
    write_avi(tmp_path / "val/unlisted_000001_000011.mp4", 16, 120, "libx264")
    kind, videos, _, notes, _ = open_videos(find("kinetics600"), tmp_path, 64, None)
    assert kind == "as given out"
    assert notes == ("1 of the 3 videos of val.csv are missing",)
    assert [video.num_frames for video in videos] == [16, 17]
    assert [brightness(video) for video in videos] == pytest.approx([40, 80], abs=2)


@pytest.mark.parametrize("name", ["ucf101", "ucf101-tats", "reconstruction-ucf101"])
def test_ucf101_is_the_training_part_of_split_one_with_its_classes(tmp_path, name):
    names = [f"{c}/v_{c}_g0{g}_c01.avi" for c in ("Archery", "YoYo") for g in (1, 8)]
    for number, file in enumerate(names):
        write_avi(tmp_path / "UCF-101" / file, 16, 30 * number)
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "trainlist01.txt").write_text(f"{names[1]} 1\r\n{names[3]} 2\r\n")
    (lists / "trainlist02.txt").write_text(f"{names[0]} 1\r\n")
    kind, videos, *_ = open_videos(find(name), tmp_path, 16, None)
    assert kind == "as given out"
    assert [video.read(2, 16).caption for video in videos] == ["Archery", "YoYo"]
    assert [brightness(video) for video in videos] == pytest.approx([30, 90], abs=2)


def test_all_of_ucf101_needs_no_list(tmp_path):
    for group, label in enumerate(("Archery", "YoYo")):
        write_avi(tmp_path / f"UCF-101/{label}/v_{label}_g0{group + 1}_c01.avi", 16)
    kind, videos, *_ = open_videos(find("ucf101-styleganv"), tmp_path, 16, None)
    assert kind == "folder"
    assert [video.read(2, 16).caption for video in videos] == ["Archery", "YoYo"]


def test_kth_is_its_last_five_persons_and_learnt_from_the_others(tmp_path):
    for person in (1, 20, 21, 25):
        write_avi(tmp_path / f"boxing/person{person:02d}_boxing_d1_uncomp.avi", 40, 5 * person)
    kind, videos, *_ = open_videos(find("kth"), tmp_path, 16, None)
    assert kind == "as given out"
    assert [brightness(video) for video in videos] == pytest.approx([105, 125], abs=2)
    learnt = open_videos(find("kth"), tmp_path, 16, None, training=True).videos
    assert [brightness(video) for video in learnt] == pytest.approx([5, 100], abs=2)
    for person in (1, 20):
        (tmp_path / f"boxing/person{person:02d}_boxing_d1_uncomp.avi").unlink()
    with pytest.raises(ValueError, match="videos that kth measures, and none to learn from"):
        open_videos(find("kth"), tmp_path, 16, None, training=True)


def test_davis_is_pictures_in_folders(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("bear", "swing"):
        folder = tmp_path / "DAVIS/JPEGImages/480p" / name
        folder.mkdir(parents=True)
        for k in range(5):
            picture = np.kron(rng.integers(0, 256, (3, 4, 3)), np.ones((8, 8, 1))).astype(np.uint8)
            Image.fromarray(picture).save(folder / f"{k:05d}.jpg", quality=100)
    kind, videos, *_ = open_videos(find("reconstruction-davis"), tmp_path, 16, None)
    assert (kind, [v.name for v in videos]) == ("as given out", ["bear", "swing"])
    last = np.array(Image.open(tmp_path / "DAVIS/JPEGImages/480p/swing/00004.jpg"))
    expected = resize_and_crop(torch.from_numpy(last)[None], 16)[0]
    assert torch.equal(videos[1].read(5, 16).frames[4], expected)


def test_shards_bring_their_actions_and_captions(tmp_path):
    rng = np.random.default_rng(0)
    clip = rng.integers(0, 256, (9, 16, 16, 3), np.uint8)
    actions = rng.normal(size=(9, 2)).astype(np.float32)
    episodes = lambda first, last: iter([Episode("a", clip, actions, ("a game",))])
    write_episodes(tmp_path / "shards", episodes, 1, fps=8.0, kind="test")
    kind, (video,), *_ = open_videos(
        replace(find("rollouts"), split="all"), tmp_path / "shards", 16, None
    )
    sample = video.read(7, 16)
    assert (kind, video.num_frames, sample.caption) == ("shards", 9, "a game")
    assert np.array_equal(sample.frames.numpy(), clip[:7])
    assert np.array_equal(sample.actions.numpy(), actions[:7])


def test_training_files_of_bair_are_never_its_test_files(tmp_path, trajectory, write_bair):
    for part, seed in (("train", 7), ("test", 8)):
        (tmp_path / part).mkdir()
        write_bair(tmp_path / part / "traj_0_to_0.tfrecords", [seed])
        opened = open_videos(find("bair"), tmp_path, 64, None, training=part == "train")
        (video,) = opened.videos
        assert np.array_equal(video.read(4, 64).frames.numpy(), trajectory(seed)[0]["aux1"][:4])
        assert opened.fps == 10.0


def episodes_of(lengths, folder, kind="test"):
    """Write shards of a clip of each length, whose level of grey is their number."""
    clips = [np.full((n, 16, 16, 3), k, np.uint8) for k, n in enumerate(lengths)]
    episodes = lambda first, last: iter([Episode(f"e{k}", clips[k]) for k in range(first, last)])
    write_episodes(folder, episodes, len(clips), fps=12.0, kind=kind)
    return folder


def levels(videos):
    return [int(video.read(1, 16).frames[0, 0, 0, 0]) for video in videos]


def test_shards_give_what_training_holds_out(tmp_path):
    shards = episodes_of([20] * 23, tmp_path / "shards")
    rollouts = find("rollouts")
    measured = open_videos(rollouts, shards, 16, None)
    learnt = open_videos(rollouts, shards, 16, None, training=True)
    for opened, split in ((measured, "val"), (learnt, "train")):
        source = ShardFolder(str(shards), split)
        assert levels(opened.videos) == [
            int(source.read(i, 1).frames[0, 0, 0, 0]) for i in range(len(source))
        ]
    assert sorted(levels(measured.videos) + levels(learnt.videos)) == list(range(23))
    assert len(measured.videos) == 2
    assert measured.fps == 12.0
    every = open_videos(replace(rollouts, split="all"), shards, 16, None)
    assert levels(every.videos) == list(range(23))
    assert "--split val" in every.notes[0]


def test_a_folder_gives_what_training_holds_out(tmp_path):
    for k in range(20):
        write_avi(tmp_path / f"{k:02d}.avi", 17, 10 * k)
    protocol = replace(find("reconstruction"), split="val")
    held = VideoFolder(tmp_path, "val", 16, fps=25.0)
    opened = open_videos(protocol, tmp_path, 16, None)
    names = [held.place(i, 17).key for i in range(len(held))]
    assert [video.name for video in opened.videos] == names
    assert len(names) == 2
    assert opened.fps == 25.0
    for k in range(4, 20):
        (tmp_path / f"{k:02d}.avi").unlink()
    with pytest.raises(ValueError, match="has 4 videos, of which training holds out the ends"):
        open_videos(protocol, tmp_path, 16, None)


@pytest.mark.parametrize(("kind", "wrong"), [("bair aux1", False), ("bair main", True)])
def test_shards_of_the_other_camera_are_not_the_benchmark(tmp_path, kind, wrong):
    shards = episodes_of([16, 16], tmp_path / "shards", kind)
    deviations = open_videos(find("bair"), shards, 16, None).deviations
    assert deviations == (("the shards are of bair main, not of bair aux1",) if wrong else ())


def test_built_in_data_are_drawn_from_their_validation_split():
    for name, source in (
        ("captioned-shapes", Shapes(4, "val")),
        ("moving-digits", Digits(4, "val")),
    ):
        kind, videos, *_ = open_videos(find(name), None, 64, 4)
        assert (kind, len(videos)) == ("drawn", 4)
        sample = videos[3].read(17, 64)
        assert torch.equal(sample.frames, source.read(3, 17).frames)
        assert sample.caption == source.read(3, 1).caption


def test_any_other_folder_is_read_as_a_folder(tmp_path):
    write_avi(tmp_path / "walk/a.avi", 16, 50)
    for name in ("bair", "kinetics600", "kth", "moving-mnist", "ucf101", "reconstruction-davis"):
        kind, videos, *_ = open_videos(find(name), tmp_path, 16, None)
        assert (kind, [video.name for video in videos]) == ("folder", ["a.avi"])
    assert open_videos(find("ucf101"), tmp_path, 16, None).videos[0].read(1, 16).caption == "walk"
