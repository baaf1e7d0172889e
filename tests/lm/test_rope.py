import torch

from layers.rope import rotary_table, rotate
from lm.sequence import lattice, line


def test_products_depend_on_differences_only():
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 24, generator=generator)

    def product(first, second):
        table = rotary_table(torch.tensor([first, second]), 24, 10_000.0)
        return (rotate(q, table[:, :1]) * rotate(k, table[:, 1:])).sum()

    near = product((3, 1, 4), (1, 5, 9))
    torch.testing.assert_close(near, product((13, 41, 9), (11, 45, 14)), atol=1e-4, rtol=0)
    assert not torch.allclose(near, product((3, 1, 4), (1, 5, 8)), atol=1e-3)


def test_equal_axes_are_the_rotary_positions_of_llama():
    places = torch.arange(7)
    table = rotary_table(places[:, None].expand(-1, 3), 16, 500.0)
    angles = places[:, None] * 500.0 ** (-torch.arange(0, 16, 2) / 16)
    angles = torch.cat([angles, angles], -1)
    x = torch.randn(2, 3, 7, 16, generator=torch.Generator().manual_seed(0))
    low, high = x.chunk(2, -1)
    expected = x * angles.cos() + torch.cat([-high, low], -1) * angles.sin()
    torch.testing.assert_close(rotate(x, table), expected, atol=1e-5, rtol=0)


def test_text_stands_before_the_grid():
    assert line(3).tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]
    axes = lattice((2, 2, 2), 3).flatten(0, 1).tolist()
    assert (axes[0], axes[2], axes[-1]) == ([3, 3, 3], [3, 4, 3], [4, 4, 4])
    coarse = lattice((1, 2, 2), 3, start=1, step=2)[0].tolist()
    assert coarse == [[4, 3, 3], [4, 3, 5], [4, 5, 3], [4, 5, 5]]


def test_the_gradient_is_that_of_the_formula():
    table = rotary_table(torch.randint(50, (7, 3)), 12, 100.0).double()
    x = torch.randn(2, 3, 7, 12, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: rotate(x, table), x)
    assert torch.equal(rotate(x, table), rotate(x.detach(), table))
