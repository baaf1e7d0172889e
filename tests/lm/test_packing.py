"""Packed weights against plain ones."""

import pytest
import torch
import torch.nn.functional as F

from lm import AutoregressivePrior, Condition, MaskGITPrior, Sampling, Transformer
from lm.packing import Int8Projection, OneDNNProjection, Projection, pack, packed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("given", [1, 8, 27])
def test_packing_changes_no_product(dtype, given):
    torch.manual_seed(0)
    weight, x = torch.randn(48, 32).to(dtype), torch.randn(given, 1, 32).to(dtype)
    made = pack(weight)
    assert isinstance(made, OneDNNProjection)
    torch.testing.assert_close(made(x), F.linear(x, weight))


def test_other_types_stay_as_they_are():
    weight, x = torch.randn(48, 32).double(), torch.randn(3, 32).double()
    assert type(pack(weight)) is Projection
    assert torch.equal(pack(weight)(x), F.linear(x, weight))


def test_int8_weights_are_within_half_a_step():
    torch.manual_seed(0)
    weight = torch.randn(40, 32) * torch.logspace(-3, 3, 40)[:, None]
    made = Int8Projection(weight)
    back = made.weight * made.scale.float()[:, None]
    assert made.weight.abs().max() == 127
    # The scale has eight bits itself, so the largest weights may be clamped by a little more.
    assert ((back - weight).abs() <= 0.5 * weight.abs().amax(1, keepdim=True) / 126).all()
    x = torch.randn(2, 5, 32).bfloat16()
    torch.testing.assert_close(made(x), F.linear(x.float(), back).bfloat16(), rtol=0.02, atol=0.02)


def test_a_packed_network_computes_the_same_and_shares_the_rest():
    torch.manual_seed(0)
    network = Transformer(width=32, depth=2, num_heads=2).eval()
    for p in network.parameters():
        p.data.add_(0.2 * torch.randn_like(p))
    names = network.state_dict().keys()
    x, table = torch.randn(2, 6, 32), network.rotary_table(torch.arange(6)[:, None].expand(-1, 3))
    with torch.no_grad():
        made = packed(network, torch.float32)
        torch.testing.assert_close(made(x, table), network(x, table))
    assert made.norm is not network.norm
    assert made.norm.weight is network.norm.weight
    assert network.state_dict().keys() == names
    assert not any(isinstance(part, torch.nn.Linear) for part in made.modules())


def test_int8_sampling_draws_nearly_the_same():
    """Where the tokens before are equal, so is nearly every greedy one."""
    torch.manual_seed(0)
    prior = AutoregressivePrior(Transformer(width=64, depth=2, num_heads=2), 50, [3, 4, 4]).eval()
    for p in prior.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    texts, generators = Condition([[i] for i in range(24)]), [torch.Generator() for _ in range(24)]
    whole, small = (
        prior.sample(texts, generators, num_latent_frames=1, sampling=sampling)
        for sampling in (Sampling(temperature=0.0), Sampling(temperature=0.0, quantize="int8"))
    )
    same = (whole == small).flatten(1)
    assert same[:, 0].float().mean() > 0.8
    assert not torch.is_inference(small)


def test_under_autocast_sampling_is_that_of_a_model_in_bfloat16():
    torch.manual_seed(0)
    prior = AutoregressivePrior(Transformer(width=64, depth=2, num_heads=2), 50, [2, 4, 4]).eval()
    for p in prior.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    with torch.autocast("cpu", torch.bfloat16):
        ours = prior.sample(Condition([[1], [2]]), [torch.Generator(), torch.Generator()])
    half = prior.bfloat16().sample(Condition([[1], [2]]), [torch.Generator(), torch.Generator()])
    assert torch.equal(ours, half)


def test_a_masked_prior_samples_under_autocast_too():
    torch.manual_seed(0)
    prior = MaskGITPrior(Transformer(width=64, depth=2, num_heads=2), 50, [2, 4, 4]).eval()
    for p in prior.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    arguments = {"sampling": Sampling(steps=1, temperature=0.0)}
    whole = prior.sample(Condition([[1], [2]]), [torch.Generator(), torch.Generator()], **arguments)
    with torch.autocast("cpu", torch.bfloat16):
        half = prior.sample(
            Condition([[1], [2]]), [torch.Generator(), torch.Generator()], **arguments
        )
    assert (whole == half).float().mean() > 0.8


@pytest.mark.parametrize("columns", [20, 24, 40, 200])
def test_int8_weights_may_have_any_width(columns):
    weight, x = torch.randn(48, columns), torch.randn(3, columns).bfloat16()
    expected = F.linear(x.float(), weight)
    error = (Int8Projection(weight)(x).float() - expected).abs().max()
    assert error < 0.03 * expected.abs().max() + 0.1
