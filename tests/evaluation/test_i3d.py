"""I3D against counts, paddings and a layer-by-layer sum that do not come from its code."""

import pytest
import torch
from torch.nn import functional as F

from evaluation.i3d import I3D, Unit, pad_same


def test_the_parameters_are_those_of_the_published_network():
    network = I3D()
    assert sum(p.numel() for p in network.parameters()) == 12_697_264
    names = network.state_dict()
    assert names["Conv3d_1a_7x7.conv3d.weight"].shape == (64, 3, 7, 7, 7)
    assert names["Mixed_5c.b2b.bn.running_var"].shape == (128,)
    assert names["Mixed_4f.b3b.conv3d.weight"].shape == (128, 528, 1, 1, 1)
    assert names["logits.conv3d.bias"].shape == (400,)
    assert "logits.bn.weight" not in names


@pytest.mark.parametrize(
    ("length", "kernel", "stride"), [(9, 7, 2), (10, 7, 2), (7, 3, 2), (8, 2, 2)]
)
def test_same_padding_gives_a_place_for_each_stride(length, kernel, stride):
    """TensorFlow's rule: ceil(length / stride) places, the odd zero behind."""
    x = torch.ones(1, 1, length, length, length)
    padded = pad_same(x, [kernel] * 3, [stride] * 3)
    places = (padded.shape[2] - kernel) // stride + 1
    assert places == -(-length // stride)
    total = max((places - 1) * stride + kernel - length, 0)
    front = int(padded[0, 0].sum((1, 2)).nonzero()[0])
    assert front == total // 2


def test_a_unit_is_convolution_normalisation_and_relu():
    torch.manual_seed(0)
    unit = Unit(2, 3, 3).eval()
    unit.bn.running_mean.uniform_(-1, 1)
    unit.bn.running_var.uniform_(0.5, 2)
    x = torch.randn(1, 2, 4, 5, 5)
    conv = F.conv3d(x, unit.conv3d.weight, padding=1)
    mean, var = (z[:, None, None, None] for z in (unit.bn.running_mean, unit.bn.running_var))
    torch.testing.assert_close(unit(x), ((conv - mean) / (var + 1e-3).sqrt()).relu())


def test_logits_are_averaged_over_time():
    torch.manual_seed(0)
    clip = torch.rand(1, 3, 9, 224, 224) * 2 - 1
    with torch.no_grad():
        assert I3D(num_classes=7)(clip).shape == (1, 7)
