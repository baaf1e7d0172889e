import pytest
import torch
import torch.nn.functional as F

from layers.swiglu import swiglu


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_gradients_are_those_of_the_formula(dtype):
    torch.manual_seed(0)
    x = torch.randn(3, 5, 24).to(dtype).requires_grad_()
    gate, up = x.chunk(2, -1)
    expected = F.silu(gate) * up
    direction = torch.randn_like(expected)
    torch.testing.assert_close(swiglu(x), expected)
    ours = torch.autograd.grad(swiglu(x), x, direction)
    theirs = torch.autograd.grad(expected, x, direction)
    torch.testing.assert_close(ours, theirs)
    assert torch.equal(swiglu(x.detach()), expected)


def test_the_gradient_is_the_difference_quotient():
    x = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(swiglu, (x,))
