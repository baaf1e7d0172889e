"""A compiled tokenizer is as causal as an eager one, and computes the same."""

import subprocess
import sys

import pytest

# In a process without the type checks of the tests, which do not mix with torch.compile.
SCRIPT = """
import torch
from tokenizer import FSQ, Tokenizer

torch.manual_seed(0)
tokenizer = Tokenizer(
    FSQ([8, 5, 5]), channels=[16, 64], encoder_depths=[1, 1], decoder_depths=[1, 1],
    spatial_attention=True, temporal_window=3,
)
for p in tokenizer.parameters():
    p.data.add_(0.05 * torch.randn_like(p))
clip = torch.rand(1, 3, 17, 32, 32) * 2 - 1
tokenizer.calibrate(clip)
compiled = torch.compile(tokenizer.eval())
changed = clip.clone()
changed[:, :, 9:] *= -1
with torch.no_grad():
    eager, before, after = tokenizer(clip), compiled(clip), compiled(changed)
assert torch.equal(before.quantized.tokens, eager.quantized.tokens)
torch.testing.assert_close(before.clip, eager.clip, atol=1e-5, rtol=0)
assert torch.equal(before.quantized.tokens[:, :3], after.quantized.tokens[:, :3])
assert torch.equal(before.clip[:, :, :9], after.clip[:, :, :9])
assert not torch.equal(before.quantized.tokens, after.quantized.tokens)
"""

# Traced forwards and backwards, but not written as kernels: that takes minutes.
TRAINING = """
import torch
from tokenizer import FSQ, Tokenizer

torch.manual_seed(0)
tokenizer = Tokenizer(
    FSQ([8, 5, 5], entropy_weight=0.1), channels=[16, 64], encoder_depths=[1, 1],
    decoder_depths=[1, 1], spatial_attention=True, temporal_window=3,
)
for p in tokenizer.parameters():
    p.data.add_(0.05 * torch.randn_like(p))
clip = torch.rand(1, 3, 9, 16, 16) * 2 - 1
tokenizer.calibrate(clip)
gradients = []
for network, keep in ((tokenizer, True), (torch.compile(tokenizer, backend="aot_eager"), False)):
    tokenizer.train().keep_activations(keep)
    tokenizer.zero_grad()
    result = network(clip)
    (result.clip.square().mean() + result.quantized.loss).backward()
    gradients.append([p.grad.clone() for p in tokenizer.parameters()])
for eager, compiled in zip(*gradients, strict=True):
    torch.testing.assert_close(compiled, eager, atol=1e-5, rtol=1e-3)
"""


@pytest.mark.soak
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("script", [SCRIPT, TRAINING], ids=["eval", "training, checkpointed"])
def test_a_compiled_tokenizer_is_causal_and_equals_the_eager_one(script):
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
