"""A prior as a model of the transformers library: python -m lm.export MODEL OUT.

Without QK-norm the network is `LlamaForCausalLM`, with it `Qwen3ForCausalLM`. Text and special
tokens keep their numbers; their logits, which a prior does not have, are zero, and the generation
config keeps them from being sampled.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from layers.storage import WEIGHTS, load_module, read_manifest, write_json
from lm.autoregressive import AutoregressivePrior
from lm.sequence import BOS, PAD

Weights = dict[str, Tensor]


def export(prior: AutoregressivePrior, folder: Path) -> None:
    """Write a folder that `AutoModelForCausalLM.from_pretrained` loads.

    Raises:
        ValueError: The prior has positions on three axes or a prefix that sees itself whole,
            which neither class has.
    """
    config = to_config(prior)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(to_weights(prior), folder / WEIGHTS, metadata={"format": "pt"})
    write_json(folder / "config.json", config)
    generation = {
        "bos_token_id": BOS,
        "pad_token_id": PAD,
        "do_sample": False,
        "max_new_tokens": prior.num_tokens,
        "suppress_tokens": list(range(prior.vocabulary.first_code)),
    }
    write_json(folder / "generation_config.json", generation)


def to_config(prior: AutoregressivePrior) -> dict[str, Any]:
    """Return the config of the class in transformers that computes the same."""
    if prior.places != "line":
        raise ValueError(
            "this prior has positions (t, h, w), but Llama and Qwen3 count along one line; "
            'train it with places: "line" to export it'
        )
    if prior.prefix_attention != "causal":
        raise ValueError(
            "the prefix of this prior sees itself whole, but Llama and Qwen3 read one way; "
            'train it with prefix_attention: "causal" to export it'
        )
    if prior.factors is not None:
        raise ValueError("Llama and Qwen3 predict whole codes; train without factors to export")
    network, inputs = prior.transformer, prior.inputs
    if network.cells or inputs.guided or inputs.feature_size or inputs.state_size:
        raise ValueError(
            "this prior has patterns of attention, guides, features or text states, which Llama "
            "and Qwen3 have not; train without them to export it"
        )
    name = "Qwen3" if network.qk_norm else "Llama"
    return {
        "architectures": [f"{name}ForCausalLM"],
        "model_type": name.lower(),
        "vocab_size": prior.vocabulary.size,
        "hidden_size": network.width,
        "intermediate_size": network.hidden,
        "num_hidden_layers": network.depth,
        "num_attention_heads": network.num_heads,
        "num_key_value_heads": network.num_kv_heads,
        "head_dim": network.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": network.norm.eps,
        "rope_theta": network.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": network.rope_theta},
        "max_position_embeddings": prior.prefix_length + prior.num_tokens,
        "attention_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": BOS,
        "eos_token_id": None,
        "pad_token_id": PAD,
        "dtype": "float32",
    }


@torch.no_grad()
def to_weights(prior: AutoregressivePrior) -> Weights:
    """Return the weights under transformers' names."""
    network = prior.transformer
    heads = [count * network.head_dim for count in (network.num_heads, *[network.num_kv_heads] * 2)]
    weights: Weights = {"model.norm.weight": network.norm.weight}
    for layer, block in enumerate(network.blocks):
        for name, theirs in _names(network.qk_norm).items():
            parameter = block.get_parameter(f"{name}.weight")
            sizes = heads if name == "attention.qkv" else len(parameter) // len(theirs)
            for their, part in zip(theirs, parameter.split(sizes), strict=True):
                weights[f"model.layers.{layer}.{their}.weight"] = part
    table, head = prior.table(), prior.output_table()
    weights["model.embed_tokens.weight"] = table
    weights["lm_head.weight"] = torch.cat([torch.zeros_like(table[: -len(head)]), head])
    return {name: weight.float().cpu().clone() for name, weight in weights.items()}


@torch.no_grad()
def from_weights(prior: AutoregressivePrior, weights: Weights) -> None:
    """Load what `to_weights` returned, perhaps trained further by transformers.

    Raises:
        ValueError: A weight is missing or has another shape than the prior's, or a tied prior would
            have to predict codes by other vectors than it reads them by.
    """
    try:
        prior.load_state_dict(_state(prior, weights))
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"the weights do not fit this prior: {error}; build it alike") from error


def _state(prior: AutoregressivePrior, weights: Weights) -> Weights:
    first, network = prior.vocabulary.first_code, prior.transformer
    table, head = weights["model.embed_tokens.weight"], weights["lm_head.weight"]
    state = {"transformer.norm.weight": weights["model.norm.weight"]}
    state |= {"embedding.weight": table[:first], "codes.own": table[first:]}
    if prior.head is not None:
        state["head.own"] = head[first:]
    elif not torch.equal(table[first:], head[first:]):
        raise ValueError(
            "lm_head has other vectors of codes than embed_tokens, but this prior is tied and has "
            "room for one of them; build it with tied=False"
        )
    for name in ("codes.parts", "head.parts"):  # the whole of a vector stands in `own`
        if name in prior.state_dict():
            state[name] = torch.zeros_like(prior.get_parameter(name))
    for layer in range(network.depth):
        for name, theirs in _names(network.qk_norm).items():
            parts = [weights[f"model.layers.{layer}.{their}.weight"] for their in theirs]
            state[f"transformer.blocks.{layer}.{name}.weight"] = torch.cat(parts)
    return state


def _names(qk_norm: bool) -> dict[str, list[str]]:
    """Return for each weight of a block the names of its parts, from the first row on."""
    names = {
        "attention.qkv": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        "attention.out": ["self_attn.o_proj"],
        "gate_up": ["mlp.gate_proj", "mlp.up_proj"],
        "down": ["mlp.down_proj"],
        "attention_norm": ["input_layernorm"],
        "mlp_norm": ["post_attention_layernorm"],
    }
    if qk_norm:
        names |= {"attention.q_norm": ["self_attn.q_norm"]}
        names |= {"attention.k_norm": ["self_attn.k_norm"]}
    return names


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Write a prior as a model of transformers.")
    parser.add_argument("model", type=Path, help="model folder with a prior")
    parser.add_argument("out", type=Path, help="folder to write into")
    args = parser.parse_args(arguments)
    read_manifest(args.model)
    prior = load_module(args.model / "prior")
    if not isinstance(prior, AutoregressivePrior):
        raise ValueError(f"{args.model} holds no autoregressive prior; give the folder of one")
    export(prior, args.out)
    print(f"{to_config(prior)['architectures'][0]} written to {args.out}")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"lm.export: {error}")
