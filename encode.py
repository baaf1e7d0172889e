"""Cache the tokens of prepared clips: python encode.py runs/demo/model SHARDS OUT --frames 17.

Each shard of tokens is made from one shard of clips, so that any number of processes share the
work (torchrun --nproc-per-node 8 encode.py ..., or --part 3/8 by hand), and a run that was stopped
goes on with the shards that are missing.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from rich.console import Console
from rich.progress import track
from torch import Tensor

from data.container import VideoError
from data.datamodule import first_frame
from data.manifest import Manifest, begin, locked
from data.shard_folder import ShardFolder
from data.shards import write_shard
from data.tokens import FORMAT, to_stored
from data.video import to_model_range
from layers.processes import device, local_device
from tokenizer import Tokenizer


class Window(NamedTuple):
    """Frames that are encoded on their own, their key, and what is said about them."""

    key: str
    frames: UInt8[Tensor, "T H W 3"]
    meta: dict[str, Any]


class Encoder:
    """A tokenizer at work on windows laid end to end through every clip of `source`."""

    def __init__(
        self, tokenizer: Tokenizer, source: ShardFolder, num_frames: int, batch_size: int
    ) -> None:
        tokenizer.num_latent_frames(num_frames)
        self.tokenizer, self.source = tokenizer, source
        self.num_frames, self.batch_size = num_frames, batch_size
        self.shards: dict[str, list[int]] = {}
        for index in range(len(source)):
            self.shards.setdefault(source.stored(index).shard, []).append(index)

    def settings(self) -> dict[str, Any]:
        """Return what the tokens depend on, for dataset.json."""
        return {
            "format": FORMAT,
            "shards": len(self.shards),
            "fingerprint": self.tokenizer.fingerprint(),
            "codebook_size": self.tokenizer.codebook_size,
            "num_frames": self.num_frames,
            "batch_size": self.batch_size,
            "size": first_frame(self.source).shape[1],
            "fps": self.source.fps,
            "clips": self.source.reader.digest,
            "left_out": sorted(self.source.unused_sources),
        }

    def samples(
        self, shard: str, skipped: dict[str, str]
    ) -> Iterator[tuple[str, dict[str, bytes]]]:
        """Encode one shard, in batches that never reach into the next."""
        batch: list[Window] = []
        for window in self._windows(shard, skipped):
            batch.append(window)
            if len(batch) == self.batch_size:
                yield from self._encode(batch)
                batch = []
        if batch:
            yield from self._encode(batch)

    def _windows(self, shard: str, skipped: dict[str, str]) -> Iterator[Window]:
        for index in self.shards[shard]:
            stored, length = self.source.stored(index), self.source.length(index)
            try:
                frames = self.source.read(index, length).frames
            except VideoError as error:
                skipped[stored.entry.key] = str(error)
                continue
            facts = {name: stored.entry.meta.get(name) for name in ("captions", "source", "fps")}
            for start in range(0, length - self.num_frames + 1, self.num_frames):
                meta = facts | {"clip": stored.entry.key, "start": start}
                key = f"{stored.entry.key}-{start:06d}"
                yield Window(key, frames[start : start + self.num_frames], meta)

    @torch.no_grad()
    def _encode(self, batch: list[Window]) -> Iterator[tuple[str, dict[str, bytes]]]:
        frames = torch.stack([window.frames for window in batch])
        clips = to_model_range(frames.to(self.tokenizer.device))
        for window, tokens in zip(batch, self.tokenizer.encode(clips), strict=True):
            stream = BytesIO()
            array = to_stored(tokens, self.tokenizer.codebook_size)
            np.save(stream, array, allow_pickle=False)
            meta = json.dumps(window.meta, sort_keys=True).encode()
            yield window.key, {"tokens.npy": stream.getvalue(), "json": meta}


def encode(encoder: Encoder, out: Path, part: int = 0, num_parts: int = 1) -> Manifest:
    """Write this part's shards that are not written yet; parts 0 to `num_parts` - 1 are all."""
    if not 0 <= part < num_parts:
        raise ValueError(f"the part is {part}/{num_parts}; count them from 0/{num_parts}")
    scratch = out / f".partial-{part}-of-{num_parts}"
    scratch.mkdir(parents=True, exist_ok=True)
    settings = encoder.settings()
    with locked(scratch):
        with locked(out, wait=True):
            begin(out, settings, scratch)
            done = Manifest(out).records
        own = sorted(encoder.shards)[part::num_parts]
        missing = [shard for shard in own if shard not in done]
        for shard in track(missing, "shards", console=Console(stderr=True)):
            skipped: dict[str, str] = {}
            record = write_shard(out, shard, encoder.samples(shard, skipped), scratch, skipped)
            with locked(out, wait=True):
                Manifest(out).add(record)
        shutil.rmtree(scratch)
    with locked(out, wait=True):
        manifest = Manifest(out)
        if len(manifest.records) == len(encoder.shards):
            manifest.sort()
    return manifest


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description="Cache the tokens of prepared clips.")
    parser.add_argument("model", help="model folder or hub id")
    parser.add_argument("shards", help="folder or address of what data.prepare wrote")
    parser.add_argument("out", type=Path, help="folder to write; run again to go on")
    parser.add_argument("--frames", type=int, default=17, help="length of a clip, 1 + s k")
    parser.add_argument("--size", type=int, help="side of the frames; as stored without it")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--device", type=device, default=local_device())
    rank, world = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    parser.add_argument(
        "--part", type=part_of, default=f"{rank}/{world}", help="k/n, k from 0; torchrun sets it"
    )
    return parser


def part_of(text: str) -> tuple[int, int]:
    """Return k and n of k/n.

    Raises:
        ArgumentTypeError: It is no such thing; a command line then shows why.
    """
    k, _, n = text.partition("/")
    if not (k.isdecimal() and n.isdecimal()):
        raise argparse.ArgumentTypeError(
            f"the part is {text}; give k/n, such as 0/8 for the first of 8"
        )
    return int(k), int(n)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    args = parser().parse_args(arguments)
    tokenizer = Tokenizer.from_pretrained(args.model).to(args.device)
    source = ShardFolder(args.shards, size=args.size, min_frames=args.frames)
    encoder = Encoder(tokenizer, source, args.frames, args.batch_size)
    records = encode(encoder, args.out, *args.part).records.values()
    skipped = [line for record in records for line in record.skipped.items()]
    print(
        f"{sum(r.samples for r in records)} clips in {len(records)} of {len(encoder.shards)} shards"
    )
    if source.too_short:
        print(f"left out {source.too_short} clips of less than {args.frames} frames")
    print("\n".join(f"skipped {name}: {reason}" for name, reason in skipped))


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"encode.py: {error}")
