import pytest
import torch
from torch import nn

from training.optimizer import (
    NEWTON_SCHULZ,
    MuonAdamW,
    learning_rate_scale,
    matrices,
    orthogonalize,
)


def trained(make_optimizer, weights, steps=5):
    parameters = [nn.Parameter(weight.clone()) for weight in weights]
    optimizer = make_optimizer(parameters)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        for p in parameters:
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()
    return parameters


def test_matrices_follow_pytorchs_muon():
    weights = [torch.randn(16, 32), torch.randn(48, 24), torch.randn(16, 32)]
    ours = trained(
        lambda p: MuonAdamW(p, [], matrix_learning_rate=0.02, learning_rate=1.0, weight_decay=0.1),
        weights,
    )
    theirs = trained(lambda p: torch.optim.Muon(p, lr=0.02, weight_decay=0.1), weights)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=0)


def test_a_convolution_that_makes_sub_pixels_is_several_and_as_long_as_the_one():
    one = torch.randn(48, 12, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    parts = matrices(one)
    assert torch.equal(parts, torch.stack([part.flatten(1) for part in one.split(12)]))
    assert matrices(one[:30]).shape == (1, 30, 12 * 27)
    assert matrices(torch.randn(48, 12)).shape == (1, 48, 12)
    lengths = [orthogonalize(x).float().norm() for x in (parts, one.flatten(1)[None])]
    torch.testing.assert_close(*lengths, atol=0, rtol=0.15)


def test_the_rest_follows_pytorchs_adamw():
    weights = [torch.randn(7), torch.randn(5, 3)]
    ours = trained(
        lambda p: MuonAdamW([], p, matrix_learning_rate=1.0, learning_rate=0.01, weight_decay=0.1),
        weights,
    )
    theirs = trained(
        lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1, betas=(0.9, 0.95)), weights
    )
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("shape", [(3, 16, 64), (3, 64, 16)])
def test_singular_values_move_to_one(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(matrices).float())
    assert values.min() > 0.6
    assert values.max() < 1.3


def by_steps(matrix, steps=5):
    """Return what Newton-Schulz makes of a matrix, on the matrix itself, exactly."""
    a, b, c = NEWTON_SCHULZ
    x = matrix.double() / matrix.double().norm()
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + b * gram @ x + c * gram @ gram @ x
    return x


@pytest.mark.parametrize(
    "values",
    [torch.ones(64), torch.logspace(0, -3, 64), torch.tensor([1.0] * 8 + [0.01] * 56)],
    ids=["alike", "falling", "few"],
)
def test_steps_on_the_gram_matrix_are_those_on_the_matrix(values):
    draw = torch.randn(64, 576, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(draw, full_matrices=False)
    matrix = u * values @ v
    ours, exact = orthogonalize(matrix[None])[0].double(), by_steps(matrix)
    assert torch.cosine_similarity(ours.flatten(), exact.flatten(), dim=0) > 0.99
    assert (ours - exact).norm() < 0.15 * exact.norm()
    assert torch.linalg.matrix_norm(ours, 2) < 1.3


def test_the_learning_rate_is_a_trapezoid():
    scales = [learning_rate_scale(step, 100, 10, 0.2) for step in range(101)]
    assert scales[0] == pytest.approx(0.1)
    assert scales[9:80] == [1.0] * 71
    assert scales[90] == pytest.approx(0.5)
    assert scales[100] == 0
