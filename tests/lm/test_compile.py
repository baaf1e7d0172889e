"""A compiled prior has the loss and the gradients of an eager one."""

import subprocess
import sys

import pytest

# In a process without the type checks of the tests, which do not mix with torch.compile.
SCRIPT = """
import copy, torch
from lm import AutoregressivePrior, Condition, Transformer

torch.manual_seed(0)
prior = AutoregressivePrior(Transformer(width=32, depth=2, num_heads=2), 40, [2, 4, 4])
for p in prior.parameters():
    p.data.add_(0.05 * torch.randn_like(p))
compiled = copy.deepcopy(prior)
compiled.transformer.compile()
tokens, losses = torch.randint(40, (3, 2, 4, 4)), []
for one in (prior, compiled):
    losses.append(one.train().loss(tokens, Condition([[1, 2], [3], []])))
    losses[-1].backward()
torch.testing.assert_close(*losses)
for eager, traced in zip(prior.parameters(), compiled.parameters(), strict=True):
    torch.testing.assert_close(traced.grad, eager.grad, atol=1e-5, rtol=1e-3)
"""


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_compiled_prior_learns_what_an_eager_one_does():
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
