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
    away, along = Counter(), Counter()
    for seed in range(300):
        corners = walk(100, np.random.default_rng(seed))
        assert corners.min() >= 0
        assert corners.max() <= 31
        steps = np.diff(corners, axis=0)
        for t in range(2, 97):
            if (steps[t - 1] != steps[t - 2]).any():
                continue  # only where it is known how it goes on
            wanted = corners[t] + steps[t - 1]
            (outside,) = np.nonzero((wanted < 0) | (wanted > 31))
            assert (corners[t + 1] == wanted.clip(0, 31)).all()
            # The middle of the other axis, where the next wall is not nearer than a step.
            if len(outside) != 1 or not 4 <= wanted[1 - outside[0]] <= 27:
                continue
            axis = int(outside[0])
            inward = 1 if corners[t + 1, axis] == 0 else -1
            away[int(inward * steps[t + 1, axis])] += 1
            along[int(steps[t + 1, 1 - axis])] += 1
    bounces = sum(away.values())
    assert bounces > 1000
    assert {*away} == {1, 2, 3, 4}
    assert {*along} == {*range(-4, 5)}
    assert all(0.2 < count / bounces < 0.3 for count in away.values())  # each a quarter
    assert all(0.07 < count / bounces < 0.15 for count in along.values())  # each a ninth


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
