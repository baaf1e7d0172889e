import pytest

from data.split import held_out, of_split


def test_a_tenth_is_held_out_by_name_alone():
    names = [f"video {k}" for k in range(1000)]
    held = held_out(names, 0)
    assert len(held) == 100
    assert held_out(reversed(names), 0) == held
    assert len(held & held_out(names, 1)) < 30  # chance: 10
    assert held_out(["one"], 0) == {"one"}
    assert held_out(names * 3, 0) == held


def test_a_split_keeps_its_own():
    held = [True, False, True]
    assert of_split("abc", held, "val") == ["a", "c"]
    assert of_split("abc", held, "train") == ["b"]
    assert of_split("abc", held, "all") == ["a", "b", "c"]
    with pytest.raises(ValueError, match="must be 'all', 'train' or 'val'"):
        of_split("abc", held, "test")
    with pytest.raises(ValueError, match="no clip is left for split 'train'"):
        of_split("a", [True], "train")
