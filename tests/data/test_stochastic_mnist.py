"""Digits leave a wall as they should, and MNIST's files are read or refused."""

import gzip
from collections import Counter

import numpy as np
import pytest
import torch

from data import StochasticMNIST
from data.container import VideoError
from data.stochastic_mnist import walk
from evaluation.protocols import find
from evaluation.video_sets import open_videos


def write_mnist(folder, name="t10k", levels=(255,), packed=False):
    """Write pictures of one level of grey each, as MNIST's files are."""
    pictures = np.repeat(np.array(levels, np.uint8), 28 * 28).tobytes()
    shape = b"".join(n.to_bytes(4) for n in (0x0803, len(levels), 28, 28))
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}-images-idx3-ubyte{'.gz' if packed else ''}"
    file.write_bytes(gzip.compress(shape + pictures) if packed else shape + pictures)
    return file


def test_a_digit_goes_straight_and_leaves_every_wall_in_a_new_direction():
    """What it was before a wall says nothing of the step after it but which way is inward."""
    away, along, bounces = Counter(), Counter(), 0
    for seed in range(300):
        corners = walk(100, np.random.default_rng(seed))
        assert corners.min() >= 0
        assert corners.max() <= 31
        steps = np.diff(corners, axis=0)
        assert np.abs(steps).max() <= 31
        for t in range(1, 98):
            if (steps[t] == steps[t - 1]).all():
                continue
            # It had left the square: in frame t, or t + 1, it is set on a wall and goes elsewhere.
            walls = [
                (axis, frame)
                for frame in (t, t + 1)
                for axis in (0, 1)
                if corners[frame, axis] in (0, 31)
            ]
            assert walls
            reached = corners[t] + steps[t - 1]  # where it would have gone on to
            outside = [axis for axis in (0, 1) if not 0 <= reached[axis] <= 31]
            if len(outside) == 1 and corners[t + 1, outside[0]] in (0, 31) and t + 2 < 100:
                axis = outside[0]
                inward = 1 if corners[t + 1, axis] == 0 else -1
                new = corners[t + 2] - corners[t + 1]
                left = corners[t + 1] + new
                if ((left >= 0) & (left < 32)).all():
                    away[int(inward * new[axis])] += 1
                    along[int(new[1 - axis])] += 1
                    bounces += 1
    assert bounces > 1000
    assert {*away} == {1, 2, 3, 4}
    assert {*along} <= {*range(-4, 5)}
    assert len(along) == 9
    assert min(away.values()) / bounces > 0.2  # each a quarter


def test_a_clip_is_a_pure_function_and_a_short_one_begins_the_long_one(tmp_path):
    write_mnist(tmp_path / "MNIST/raw", levels=range(40, 80))
    write_mnist(tmp_path / "MNIST/raw", "train", levels=range(100, 120), packed=True)
    source = StochasticMNIST(tmp_path, "val", 20)
    long = source.read(7, 31).frames
    assert torch.equal(StochasticMNIST(tmp_path, "val").read(7, 11).frames, long[:11])
    assert torch.equal(source.read(7, 11, stride=3).frames, long[::3])
    assert not torch.equal(source.read(8, 31).frames, long)
    assert not torch.equal(StochasticMNIST(tmp_path, "val", seed=1).read(7, 31).frames, long)
    assert long.shape == (31, 64, 64, 3)
    levels = set(long.unique().tolist()) - {0}
    assert max(levels) <= 79 + 79
    assert len(levels) <= 3  # of one digit, of the other, and of both where they cross
    trained = StochasticMNIST(tmp_path, "train").read(7, 31).frames
    assert min(set(trained.unique().tolist()) - {0}) >= 100


def test_digits_add_up_and_stop_at_white(tmp_path):
    write_mnist(tmp_path, levels=(200,))
    frames = torch.stack([StochasticMNIST(tmp_path, "val").read(i, 15).frames for i in range(20)])
    assert frames.unique().tolist() == [0, 200, 255]
    lit = (frames[..., 0] > 0).sum((2, 3)) + (frames[..., 0] == 255).sum((2, 3))
    assert (lit == 2 * 32 * 32).all()  # both are whole in every frame


def test_the_benchmark_draws_from_the_test_digits(tmp_path):
    write_mnist(tmp_path / "raw", levels=(90,))
    protocol = find("moving-mnist-stochastic")
    opened = open_videos(protocol, tmp_path, 64, None)
    assert (opened.kind, len(opened.videos), opened.fps) == ("as given out", 1000, 10.0)
    expected = StochasticMNIST(tmp_path, "val").read(3, 15).frames
    assert torch.equal(opened.videos[3].read(15, 64).frames, expected)
    with pytest.raises(ValueError, match="none to learn from"):
        open_videos(protocol, tmp_path, 64, None, training=True)
    write_mnist(tmp_path / "raw", "train", levels=(30,))
    learnt = open_videos(protocol, tmp_path, 64, None, training=True).videos[0]
    assert learnt.read(1, 64).frames.max() <= 60


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no file of pictures"),
        (b"\0\0\x08\x01" + b"\0" * 40, "no file of pictures"),
        (b"\0\0\x08\x03" + b"\0\0\0\x02\0\0\0\x1c\0\0\0\x1c" + b"\0" * 784, "but has 784"),
    ],
)
def test_a_broken_file_is_refused(tmp_path, content, words):
    file = tmp_path / "t10k-images-idx3-ubyte"
    file.write_bytes(content)
    with pytest.raises(VideoError, match=words):
        StochasticMNIST(tmp_path, "val")
    file.rename(tmp_path / "t10k-images-idx3-ubyte.gz")
    with pytest.raises(VideoError, match=words if not content else "cannot be unpacked"):
        StochasticMNIST(tmp_path, "val")
    with pytest.raises(VideoError, match="holds no train-images"):
        StochasticMNIST(tmp_path, "train")
