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
    with pytest.warns(UserWarning, match="no training caption has"):
        pieces = text.encode("a red zebra \u00e9")
    assert text.decode(pieces) == "a red zebra \u00e9"


def test_training_twice_gives_the_same_model():
    assert TextTokenizer.train(CAPTIONS, 320).model == TextTokenizer.train(CAPTIONS, 320).model


def test_no_captions_are_refused():
    with pytest.raises(ValueError, match="no captions"):
        TextTokenizer.train([], 320)
