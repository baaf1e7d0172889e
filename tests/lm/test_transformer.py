"""The transformer's options, each against the plain network or a loop."""

from collections import Counter

import pytest
import torch

from layers.rope import rotary_table
from lm import Transformer

POSITIONS = torch.randint(9, (10, 3), generator=torch.Generator().manual_seed(0))


def network(**arguments):
    torch.manual_seed(0)
    made = Transformer(width=32, depth=2, num_heads=4, **arguments)
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return made


def states(made, x, **arguments):
    return made(x, made.rotary_table(POSITIONS), **arguments)


@pytest.fixture
def x():
    return torch.randn(2, 10, 32, generator=torch.Generator().manual_seed(1))


def test_shared_keys_are_full_keys_repeated(x):
    shared, full = network(num_kv_heads=2), network()
    state = shared.state_dict()
    for name, weight in state.items():
        if name.endswith("qkv.weight"):
            q, k, v = weight.split([32, 16, 16])
            rows = [
                part.unflatten(0, (2, 8)).repeat_interleave(2, 0).flatten(0, 1) for part in (k, v)
            ]
            state[name] = torch.cat([q, *rows])
    full.load_state_dict(state)
    torch.testing.assert_close(states(shared, x), states(full, x))


@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
@pytest.mark.parametrize("qk_norm", [True, False])
def test_one_position_after_another_gives_the_states_of_all_at_once(x, num_kv_heads, qk_norm):
    made = network(num_kv_heads=num_kv_heads, qk_norm=qk_norm).eval()
    table = made.rotary_table(POSITIONS)
    with torch.no_grad():
        cache = made.new_cache(2, 10, x)
        parts = [made(x[:, :4], table[:, :4], cache=cache)]
        for i in range(4, 10):
            parts.append(made(x[:, i : i + 1], table[:, i : i + 1], cache=cache))
    torch.testing.assert_close(torch.cat(parts, 1), states(made, x))


def test_a_mask_says_who_sees_whom(x):
    made = network()
    lower = torch.ones(10, 10, dtype=torch.bool).tril()
    torch.testing.assert_close(states(made, x, mask=lower), states(made, x))
    everything = torch.ones(10, 10, dtype=torch.bool)
    assert not torch.allclose(states(made, x, mask=everything)[:, 0], states(made, x)[:, 0])


def test_checkpointing_changes_no_gradient(x):
    plain, checkpointed = network(dropout=0.3), network(dropout=0.3, checkpointing=True)
    gradients = []
    for made in (plain, checkpointed):
        torch.manual_seed(3)
        states(made, x).square().sum().backward()
        gradients.append([p.grad for p in made.parameters()])
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.equal(ours, theirs)


def test_checkpointing_computes_each_block_again_for_its_gradient_alone(x):
    for checkpointing, training, calls in ((True, True, 2), (False, True, 1), (True, False, 1)):
        made, count = network(checkpointing=checkpointing).train(training), Counter()
        for block in made.blocks:
            block.register_forward_pre_hook(lambda block, given, count=count: count.update([block]))
        states(made, x).square().sum().backward()
        assert [count[block] for block in made.blocks] == [calls] * 2
        with torch.no_grad():
            states(made, x)
        assert [count[block] for block in made.blocks] == [calls + 1] * 2


def test_dropout_thins_branches_in_training_only(x):
    made, plain = network(dropout=0.5), network()
    assert torch.equal(states(made.eval(), x), states(plain, x))
    torch.manual_seed(0)
    first, second = states(made.train(), x), states(made, x)
    assert not torch.equal(first, second)
    with torch.no_grad():
        for block in made.blocks:
            block.attention.out.weight.zero_()
            block.down.weight.zero_()
    torch.testing.assert_close(states(made, x), made.norm(x))


def test_without_qk_norm_its_weights_are_gone():
    names = network(qk_norm=False).state_dict().keys()
    assert network().state_dict().keys() - names == {
        f"blocks.{i}.attention.{part}_norm.weight" for i in range(2) for part in "qk"
    }


def test_the_table_is_that_of_the_head_width():
    made = network(rope_theta=70.0)
    assert torch.equal(made.rotary_table(POSITIONS), rotary_table(POSITIONS, 8, 70.0))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_heads": 3}, "multiple of 6"),
        ({"num_kv_heads": 3}, "must divide num_heads"),
        ({"num_kv_heads": 0}, "must divide num_heads"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_what_cannot_be_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        Transformer(**{"width": 32, "depth": 1, "num_heads": 4} | arguments)
