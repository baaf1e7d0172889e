"""Captions to text pieces: a sentencepiece model trained on the captions (arXiv 1808.06226)."""

import io
import warnings

import sentencepiece


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
            vocabulary_size: Largest number of pieces; 256 of them are bytes.
        """
        if not any(captions):
            raise ValueError("no captions to learn text pieces from; train the prior without text")
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(captions),
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
        """Return the pieces of a text; warns of what training never saw."""
        pieces = self.pieces.encode(text)
        if any(self.pieces.is_byte(piece) or self.pieces.is_unknown(piece) for piece in pieces):
            warnings.warn(
                f"prompt {text!r} has characters that no training caption has; they are read as "
                "bytes, which the model has not learnt",
                stacklevel=2,
            )
        return pieces

    def decode(self, pieces: list[int]) -> str:
        """Return the text of pieces."""
        return self.pieces.decode(pieces)
