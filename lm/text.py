"""Captions to text pieces: a sentencepiece model trained on the captions (arXiv 1808.06226)."""

import io
import warnings
from collections import Counter

import sentencepiece

_BYTES_AND_MARKS = 258  # 256 bytes, the unknown piece and the mark of a word's beginning


class TextTokenizer:
    """Text pieces in [0, `vocabulary_size`).

    Args:
        model: A serialised sentencepiece model.
    """

    def __init__(self, model: bytes) -> None:
        self.model = model
        self.pieces = sentencepiece.SentencePieceProcessor(model_proto=model)

    @classmethod
    def train(cls, captions: list[str], vocabulary_size: int) -> "TextTokenizer":
        """Learn pieces from captions; bytes stand in for characters never seen.

        Args:
            captions: At least one.
            vocabulary_size: Largest number of pieces; 256 of them are bytes. Where captions have
                more characters than find room beside them, the rarest are read as bytes.
        """
        if not any(captions):
            raise ValueError("no captions to learn text pieces from; train the prior without text")
        characters = Counter("".join(captions).replace(" ", ""))
        room = vocabulary_size - _BYTES_AND_MARKS
        if room < 1:
            raise ValueError(
                f"text_size is {vocabulary_size}, of which {_BYTES_AND_MARKS} are bytes and marks; "
                "set it above that"
            )
        rare = {ord(sign): None for sign, _ in characters.most_common()[room:]}
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(caption.translate(rare) for caption in captions),
            model_writer=model,
            vocab_size=vocabulary_size,
            model_type="bpe",
            byte_fallback=True,
            hard_vocab_limit=False,
            bos_id=-1,
            eos_id=-1,
            num_threads=1,
            minloglevel=2,
        )
        return cls(model.getvalue())

    @property
    def vocabulary_size(self) -> int:
        return self.pieces.get_piece_size()

    def encode(self, text: str) -> list[int]:
        """Return the pieces of a text."""
        return self.pieces.encode(text)

    def encode_prompt(self, text: str) -> list[int]:
        """Return the pieces of a text; warns of characters that training hardly saw."""
        pieces = self.encode(text)
        if any(self.pieces.is_byte(piece) or self.pieces.is_unknown(piece) for piece in pieces):
            warnings.warn(
                f"prompt {text!r} has characters that next to no training caption has; they are "
                "read as bytes, which the model has hardly learnt",
                stacklevel=2,
            )
        return pieces

    def decode(self, pieces: list[int]) -> str:
        """Return the text of pieces."""
        return self.pieces.decode(pieces)
