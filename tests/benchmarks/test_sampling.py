"""The comparison itself: both sides do the same, in turn, and the limit is counted right."""

import pytest
import torch

from lm import AutoregressivePrior, Transformer

pytest.importorskip("transformers")
from benchmarks import sampling, training
from layers.compiling import Compiled


@pytest.fixture
def prior():
    torch.manual_seed(0)
    network = Transformer(width=64, depth=2, num_heads=4, num_kv_heads=2, qk_norm=False)
    prior = AutoregressivePrior(network, 50, [2, 3, 3], text_window=5, places="line").eval()
    with torch.no_grad():
        for p in prior.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return prior


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("batch", [1, 3])
def test_both_sides_draw_the_same_tokens(prior, cache, batch):
    tokens = sampling.ours(prior, batch)
    assert tokens.shape == (batch, 18)
    assert torch.equal(tokens, sampling.theirs(sampling.as_llama(prior), prior, batch, cache))


def test_both_sides_have_the_same_loss_and_gradient(prior):
    tokens = torch.randint(50, (8, 2, 3, 3), generator=torch.Generator().manual_seed(0))
    llama = sampling.as_llama(prior)
    loss = training.ours(prior, tokens, False, Compiled(prior, enabled=False))
    torch.testing.assert_close(training.theirs(llama, prior, tokens, False), loss)
    ours = prior.transformer.blocks[0].down.weight.grad
    theirs = llama.model.layers[0].mlp.down_proj.weight.grad
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-3)


def test_contestants_take_turns():
    calls = []
    contestants = {
        name: lambda name=name: calls.append(name) or torch.zeros(()) for name in ("a", "b")
    }
    assert sampling.medians(contestants, 3).keys() == {"a", "b"}
    assert calls == ["a", "b"] * 3


def test_a_step_reads_every_weight_once_and_half_of_the_cache_on_average(prior):
    hidden = prior.transformer.hidden
    weights = 2 * (64 * (64 + 2 * 32) + 64 * 64 + 3 * 64 * hidden) + 50 * 64
    cache = 3 * 2 * 2 * 2 * 16 * (8 + 9)  # samples, layers, keys and values, heads, width, places
    assert sampling.bytes_per_step(prior, 3, "float32") == 4 * (weights + cache)
    assert sampling.bytes_per_step(prior, 3, "int8") == weights + 4 * cache


def test_reading_memory_reads_all_of_it_each_time():
    data = torch.arange(5)
    assert sampling.read_memory(data).tolist() == [10] * sampling.READS
    with torch.profiler.profile() as profile:
        sampling.read_memory(data)
    assert sum(event.name == "aten::sum" for event in profile.events()) == sampling.READS
