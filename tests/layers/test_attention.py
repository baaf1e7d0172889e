import pytest
import torch
import torch.nn.functional as F

from layers.attention import attention


@pytest.mark.parametrize("masking", ["none", "causal", "mask"])
def test_the_written_out_path_and_its_gradients_are_pytorchs(masking):
    torch.manual_seed(0)
    q, k, v, seen = (torch.randn(2, 3, 20, 16, requires_grad=True) for _ in range(4))
    mask = torch.rand(20, 20) < 0.5
    mask[:, 0] = True
    given = mask if masking == "mask" else None
    ours = attention(q, k, v, causal=masking == "causal", mask=given)
    theirs = F.scaled_dot_product_attention(q, k, v, given, is_causal=masking == "causal")
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(
        torch.autograd.grad(ours, (q, k, v), seen),
        torch.autograd.grad(theirs, (q, k, v), seen),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    with torch.no_grad():
        torch.testing.assert_close(attention(q, k, v, causal=masking == "causal", mask=given), ours)
