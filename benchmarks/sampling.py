"""Tokens per second against transformers on the same weights: python -m benchmarks.sampling.

Greedy decoding of 320 tokens by a prior of 27 M parameters and by `LlamaForCausalLM.generate`, side
by side: the contestants take turns, and medians count. The limit is the time to read every weight
and the mean of keys and values once a token, at the speed at which this machine reads memory, which
takes its turn like the others since other machines' work on the same memory changes it.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lm import AutoregressivePrior, Condition, Sampling, Transformer
from lm.export import to_config, to_weights
from lm.packing import Quantization

try:
    from transformers import LlamaConfig, LlamaForCausalLM
except ImportError as error:
    raise SystemExit(
        "this benchmark compares with transformers: pip install transformers"
    ) from error

GRID = [5, 8, 8]
READS = 16


class Row(NamedTuple):
    """Tokens per second of both, ours as a share of the memory limit, and GB/s read."""

    batch: int
    dtype: str
    ours: float
    transformers: float
    ratio: float
    limit_fraction: float
    bandwidth: float


def new_prior(text_window: int = 24) -> AutoregressivePrior:
    """Return a prior of 27 M parameters, with weights of the size that training gives."""
    torch.manual_seed(0)
    network = Transformer(width=512, depth=8, num_heads=8, qk_norm=False)
    prior = AutoregressivePrior(network, 1024, GRID, text_window=text_window, places="line")
    for name, parameter in prior.named_parameters():
        if name.endswith(("out.weight", "down.weight")):
            nn.init.normal_(parameter, std=0.05)
    return prior.eval()


def as_llama(prior: AutoregressivePrior) -> Any:
    """Return the same network in transformers, with the same weights."""
    llama: Any = LlamaForCausalLM(LlamaConfig(**to_config(prior)))
    llama.load_state_dict(to_weights(prior))
    return llama.eval()


def prompts(batch: int) -> Condition:
    """Return a text of three pieces for each sample."""
    return Condition([[i, 2 * i, 3 * i] for i in range(batch)])


def ours(prior: AutoregressivePrior, batch: int, quantize: Quantization | None = None) -> Tensor:
    """Return greedy tokens."""
    generators = [torch.Generator() for _ in range(batch)]
    sampling = Sampling(temperature=0.0, quantize=quantize)
    return prior.sample(prompts(batch), generators, sampling=sampling).flatten(1)


def theirs(llama: Any, prior: AutoregressivePrior, batch: int, cache: str) -> Tensor:
    """Return greedy tokens."""
    prompt = prior.prefix(prompts(batch))
    made = llama.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        min_new_tokens=prior.num_tokens,
        max_new_tokens=prior.num_tokens,
        do_sample=False,
        cache_implementation=cache,
    )
    assert isinstance(made, Tensor)
    return made[:, prior.prefix_length :] - prior.vocabulary.first_code


def medians(contestants: dict[str, Callable[[], Tensor]], rounds: int) -> dict[str, float]:
    """Return the seconds of each; they take turns, so that a busy machine is so for all."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def read_memory(data: Tensor) -> Tensor:
    """Read memory sixteen times over, by all threads together."""
    return torch.stack([data.sum() for _ in range(READS)])


def bytes_per_step(prior: AutoregressivePrior, batch: int, dtype: str) -> float:
    """Return the bytes that a step must read: weights and, on average, keys and values."""
    weight_size = {"float32": 4, "bfloat16": 2, "int8": 1}[dtype]
    network = prior.transformer
    layers = [part.weight for part in network.modules() if isinstance(part, nn.Linear)]
    weights = sum(w.numel() for w in layers) + prior.output_table().numel()
    width = 2 * network.num_kv_heads * network.head_dim * network.depth
    length = prior.prefix_length + prior.num_tokens / 2
    return weights * weight_size + batch * width * length * 4  # the cache is float32


def compare(batch: int, dtype: str, rounds: int) -> Row:
    """Measure one row of the table."""
    prior = new_prior()
    llama = as_llama(prior)
    quantize: Quantization | None = "int8" if dtype == "int8" else None
    if dtype != "float32":
        prior, llama = prior.bfloat16(), llama.bfloat16()
    data = torch.ones(40 * 2**20, dtype=torch.int64)
    contestants = {
        "ours": partial(ours, prior, batch, quantize),
        "memory": partial(read_memory, data),
    }
    for cache in ("dynamic", "static"):
        contestants[cache] = partial(theirs, llama, prior, batch, cache)
    tokens = {name: run() for name, run in contestants.items()}  # warm-up
    if dtype == "float32" and not torch.equal(tokens["ours"], tokens["dynamic"]):
        raise SystemExit("greedy tokens in float32 are not those of transformers")
    seconds = medians(contestants, rounds)
    best = min(seconds["dynamic"], seconds["static"])
    count = batch * prior.num_tokens
    bandwidth = READS * data.nbytes / seconds["memory"]
    limit = batch * bandwidth / bytes_per_step(prior, batch, dtype)
    speed = count / seconds["ours"]
    return Row(
        batch, dtype, speed, count / best, best / seconds["ours"], speed / limit, bandwidth / 1e9
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Compare sampling with transformers.")
    parser.add_argument("--json", type=Path, help="file to write the rows into")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument(
        "--dtype", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"]
    )
    parser.add_argument(
        "--quantize", choices=["int8"], help="one more row a batch, of int8 weights"
    )
    args = parser.parse_args(arguments)
    print(
        f"{'batch':>5} {'dtype':>9} {'ours':>7} {'transformers':>13} {'ratio':>6} {'of limit':>9} "
        f"{'GB/s':>6}"
    )
    rows = []
    for dtype in [*args.dtype, *([args.quantize] if args.quantize else [])]:
        for batch in args.batch:
            row = compare(batch, dtype, args.rounds)
            rows.append(row._asdict())
            print(
                f"{row.batch:5} {row.dtype:>9} {row.ours:7.0f} {row.transformers:13.0f} "
                f"{row.ratio:6.2f} {row.limit_fraction:9.2f} {row.bandwidth:6.1f}",
                flush=True,
            )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
