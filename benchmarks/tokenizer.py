"""Speed of the tokenizer beside a peer: python -m benchmarks.tokenizer [--json FILE].

A clip of 17 x 128 x 128 is encoded and decoded in float32 by the presets and by Emu3's tokenizer
(transformers), in turns, medians. Peak memory is that of a process which does nothing else. For the
presets a table says beside it what each stage costs.
"""

import argparse
import json
import re
import resource
import statistics
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from tokenizer import FSQ, Tokenizer
from tokenizer.blocks import PatchStem
from tokenizer.presets import PRESETS, preset

EMU3 = "Emu3VQVAE (transformers)"
NAMES = ["small", "base", EMU3]


class Coder(NamedTuple):
    """A model, and how to encode a clip and to decode what that gave."""

    model: nn.Module
    encode: Callable[[Tensor], Any]
    decode: Callable[[Any], Tensor]


def coder(name: str) -> Coder:
    """Return an untrained model: speed does not depend on weights."""
    torch.manual_seed(0)
    if name in PRESETS:
        tokenizer = preset(name, FSQ([8, 8, 8, 5, 5, 5])).eval()
        return Coder(tokenizer, tokenizer.encode, tokenizer.decode)
    from transformers import Emu3VQVAE, Emu3VQVAEConfig

    peer = Emu3VQVAE(Emu3VQVAEConfig())

    def encode(clip: Tensor) -> Tensor:
        # It takes 4 k frames, time before channels.
        frames = clip[:, :, : clip.shape[2] // 4 * 4].transpose(1, 2)
        size = torch.tensor([clip.shape[-2:]] * len(clip))
        tokens = peer.encode(frames, size).image_tokens
        assert tokens is not None
        return torch.stack(list(tokens))

    return Coder(peer, encode, peer.decode)


@torch.inference_mode()
def timed(names: list[str], clip: Tensor, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Return (encode, decode) seconds of each round; the models take turns."""
    coders = {name: coder(name) for name in names}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        for name, (_, encode, decode) in coders.items():
            start = time.perf_counter()
            tokens = encode(clip)
            middle = time.perf_counter()
            decode(tokens)
            if turn:  # the first one warms up
                seconds[name].append((middle - start, time.perf_counter() - middle))
    return seconds


def peak(name: str, size: tuple[int, int, int]) -> float:
    """Return the peak memory in GB of a process that encodes and decodes one clip."""
    code = (
        "import torch, benchmarks.tokenizer as b\n"
        f"torch.manual_seed(0); c = b.coder({name!r})\n"
        "with torch.inference_mode():\n"
        f"    c.decode(c.encode(torch.rand(1, 3, {size[0]}, {size[1]}, {size[2]}) * 2 - 1))\n"
        "print(b.resident())"
    )
    command = [sys.executable, "-c", code]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def resident() -> float:
    """Return the largest memory in GB that this process has had since it began."""
    status = Path("/proc/self/status")
    if status.is_file():  # Linux counts in rusage what the parent held when it forked
        (line,) = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())
        return int(line) * 1024 / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9  # bytes on a Mac


class Stage(NamedTuple):
    """What a stage of a tokenizer costs for one clip.

    A multiply-add is two operations. `megabytes` are of the activations, the input's included, that
    are alive at once.
    """

    name: str
    parameters: int
    gflop: float
    milliseconds: float
    megabytes: float


class Memory(TorchDispatchMode):
    """Counts the bytes of all tensors made within it, and the most that were alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and count what it made, not what only looks at its input."""
        result = func(*args, **(kwargs or {}))
        given = {storage.data_ptr() for storage in _storages((args, kwargs))}
        for storage in _storages(result):
            if storage.data_ptr() not in given:
                self._count(storage.nbytes())
                weakref.finalize(storage, self._count, -storage.nbytes())
        return result

    def _count(self, num_bytes: int) -> None:
        self.alive += num_bytes
        self.peak = max(self.peak, self.alive)


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


@torch.no_grad()
def stages(tokenizer: Tokenizer, clip: Tensor, rounds: int = 3) -> list[Stage]:
    """Send a clip through a tokenizer stage by stage; times are medians after a first round."""
    rows, x = [], clip
    for end in ("encoder", "decoder"):
        for path, module in _parts(tokenizer, end):
            x, row = _measure(path, module, x, rounds)
            rows.append(row)
            x = F.silu(x) if path.endswith("norm_out") else x
        x = tokenizer.quantizer(x).latents if end == "encoder" else x
    return rows


def _parts(tokenizer: Tokenizer, end: str) -> Iterator[tuple[str, nn.Module]]:
    """Return the layers of the encoder or decoder, with their places, in the order of the data."""
    for name, part in tokenizer.get_submodule(end).named_children():
        if name == "blocks":
            yield from ((f"{end}.{name}.{place}", block) for place, block in part.named_children())
        else:
            yield f"{end}.{name}", part


def _measure(path: str, module: nn.Module, x: Tensor, rounds: int) -> tuple[Tensor, Stage]:
    run: Callable[[Tensor], Tensor] = module
    if path == "decoder.stem":
        assert isinstance(module, PatchStem)
        run = module.inverse
    with FlopCounterMode(display=False) as counter, Memory() as memory:
        out = run(x)
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        run(x)
        seconds.append(time.perf_counter() - start)
    stage = Stage(
        name=f"{path} ({type(module).__name__})",
        parameters=sum(p.numel() for p in module.parameters()),
        gflop=counter.get_total_flops() / 1e9,
        milliseconds=1e3 * statistics.median(seconds),
        megabytes=(x.nbytes + memory.peak) / 1e6,
    )
    return out, stage


def show_stages(name: str, clip: Tensor, console: Console) -> None:
    """Print where parameters, operations, time and memory of a preset are."""
    model = coder(name).model
    assert isinstance(model, Tokenizer)
    rows = stages(model, clip)
    table = Table("stage", "parameters (M)", "GFLOP", "time (ms)", "peak (MB)", title=name)
    total = Stage(
        name="all",
        parameters=sum(row.parameters for row in rows),
        gflop=sum(row.gflop for row in rows),
        milliseconds=sum(row.milliseconds for row in rows),
        megabytes=max(row.megabytes for row in rows),
    )
    for row in [*rows, total]:
        figures = f"{row.gflop:.2f}", f"{row.milliseconds:.1f}", f"{row.megabytes:.1f}"
        table.add_row(row.name, f"{row.parameters / 1e6:.2f}", *figures)
    console.print(table)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=NAMES, choices=[*PRESETS, EMU3])
    parser.add_argument("--size", type=int, nargs=3, default=(17, 128, 128), metavar="T H W")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    args = parser().parse_args(arguments)
    console, size = Console(), tuple(args.size)
    clip = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for name in args.models:
        if name in PRESETS:
            show_stages(name, clip, console)
    seconds, rows = timed(args.models, clip, args.rounds), []
    for name in args.models:
        encode, decode = (statistics.median(times) for times in zip(*seconds[name], strict=True))
        with torch.device("meta"):
            count = sum(p.numel() for p in coder(name).model.parameters())
        row = {"name": name, "parameters": count, "encode_seconds": encode}
        rows.append({**row, "decode_seconds": decode, "peak_gb": peak(name, size)})
    table = Table("model", "parameters (M)", "encode (s)", "decode (s)", "peak (GB)")
    for row in rows:
        figures = (row["encode_seconds"], row["decode_seconds"], row["peak_gb"])
        table.add_row(row["name"], f"{row['parameters'] / 1e6:.0f}", *(f"{x:.2f}" for x in figures))
    console.print(table)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(min(2, torch.get_num_threads()))
    main()
