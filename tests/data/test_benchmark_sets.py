"""Known data sets, from tiny files in their exact formats, made by other writers than ours."""

import json
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.summary.writer.record_writer import RecordWriter

from data import benchmark_sets
from data.container import VideoError
from data.digits import Digits
from data.listing import list_videos
from data.shard_folder import ShardFolder
from data.tfrecord import read_example, read_records

SAMPLE = Path(__file__).parents[2].parent / "shared/clips/bair_robot_pushing_sample.npz"


@pytest.mark.parametrize("camera", ["main", "aux1"])
def test_bair_is_read_without_tensorflow(tmp_path, camera, trajectory, write_bair):
    (tmp_path / "train").mkdir()
    write_bair(tmp_path / "train/traj_0_to_2.tfrecords", [0, 1, 2])
    write_bair(tmp_path / "train/traj_3_to_4.tfrecords", [3, 4])
    benchmark_sets.main(["bair", f"{tmp_path}/train", f"{tmp_path}/out", f"--camera={camera}"])
    source = ShardFolder(f"{tmp_path}/out", min_frames=5)
    assert (len(source), source.fps) == (5, 10.0)
    for index in range(5):
        frames, actions = trajectory(index)
        sample = source.read(index, 5)
        assert np.array_equal(sample.frames.numpy(), frames[camera])
        assert sample.actions is not None
        assert torch.equal(sample.actions[0], torch.zeros(4))
        assert np.array_equal(sample.actions[1:].numpy(), actions[:-1])


def test_a_part_of_bair_is_that_part_of_the_whole(tmp_path, write_bair):
    for number, seeds in enumerate(([0, 1, 2], [3, 4], [5])):
        write_bair(tmp_path / f"{number}.tfrecords", seeds)
    episodes, count = benchmark_sets.bair(tmp_path, "main")
    names = [episode.name for episode in episodes(0, count)]
    assert count == len(set(names)) == 6
    for first in range(6):
        for last in range(first, 7):
            assert [e.name for e in episodes(first, last)] == names[first:last]


@pytest.mark.skipif(not SAMPLE.is_file(), reason="no real trajectory here")
def test_a_real_bair_trajectory_is_stored_exactly(tmp_path):
    benchmark_sets.main(["bair", str(SAMPLE), f"{tmp_path}/out"])  # the camera of the papers
    sample = ShardFolder(f"{tmp_path}/out").read(0, 30)
    arrays = np.load(SAMPLE)
    assert np.array_equal(sample.frames.numpy(), arrays["image_aux1"])
    assert sample.actions is not None
    assert np.array_equal(sample.actions[1:].numpy(), arrays["action"][:-1])


def test_features_of_all_kinds_come_back(example_class):
    example = example_class()
    example.features.feature["n"].int64list.value.extend([0, 1, -1, 2**62, -(2**63)])
    example.features.feature["x"].floatlist.value.extend([0.5, -2.0])
    example.features.feature["b"].byteslist.value.extend([b"", b"\xff"])
    features = read_example(example.SerializeToString())
    assert {name: list(value) for name, value in features.items()} == {
        "n": [0, 1, -1, 2**62, -(2**63)],
        "x": [0.5, -2.0],
        "b": [b"", b"\xff"],
    }


def test_a_tfrecord_cut_anywhere_is_an_error(tmp_path):
    path = tmp_path / "a.tfrecords"
    with path.open("wb") as file:
        writer = RecordWriter(file)
        for content in (b"one", b"twotwo", b""):
            writer.write(content)
    whole = path.read_bytes()
    assert list(read_records(path)) == [b"one", b"twotwo", b""]
    ends = [19, 41]  # between records a cut cannot be seen
    for end in range(1, len(whole)):
        path.write_bytes(whole[:end])
        if end in ends:
            assert len(list(read_records(path))) == ends.index(end) + 1
        else:
            with pytest.raises(VideoError, match="cut off"):
                list(read_records(path))
    path.write_bytes(struct.pack("<Q", 2**60) + whole[8:])
    with pytest.raises(VideoError, match="no TFRecord"):
        list(read_records(path))


def test_no_message_ends_the_process(example_class):
    rng = np.random.default_rng(0)
    example = example_class()
    example.features.feature["b"].byteslist.value.append(bytes(100))
    whole = example.SerializeToString()
    for _ in range(500):
        content = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        content[rng.integers(len(content))] = rng.integers(256)
        with suppress(VideoError):
            read_example(bytes(content))


def test_moving_mnist_is_read_from_its_array(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (20, 7, 64, 64), np.uint8)
    np.save(tmp_path / "mnist_test_seq.npy", frames)
    benchmark_sets.main(["moving-mnist", f"{tmp_path}/mnist_test_seq.npy", f"{tmp_path}/out"])
    source = ShardFolder(f"{tmp_path}/out")
    assert len(source) == 7
    for index in range(7):
        assert np.array_equal(source.read(index, 20).frames[..., 1].numpy(), frames[:, index])
    np.save(tmp_path / "other.npy", frames[0, 0])
    with pytest.raises(VideoError, match="give mnist_test_seq"):
        benchmark_sets.main(["moving-mnist", f"{tmp_path}/other.npy", f"{tmp_path}/out2"])


def test_moving_digits_become_shards(tmp_path):
    benchmark_sets.main(["moving-digits", "-", f"{tmp_path}/out", "--count=5", "--split=test"])
    source = ShardFolder(f"{tmp_path}/out")
    assert torch.equal(source.read(4, 20).frames, Digits(5, "val").read(4, 20).frames)


def listed(tmp_path):
    return [
        (
            Path(json.loads(line)["video"]).relative_to(tmp_path / "src").as_posix(),
            json.loads(line)["caption"],
        )
        for line in (tmp_path / "list.jsonl").read_text().splitlines()
    ]


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_ucf101_follows_its_split_files(tmp_path):
    names = [f"{c}/v_{c}_g0{g}_c01.avi" for c in ("Archery", "YoYo") for g in (1, 2)]
    touch(tmp_path / "src", *names)
    (tmp_path / "trainlist01.txt").write_text(f"{names[1]} 1\r\n{names[3]} 2\r\n")
    (tmp_path / "testlist01.txt").write_text(f"{names[0]}\n{names[2]}\n")
    run = ["ucf101", f"{tmp_path}/src", f"{tmp_path}/list.jsonl"]
    benchmark_sets.main([*run, f"--split-file={tmp_path}/trainlist01.txt"])
    assert listed(tmp_path) == [(names[1], "Archery"), (names[3], "YoYo")]
    videos, rejected = list_videos(tmp_path / "list.jsonl", "video", ["caption"])
    assert [video.captions for video in videos] == [("Archery",), ("YoYo",)]
    assert not rejected
    benchmark_sets.main([*run, f"--split-file={tmp_path}/testlist01.txt"])
    assert listed(tmp_path) == [(names[0], "Archery"), (names[2], "YoYo")]
    with pytest.raises(ValueError, match="official splits"):
        benchmark_sets.main(run)


def test_kinetics_finds_files_with_and_without_class_folders(tmp_path):
    names = ["ab_cd_000010_000020.mp4", "high jump/-xyz_000001_000011.mp4"]
    touch(tmp_path / "src", *names)
    rows = ["label,youtube_id,time_start,time_end,split", "high jump,ab_cd,10,20,val"]
    rows += ["high jump,-xyz,1,11,val", "yoga,gone,1,11,val"]
    (tmp_path / "val.csv").write_text("\n".join(rows) + "\n")
    run = ["kinetics600", f"{tmp_path}/src", f"{tmp_path}/list.jsonl"]
    benchmark_sets.main([*run, f"--split-file={tmp_path}/val.csv"])
    gone = ("yoga/gone_000001_000011.mp4", "yoga")
    assert listed(tmp_path) == [(names[0], "high jump"), (names[1], "high jump"), gone]
    assert list(list_videos(tmp_path / "list.jsonl", "video", ["caption"]).rejected) == ["line 3"]


def test_kth_divides_by_person(tmp_path):
    names = [f"boxing/person{p:02d}_boxing_d1_uncomp.avi" for p in (1, 20, 21, 25)]
    touch(tmp_path / "src", *names)
    for split, expected in (("train", names[:2]), ("test", names[2:])):
        benchmark_sets.main(
            ["kth", f"{tmp_path}/src", f"{tmp_path}/list.jsonl", f"--split={split}"]
        )
        assert listed(tmp_path) == [(name, "boxing") for name in expected]
