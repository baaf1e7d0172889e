"""Which parts of a network are compiled, and when their compiled forwards are called."""

import torch
from torch import nn

from layers.compiling import Compilable, Compiled


class Double(Compilable, nn.Module):
    def __init__(self, *inner):
        super().__init__()
        self.inner = nn.ModuleList(inner)

    def forward(self, x):
        return 2 * x


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = Double(Double()), nn.Sequential(Double())

    def forward(self, x):
        return self.second(self.first(x))


def test_the_outermost_parts_are_compiled_within_the_block_alone(monkeypatch):
    def traced(forward):
        names.append(forward.__self__)
        return lambda x: forward(x) + 1

    names = []
    monkeypatch.setattr(torch, "compile", traced)
    network, x = Network(), torch.tensor(1.0)
    before = set(network.state_dict())
    compiled = Compiled(network)
    assert names == [network.first, network.second[0]]
    assert network(x) == 4
    with compiled.applied():
        assert network(x) == 2 * (2 + 1) + 1
    assert network(x) == 4
    assert set(network.state_dict()) == before


def test_nothing_is_compiled_where_it_is_off():
    network = Network()
    with Compiled(network, enabled=False).applied():
        assert "forward" not in vars(network.first)
