import pytest

from data.shapes import TRAINING_COMBINATIONS
from lm.text import TextTokenizer

CAPTIONS = [combination.caption for combination in TRAINING_COMBINATIONS]


def test_captions_come_back_whole():
    text = TextTokenizer.train(CAPTIONS, 320)
    assert text.vocabulary_size <= 320
    for caption in CAPTIONS:
        assert text.decode(text.encode(caption)) == caption
        assert len(text.encode(caption)) <= 12


def test_words_never_seen_become_bytes_and_warn():
    text = TextTokenizer.train(CAPTIONS, 320)
    with pytest.warns(UserWarning, match="next to no training caption"):
        pieces = text.encode_prompt("a red zebra \u00e9")
    assert text.decode(pieces) == "a red zebra \u00e9"


@pytest.mark.parametrize("size", [280, 320])
def test_captions_of_many_characters_are_read_the_rarest_as_bytes(size):
    signs = "".join(map(chr, range(0x4E00, 0x4E00 + 100)))
    captions = ["a cat on a mat"] * 50 + [f"the sign {signs[k:]} here" for k in range(90)]
    text = TextTokenizer.train(captions, size)
    assert text.vocabulary_size <= size
    assert all(text.decode(text.encode(caption)) == caption for caption in captions)
    with pytest.raises(ValueError, match="are bytes and marks"):
        TextTokenizer.train(captions, 258)


def test_training_twice_gives_the_same_model():
    assert TextTokenizer.train(CAPTIONS, 320).model == TextTokenizer.train(CAPTIONS, 320).model


def test_no_captions_are_refused():
    with pytest.raises(ValueError, match="no captions"):
        TextTokenizer.train([], 320)
