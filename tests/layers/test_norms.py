import torch
import torch.nn.functional as F

from layers.norms import ChannelLayerNorm, RMSNorm


def test_rms_norm_and_its_gradients_are_pytorchs():
    torch.manual_seed(0)
    norm = RMSNorm(24)
    x = torch.randn(3, 5, 24, requires_grad=True)
    with torch.no_grad():
        norm.weight.normal_()
    expected = F.rms_norm(x, (24,), norm.weight, 1e-6)
    torch.testing.assert_close(norm(x), expected)
    direction = torch.randn_like(x)
    ours = torch.autograd.grad(norm(x), (x, norm.weight), direction)
    theirs = torch.autograd.grad(expected, (x, norm.weight), direction)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_the_gradient_of_rms_norm_is_the_difference_quotient():
    x = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    norm = RMSNorm(6).double()
    assert torch.autograd.gradcheck(norm, (x,))


def test_channel_norm_sees_one_position():
    x = torch.randn(2, 8, 3, 4, 4)
    changed = x.clone()
    changed[:, :, 1:] += 1
    norm = ChannelLayerNorm(8)
    assert torch.equal(norm(x)[:, :, :1], norm(changed)[:, :, :1])
