"""Which videos are held out for validation."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import TypeVar

Clip = TypeVar("Clip")


def held_out(videos: Iterable[str], seed: int) -> set[str]:
    """Return the tenth of some videos, at least one, that training must never see.

    Which they are hangs on their names alone. Give all videos, also those that a source leaves out
    because they are too short for it or because of a condition: another source of the same videos,
    with other conditions, must hold out the same ones.

    Args:
        videos: Their names.
        seed: Chooses them.
    """
    draw = lambda name: hashlib.sha256(f"{seed} {name}".encode(errors="replace")).digest()
    ranked = sorted(set(videos), key=draw)
    return set(ranked[: max(1, len(ranked) // 10)])


def of_split(clips: Sequence[Clip], held: Sequence[bool], split: str) -> list[Clip]:
    """Choose the clips of a split.

    Args:
        clips: All of them.
        held: Which are cut from a video that is held out: clips of one video are too alike to be
            on both sides.
        split: "all", "train" or "val".
    """
    if split not in ("all", "train", "val"):
        raise ValueError(f"split is {split!r}, but must be 'all', 'train' or 'val'")
    wanted = split == "val"
    chosen = [
        clip for clip, out in zip(clips, held, strict=True) if split == "all" or out == wanted
    ]
    if not chosen:
        raise ValueError(
            f"no clip is left for split {split!r}: too few videos; prepare validation videos on "
            "their own and read both with split 'all'"
        )
    return chosen
