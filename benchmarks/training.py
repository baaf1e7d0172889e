"""Training steps against transformers on the same weights: python -m benchmarks.training.

Seconds for loss and gradients of 8 x 336 tokens by a prior of 27 M parameters and by
`LlamaForCausalLM`, side by side: the contestants take turns, and medians count. The optimizer is
left out; it does not see whose gradients it gets. With --compile both are measured compiled as
well, as `recipe.compile` has it, after minutes in which the compiler works.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.sampling import as_llama, medians, new_prior, prompts
from layers.compiling import Compiled
from lm import AutoregressivePrior

PROMPTS = prompts(8)
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}


class Row(NamedTuple):
    """Seconds of both, in bfloat16 by autocast; the ratio is of those that are not compiled."""

    dtype: str
    ours: float
    transformers: float
    ratio: float
    ours_compiled: float | None = None
    transformers_compiled: float | None = None


def ours(prior: AutoregressivePrior, tokens: Tensor, enabled: bool, network: Compiled) -> Tensor:
    """Return the loss after computing its gradients."""
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled), network.applied():
        loss = prior.loss(tokens, PROMPTS)
    prior.zero_grad()
    loss.backward()
    return loss.detach()


def theirs(llama: Any, prior: AutoregressivePrior, tokens: Tensor, enabled: bool) -> Tensor:
    """Return the loss over the same codes after computing its gradients."""
    first = prior.vocabulary.first_code
    ids = torch.cat([prior.prefix(PROMPTS), tokens.flatten(1)[:, :-1] + first], dim=1)
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        logits = llama(ids, use_cache=False, logits_to_keep=prior.num_tokens).logits
        loss = F.cross_entropy(logits[..., first:].flatten(0, 1).float(), tokens.flatten())
    llama.zero_grad()
    loss.backward()
    return loss.detach()


def compare(dtype: str, rounds: int, compiles: bool = False) -> Row:
    """Measure one row of the table."""
    prior = new_prior(text_window=14).train()
    tokens = torch.randint(1024, (8, *prior.grid), generator=torch.Generator().manual_seed(0))
    enabled = dtype == "bfloat16"
    contestants, suffixes = {}, ["", " compiled"] if compiles else [""]
    for suffix in suffixes:
        network = Compiled(prior, bool(suffix))
        contestants[f"ours{suffix}"] = partial(ours, prior, tokens, enabled, network)
        for kernel in ("sdpa", "eager"):
            llama = as_llama(prior).train()
            llama.set_attn_implementation(kernel)
            if suffix:
                llama.compile()
            contestants[f"{kernel}{suffix}"] = partial(theirs, llama, prior, tokens, enabled)
    losses = {name: run() for name, run in contestants.items()}  # warm-up
    if any(abs(loss - losses["sdpa"]) > TOLERANCE[dtype] for loss in losses.values()):
        raise SystemExit(f"the losses in {dtype} differ: {losses}")
    seconds = medians(contestants, rounds)
    best = {s: min(seconds[f"sdpa{s}"], seconds[f"eager{s}"]) for s in suffixes}
    compiled = [seconds["ours compiled"], best[" compiled"]] if compiles else []
    return Row(dtype, seconds["ours"], best[""], best[""] / seconds["ours"], *compiled)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Compare training steps with transformers.")
    parser.add_argument("--json", type=Path, help="file to write the rows into")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="measure both compiled too")
    args = parser.parse_args(arguments)
    print(f"{'dtype':>9} {'ours':>7} {'transformers':>13} {'ratio':>6}   seconds a step")
    rows = []
    for dtype in ("float32", "bfloat16"):
        row = compare(dtype, args.rounds, args.compile)
        rows.append(row._asdict())
        print(
            f"{row.dtype:>9} {row.ours:7.3f} {row.transformers:13.3f} {row.ratio:6.2f}", flush=True
        )
        if row.ours_compiled and row.transformers_compiled:
            print(f"{'compiled':>9} {row.ours_compiled:7.3f} {row.transformers_compiled:13.3f}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
