"""Which clips a protocol reads, and what it refuses before anything is decoded."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from data.video import VideoWriter, write_video
from evaluation.protocols import PROTOCOLS, find
from evaluation.reference import Reference, _draw
from evaluation.video_sets import open_videos

BAIR = find("bair")


@pytest.fixture
def folder(tmp_path):
    """Four videos of 30 frames whose pixels say which frame of which video they are."""
    for i in range(4):
        frames = torch.full((30, 64, 64, 3), 50 * i, dtype=torch.uint8)
        frames += torch.arange(30, dtype=torch.uint8)[:, None, None, None]
        np.savez(tmp_path / f"{i}.npz", frames=frames.numpy(), actions=np.full((30, 4), i + 0.5))
    return tmp_path


def reference_of(protocol, folder, size, clips, seed):
    return Reference(protocol, open_videos(protocol, folder, size, clips), size, clips, seed)


def read(protocol, folder, clips=4, seed=0):
    reference = reference_of(protocol, folder, 64, clips, seed)
    return [reference.read(i) for i in range(len(reference))]


def test_each_first_window_is_read_in_order(folder):
    units = read(BAIR, folder)
    assert [unit.real.shape for unit in units] == [(1, 16, 64, 64, 3)] * 4
    assert [int(unit.real[0, 0, 0, 0, 0]) for unit in units] == [0, 50, 100, 150]
    assert units[2].actions.shape == (16, 4)
    assert (units[2].actions == 2.5).all()


def test_debiased_windows_are_all_fifteen(folder):
    (unit, *_) = read(find("bair-debiased"), folder)
    assert unit.real[:, 0, 0, 0, 0].tolist() == list(range(15))


def test_random_windows_follow_the_seed_alone(folder):
    protocol = find("bair-videogpt")
    starts = [
        [int(u.real[0, 0, 0, 0, 0]) % 50 for u in read(protocol, folder, seed=s)] for s in (0, 0, 1)
    ]
    assert starts[0] == starts[1] != starts[2]
    assert all(0 <= start <= 14 for start in starts[0])


def test_videos_are_drawn_with_or_without_repetition(folder):
    orders = {}
    for draw, count in (("sample", 3), ("repeat", 20)):
        reference = reference_of(replace(BAIR, draw=draw, num_clips=count), folder, 64, None, 0)
        orders[draw] = reference.order
    assert len({*orders["sample"]}) == 3
    assert len(orders["repeat"]) == 20
    assert {*orders["repeat"]} == {0, 1, 2, 3}


SIZES = {"bair": 256, "davis": 90, "kinetics600": 29_000, "kth": 120, "moving-mnist": 10_000}
SIZES |= {"ucf101-train": 9537}
OTHERS = {"ucf101-styleganv": 13_320, "reconstruction-mcl-jcv": 30}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_benchmark_has_as_many_videos_as_its_protocol_wants(name):
    protocol = PROTOCOLS[name]
    videos = OTHERS.get(name, SIZES.get(protocol.layout, protocol.num_clips or 1))
    order, _ = _draw(protocol, videos, protocol.num_clips or videos, 0)
    assert {*order} <= {*range(videos)}


def test_kth_takes_two_or_three_windows_of_each_video():
    """As MCVD does: number i of 256 is of video round(i / 255 * 119)."""
    order, offsets = _draw(find("kth"), 120, 256, 0)
    assert order == [round(i / 255 * 119) for i in range(256)]
    assert len({*offsets}) == 256


def test_frames_are_cut_or_stretched_to_a_square(tmp_path):
    frames = np.zeros((16, 64, 128, 3), np.uint8)
    frames[:, :, :16], frames[:, :, 16:32] = 200, 100  # the outer quarter is cut away
    np.save(tmp_path / "a.npy", frames)
    cut = read(BAIR, tmp_path, clips=1)[0].real
    whole = read(replace(BAIR, fit="stretch"), tmp_path, clips=1)[0].real
    assert cut.max() == 0
    assert whole.shape == (1, 16, 64, 64, 3)
    assert (whole[..., 32, :6, :] == 200).all()
    assert (whole[..., 32, 10:14, :] == 100).all()
    assert (whole[..., 32, 18:, :] == 0).all()


def test_too_short_videos_are_left_out_where_no_benchmark_says_which(folder):
    np.save(folder / "short.npy", np.zeros((9, 64, 64, 3), np.uint8))
    anything = find("reconstruction")
    reference = reference_of(anything, folder, 64, None, 0)
    assert len(reference) == 4
    assert "left out: 1 of 5 videos have fewer than the 17 frames" in reference.notes[1]
    with pytest.raises(ValueError, match="replace them or take them out"):
        reference_of(BAIR, folder, 64, 4, 0)
    for number in range(4):
        (folder / f"{number}.npz").unlink()
    with pytest.raises(ValueError, match="1 of 1 videos"):
        reference_of(anything, folder, 64, None, 0)


def test_the_rate_is_that_of_the_frames_taken(tmp_path):
    write_video(tmp_path / "a.mp4", torch.zeros(33, 32, 32, 3, dtype=torch.uint8), 24.0)
    protocol = replace(find("reconstruction"), frame_stride=2)
    assert reference_of(protocol, tmp_path, 32, None, 0).fps == 12.0


def test_strides_and_grey_are_the_protocols(folder):
    strided = replace(BAIR, frame_stride=2, num_frames=8)
    assert read(strided, folder)[1].real[0, :, 0, 0, 0].tolist() == [50 + 2 * t for t in range(8)]
    colour = np.zeros((16, 64, 64, 3), dtype=np.uint8)
    colour[..., 1] = 90
    np.save(folder / "0.npy", colour)
    grey = read(replace(BAIR, grey=True), folder, clips=1)[0]
    assert (grey.real == 30).all()


def test_videos_classes_and_captions_are_read(tmp_path):
    clip = torch.randint(256, (16, 64, 64, 3), dtype=torch.uint8)
    for name in ("walk", "run"):
        (tmp_path / name).mkdir()
        with VideoWriter(tmp_path / name / "a.mp4", 8.0, lossless=True) as writer:
            writer.write(clip)
    (tmp_path / "walk" / "a.json").write_text('{"caption": "someone walks"}')
    classes = read(replace(BAIR, condition="class"), tmp_path, clips=2)
    assert [unit.caption for unit in classes] == ["run", "walk"]
    assert torch.equal(classes[0].real[0], clip)
    captions = read(replace(BAIR, condition="caption"), tmp_path, clips=2)
    assert [unit.caption for unit in captions] == ["", "someone walks"]


def test_what_cannot_serve_is_refused_at_once(folder, tmp_path):
    with pytest.raises(
        ValueError, match=r"bair needs 256 videos, but there are 4; .* or --clips 4"
    ):
        reference_of(BAIR, folder, 64, None, 0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no video and no array"):
        reference_of(BAIR, tmp_path / "empty", 64, None, 0)
    with pytest.raises(ValueError, match="None is no folder; bair needs one with BAIR robot"):
        reference_of(BAIR, None, 64, None, 0)
    np.save(folder / "short.npy", np.zeros((7, 8, 8, 3), dtype=np.uint8))
    with pytest.raises(
        ValueError, match=r"1 of 5 videos have fewer than the 16 .* short.npy \(7\)"
    ):
        reference_of(BAIR, folder, 64, 4, 0)
    np.save(folder / "short.npy", np.zeros((20, 8, 8, 3)))
    with pytest.raises(ValueError, match="is float64 of shape"):
        reference_of(BAIR, folder, 64, 4, 0)
    np.savez(folder / "short.npz", video=np.zeros(3))
    (folder / "short.npy").unlink()
    with pytest.raises(ValueError, match=r"no `frames` but \['video'\]"):
        reference_of(BAIR, folder, 64, 4, 0)


def test_a_video_that_ends_early_is_named(tmp_path):
    write_video(tmp_path / "a.mp4", torch.zeros(20, 64, 64, 3, dtype=torch.uint8), 8.0)
    reference = reference_of(BAIR, tmp_path, 64, 1, 0)
    reference.videos = [reference.videos[0]._replace(num_frames=40)]
    reference.offsets = [0.9]
    with pytest.raises(ValueError, match=r"a\.mp4 says it has at least .* but 20 came out"):
        reference.read(0)
