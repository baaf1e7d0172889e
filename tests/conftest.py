import pytest
import torch

from tokenizer import FSQ, Tokenizer


@pytest.fixture
def tiny_tokenizer() -> Tokenizer:
    """A tokenizer of the demo's shape in small, with every parameter away from its start."""
    torch.manual_seed(0)
    tokenizer = Tokenizer(
        FSQ([8, 5, 5]), channels=[16, 32], encoder_depths=[1, 1], decoder_depths=[1, 1]
    )
    with torch.no_grad():
        for p in tokenizer.parameters():
            p.add_(0.05 * torch.randn_like(p))
    tokenizer.calibrate(torch.rand(4, 3, 5, 32, 32) * 2 - 1)
    return tokenizer.eval()


@pytest.fixture
def clip() -> torch.Tensor:
    return torch.rand(1, 3, 17, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
