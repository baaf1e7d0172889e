import pytest
import torch
import torch.nn.functional as F

from layers.linear import Linear, linear


@pytest.mark.parametrize("shape", [(24,), (7, 24), (2, 5, 24)])
def test_products_and_gradients_are_pytorchs(shape):
    torch.manual_seed(0)
    x, weight = torch.randn(shape, requires_grad=True), torch.randn(40, 24, requires_grad=True)
    ours, theirs = linear(x, weight), F.linear(x, weight)
    torch.testing.assert_close(ours, theirs)
    direction = torch.randn_like(theirs)
    for a, b in zip(
        torch.autograd.grad(ours, (x, weight), direction),
        torch.autograd.grad(theirs, (x, weight), direction),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_a_weight_that_is_not_trained_gets_no_gradient():
    x, weight = torch.randn(3, 24, requires_grad=True), torch.randn(40, 24)
    (gradient,) = torch.autograd.grad(linear(x, weight).sum(), x)
    torch.testing.assert_close(gradient, weight.sum(0).expand(3, -1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_types_are_left_to_pytorch(dtype):
    x, weight = torch.randn(3, 24, dtype=dtype), torch.randn(40, 24, dtype=dtype)
    assert torch.equal(linear(x, weight), F.linear(x, weight))


def test_autocast_is_obeyed_and_weights_start_as_pytorchs():
    torch.manual_seed(0)
    layer = Linear(24, 40)
    torch.manual_seed(0)
    assert torch.equal(layer.weight, torch.nn.Linear(24, 40, bias=False).weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(3, 24)).dtype == torch.bfloat16
