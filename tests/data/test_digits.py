"""Moving digits move as they say, and training and validation share no digit."""

import numpy as np
import pytest
import torch
from sklearn import datasets

from data import Digits
from data.digits import enlarged, load_digits, reflected


def test_a_clip_is_a_pure_function_of_seed_split_and_index():
    first, again = Digits(9).read(5, 20), Digits(6).read(5, 20)
    assert torch.equal(first.frames, again.frames)
    assert first.place == again.place == ("train-5", 0, 1)
    assert first.frames.shape == (20, 64, 64, 3)
    for other in (Digits(9, seed=1), Digits(9, "val")):
        assert not torch.equal(first.frames, other.read(5, 20).frames)
    assert not torch.equal(first.frames, Digits(9).read(4, 20).frames)


def test_a_short_clip_begins_the_long_one_and_a_stride_passes_frames_over():
    source = Digits(3)
    long = source.read(2, 21).frames
    assert torch.equal(source.read(2, 5).frames, long[:5])
    assert torch.equal(source.read(2, 5, stride=4).frames, long[:17:4])


@pytest.mark.parametrize("size", [32, 64])
def test_two_whole_digits_are_in_every_frame_and_both_move(size):
    source = Digits(20, size=size)
    source.pictures[:] = 200  # blocks, whose area tells whether they are whole
    area = source.pictures[0].size
    for index in range(20):
        lit = (source.read(index, 40).frames[..., 0] > 0).sum((1, 2))
        assert area <= lit.min()  # one at least, where it hides the other
        assert lit.max() <= 2 * area
        assert lit.unique().numel() > 1  # they cross: not both stand still
        frames = source.read(index, 40).frames.int()
        assert ((frames[2:] - frames[:-2]) != 0).flatten(1).any(1).all()  # half a pixel is none


def test_walls_reflect_like_a_folded_line():
    """Against a ball that is moved step by step."""
    place, step, expected = 3.0, 2.5, []
    for _ in range(50):
        expected.append(place)
        place += step
        if not 0 <= place <= 10:
            place, step = (-place if place < 0 else 20 - place), -step
    straight = np.stack([3 + 2.5 * np.arange(50), np.zeros(50)], axis=1)
    assert reflected(straight, 10)[:, 0] == pytest.approx(expected)


def test_the_pictures_are_scikit_learns_in_two_disjoint_parts():
    train, val = load_digits("train"), load_digits("val")
    assert (len(train), len(val)) == (1500, 297)
    assert np.array_equal(np.concatenate([train, val]), datasets.load_digits().images)
    assert not {d.tobytes() for d in train} & {d.tobytes() for d in val}


def test_enlarging_is_bilinear():
    digits = load_digits("val")[:4]
    picture = torch.from_numpy(digits).float()[None]
    expected = torch.nn.functional.interpolate(picture, (20, 20), mode="bilinear")[0] * 255 / 16
    assert np.abs(enlarged(digits, 20) - expected.numpy()).max() <= 0.5001


def test_impossible_collections_are_refused():
    with pytest.raises(ValueError, match="num_clips is 0, but must be at least 1"):
        Digits(0)
    with pytest.raises(ValueError, match="size is 8, but must be at least 16"):
        Digits(size=8)
    with pytest.raises(IndexError, match="has clips 0 to 1"):
        Digits(2).read(2, 3)
