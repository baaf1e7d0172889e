"""Both networks can learn one clip by heart: loss, gradient and optimizer fit together."""

import pytest
import torch

from data.shapes import Shapes
from data.video import to_model_range, to_uint8
from evaluation.pixel import FramePSNR
from lm import AutoregressivePrior, Condition, Transformer
from tokenizer import FSQ, Tokenizer
from tokenizer.losses import reconstruction_loss
from training.optimizer import MuonAdamW, split_parameters


def train(network, loss_of, steps, learning_rate):
    matrices, rest = split_parameters(network)
    optimizer = MuonAdamW(
        matrices, rest, matrix_learning_rate=learning_rate, learning_rate=learning_rate / 5
    )
    for _ in range(steps):
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.fixture
def frames():
    return Shapes(1).read(0, 5).frames[None]


def test_a_tokenizer_learns_one_clip(frames):
    torch.manual_seed(0)
    network = Tokenizer(
        FSQ([8, 8, 8]),
        patch=[2, 4],
        channels=[32, 64],
        encoder_depths=[1, 1],
        decoder_depths=[1, 1],
    )
    clip = to_model_range(frames)
    network.calibrate(clip)
    train(network, lambda: reconstruction_loss(network(clip).clip, clip, 8.0), 100, 0.02)
    psnr = FramePSNR()
    psnr.update(to_uint8(network.eval()(clip).clip.detach()), frames)
    assert psnr.compute() > 28


def test_a_prior_learns_one_clip_and_samples_it():
    torch.manual_seed(0)
    tokens = torch.randint(100, (1, 2, 4, 4))
    network = AutoregressivePrior(Transformer(width=32, depth=2, num_heads=2), 100, [2, 4, 4])
    assert train(network, lambda: network.loss(tokens, Condition([[7]])), 150, 0.02) < 0.05
    sampled = network.sample(Condition([[7]]), [torch.Generator().manual_seed(0)])
    assert torch.equal(sampled, tokens)
