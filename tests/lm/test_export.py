"""The prior against the same network in transformers, both ways."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file

from lm import AutoregressivePrior, Condition, Inputs, Sampling, Transformer, export
from pipeline import VideoPipeline

TEXTS = Condition([[3, 1, 4], [1, 5]])
TOKENS = torch.randint(60, (2, 3, 2, 2), generator=torch.Generator().manual_seed(0))


def new_prior(seed=0, qk_norm=False, num_kv_heads=2, **arguments):
    torch.manual_seed(seed)
    transformer = Transformer(
        width=48, depth=3, num_heads=4, num_kv_heads=num_kv_heads, qk_norm=qk_norm, rope_theta=500.0
    )
    arguments = {"grid": [3, 2, 2], "text_size": 9, "text_window": 4, "places": "line"} | arguments
    prior = AutoregressivePrior(transformer, **({"codebook_size": 60} | arguments))
    with torch.no_grad():
        for p in prior.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return prior.eval()


def ids(prior, tokens, texts):
    """Return the sequence that the prior reads, the last token left out."""
    codes = tokens.flatten(1) + prior.vocabulary.first_code
    return torch.cat([prior.prefix(texts), codes[:, :-1]], 1)


@pytest.fixture(params=[False, True], ids=["Llama", "Qwen3"])
def prior(request):
    return new_prior(qk_norm=request.param)


@pytest.mark.parametrize("form", [{}, {"tied": True}, {"levels": [5, 3, 4]}, {"num_kv_heads": 4}])
def test_transformers_computes_the_same_logits_from_the_exported_folder(prior, form, tmp_path):
    prior = new_prior(qk_norm=prior.transformer.qk_norm, **form)
    export.export(prior, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert (
        type(theirs).__name__ == ("Qwen3" if prior.transformer.qk_norm else "Llama") + "ForCausalLM"
    )
    with torch.no_grad():
        logits = theirs(ids(prior, TOKENS, TEXTS)).logits
        ours = prior.logits(TOKENS, TEXTS)
    seen = logits[:, prior.prefix_length - 1 :, prior.vocabulary.first_code :]
    torch.testing.assert_close(ours, seen, atol=1e-4, rtol=0)
    assert ours.std() > 0.1


def test_a_model_of_transformers_computes_the_same_here(prior):
    torch.manual_seed(5)
    config = export.to_config(prior) | {"initializer_range": 0.2}
    theirs = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**config)
    ).eval()
    export.from_weights(prior, theirs.state_dict())
    with torch.no_grad():
        logits = theirs(ids(prior, TOKENS, TEXTS)).logits
        ours = prior.logits(TOKENS, TEXTS)
    seen = logits[:, prior.prefix_length - 1 :, prior.vocabulary.first_code :]
    torch.testing.assert_close(ours, seen, atol=1e-4, rtol=0)
    assert ours.std() > 0.1


@pytest.mark.parametrize("form", [{}, {"tied": True}, {"levels": [5, 3, 4]}])
def test_weights_go_out_and_come_back(form):
    prior, again = new_prior(0, **form), new_prior(1, **form)
    export.from_weights(again, export.to_weights(prior))
    torch.testing.assert_close(again.logits(TOKENS, TEXTS), prior.logits(TOKENS, TEXTS))


def test_transformers_generates_the_same_video_tokens(prior, tmp_path):
    export.export(prior, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    prompt = prior.prefix(TEXTS)
    made = theirs.generate(prompt, attention_mask=torch.ones_like(prompt))
    sampled = prior.sample(TEXTS, [torch.Generator()] * 2, sampling=Sampling(temperature=0.0))
    codes = made[:, prior.prefix_length :] - prior.vocabulary.first_code
    assert torch.equal(codes, sampled.flatten(1))


def test_the_command_writes_what_transformers_reads(pipe, tmp_path, capsys):
    line = new_prior(grid=[5, 4, 4], codebook_size=200, text_size=pipe.text.vocabulary_size)
    VideoPipeline(pipe.tokenizer, 32, 8.0, line, pipe.text).save_pretrained(tmp_path / "model")
    export.main([str(tmp_path / "model"), str(tmp_path / "out")])
    assert "LlamaForCausalLM written" in capsys.readouterr().out
    written, expected = load_file(tmp_path / "out" / "model.safetensors"), export.to_weights(line)
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[name], weight) for name, weight in expected.items())
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == 525


def test_what_transformers_cannot_compute_is_refused(tmp_path):
    with pytest.raises(ValueError, match='places: "line"'):
        export.export(new_prior(places="grid"), tmp_path)
    with pytest.raises(ValueError, match='prefix_attention: "causal"'):
        export.export(new_prior(prefix_attention="bidirectional"), tmp_path)


def test_weights_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        export.from_weights(new_prior(num_kv_heads=4), export.to_weights(new_prior()))


@pytest.mark.parametrize(
    "name",
    ["model.layers.1.mlp.up_proj", "lm_head", "model.embed_tokens", "model.norm"],
)
def test_a_missing_weight_is_named(name):
    weights = export.to_weights(new_prior())
    del weights[f"{name}.weight"]
    with pytest.raises(ValueError, match=f"do not fit this prior: '{name}.weight'"):
        export.from_weights(new_prior(), weights)


def test_a_head_of_its_own_is_not_dropped_for_a_tied_prior():
    weights, tied = export.to_weights(new_prior()), new_prior(1, tied=True)
    before = {name: weight.clone() for name, weight in tied.state_dict().items()}
    with pytest.raises(ValueError, match="build it with tied=False"):
        export.from_weights(tied, weights)
    assert all(torch.equal(weight, before[name]) for name, weight in tied.state_dict().items())


def test_what_llama_has_not_is_refused():
    for options, inputs in (
        ({"patterns": ["space", "time"]}, None),
        ({}, Inputs(feature_size=2)),
        ({}, Inputs(["generate", "inpaint"])),
    ):
        network = Transformer(width=32, depth=2, num_heads=2, **options)
        prior = AutoregressivePrior(
            network, 20, [2, 2, 2], places="line", prefix_attention="causal", inputs=inputs
        )
        with pytest.raises(ValueError, match="which Llama and Qwen3 have not"):
            export.to_config(prior)
