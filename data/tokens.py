"""Cached tokens: shards of a tokenizer's output, which only a prior of that tokenizer may read."""

from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset

from data.schedule import Window
from data.shard_reader import ShardReader, Stored
from data.shards import ShardError
from data.source import Place
from data.split import held_out, of_split

FORMAT = "reelm-tokens-1"


class TokenSample(NamedTuple):
    """The tokens of one clip, what is said about it, and where it was cut."""

    tokens: Int[Tensor, "t h w"]
    caption: str
    place: Place


def to_stored(tokens: Int[Tensor, "t h w"], codebook_size: int) -> np.ndarray:
    """Return tokens in the narrowest type that holds the codebook, uint16 or uint32."""
    return tokens.cpu().numpy().astype(np.uint16 if codebook_size <= 2**16 else np.uint32)


class TokenFolder(Dataset[TokenSample]):
    """The tokens that `encode.py` wrote, clip by clip.

    Args:
        path: The folder, or an address that fsspec knows.
        split: "all", or "train" and "val": a tenth of the source videos, whole, is held out.
        seed: Chooses the videos held out.
        verify: Hash every shard before the first clip is read.
    """

    def __init__(
        self,
        path: str,
        split: Literal["all", "train", "val"] = "all",
        seed: int = 0,
        verify: bool = False,
    ) -> None:
        self.path = path
        self._reader = ShardReader(path, FORMAT, verify)
        settings = self._reader.settings
        self.fingerprint = str(settings["fingerprint"])
        self.codebook_size, self.num_frames = settings["codebook_size"], settings["num_frames"]
        self.fps, self.size = settings["fps"], settings["size"]
        samples = self._reader.samples
        sources = [str(stored.entry.meta["source"]) for stored in samples]
        held = held_out([*sources, *settings.get("left_out", [])], seed)
        self._samples = of_split(samples, [source in held for source in sources], split)

    def require(self, fingerprint: str) -> None:
        """Refuse to serve a prior of another tokenizer.

        Raises:
            ValueError: The tokens are of another tokenizer; both are named.
        """
        if fingerprint != self.fingerprint:
            raise ValueError(
                f"the tokens in {self.path} were made by the tokenizer {self.fingerprint}, but the "
                f"prior is of the tokenizer {fingerprint}; encode the clips again with that one"
            )

    @property
    def captions(self) -> list[str]:
        """The distinct captions of this split, sorted."""
        return sorted({c for s in self._samples for c in s.entry.meta["captions"]} - {""})

    def __len__(self) -> int:
        return len(self._samples)

    def place(self, index: int) -> Place:
        """Say where a clip was cut."""
        meta = self._samples[index].entry.meta
        return Place(meta["clip"], meta["start"], 1)

    def __getitem__(self, window: Window) -> TokenSample:
        return self.read(window.index, window.offset)

    def read(self, index: int, offset: float = 0.0) -> TokenSample:
        """Read one clip; of several captions, the digits of `offset` choose one."""
        stored = self._samples[index]
        captions = stored.entry.meta["captions"] or [""]
        tokens = self._tokens(stored)
        caption = captions[int(offset * 2**20) % len(captions)]
        return TokenSample(torch.from_numpy(tokens), caption, self.place(index))

    def _tokens(self, stored: Stored) -> np.ndarray:
        tokens = self._reader.read_array(stored, "tokens.npy")
        if tokens.dtype not in (np.uint16, np.uint32) or tokens.ndim != 3:
            raise ShardError(f"{stored} holds {tokens.dtype} {tokens.shape}, not tokens t h w")
        if tokens.max() >= self.codebook_size:
            raise ShardError(
                f"{stored} holds the token {tokens.max()}, but the codebook has "
                f"{self.codebook_size}; encode the clips again"
            )
        return tokens.astype(np.int64)
