import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from lm.loss import cross_entropy


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.elements = max(self.elements, made.numel())
        return made


def inputs():
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(50, 8, generator=generator, requires_grad=True)
    table = torch.randn(300, 8, generator=generator, requires_grad=True)
    return states, table, torch.randint(300, (50,), generator=generator)


@pytest.mark.parametrize("max_logits", [1, 299, 2100, 15_000])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_parts_give_the_loss_and_gradients_of_the_whole(max_logits, label_smoothing):
    states, table, targets = inputs()
    theirs = F.cross_entropy(
        F.linear(states, table), targets, reduction="none", label_smoothing=label_smoothing
    )
    ours = cross_entropy(states, table, targets, label_smoothing, max_logits)
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(
        torch.autograd.grad(ours.mean(), (states, table)),
        torch.autograd.grad(theirs.mean(), (states, table)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_the_table_of_all_logits_is_never_made():
    states, table, targets = inputs()
    with Largest() as largest:
        cross_entropy(states, table, targets, 0.0, 2100).mean().backward()
    assert largest.elements == 2400  # the gradient of the 300 x 8 table; logits take 7 x 300
    with Largest() as largest:
        cross_entropy(states, table, targets, 0.0).mean().backward()
    assert largest.elements == 50 * 300
