"""The study of the diffusion decoder: what is trained builds, and figures mean what they say."""

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from benchmarks import diffusion_study
from benchmarks.diffusion_measure import (
    markdown,
    read_arm,
    read_truth,
    real_rows,
    row_of,
    sharpened,
    with_noise,
)
from data.shapes import Shapes
from tokenizer import FSQ, Tokenizer
from training.module import TrainedModule

pytestmark = pytest.mark.filterwarnings("ignore:Attribute '.*' is an instance of `nn.Module`")


@pytest.fixture
def truth(tiny_tokenizer):
    return read_truth(tiny_tokenizer, Shapes(6, "val"))


def test_the_truth_is_beyond_reproach_and_noise_is_not(truth, tmp_path):
    real = real_rows(truth, tmp_path / "truth.safetensors")
    noisy = read_arm(
        truth, lambda tokens, first: with_noise(truth.clips, 40.0, first), tmp_path / "noisy"
    )
    names = list(truth.extractors)
    own, other = (row_of("x", arm, real, noisy, names) for arm in (real, noisy))
    for name in names:
        assert other[f"frechet_{name}"][0] > 1e-3
        assert abs(own[f"frechet_{name}"][0]) < 1e-3 * other[f"frechet_{name}"][0]
        assert own[f"gain_{name}"][0] == pytest.approx(1, abs=1e-3)
        assert other[f"gain_{name}"] == pytest.approx([0, 0, 0], abs=1e-6)
    assert own["flicker"][0] == 0 < other["flicker"][0]
    assert own["agreement"][0] == 1 > other["agreement"][0]
    assert 10 < other["psnr"][0] < 20 < own["psnr"][0]
    low, high = other["psnr"][1:]
    assert low < other["psnr"][0] < high
    table = markdown([own, other], "facts")
    assert table.startswith("facts")
    assert len({line.count("|") for line in table.splitlines()[2:]}) == 1


def test_an_arm_is_read_once(truth, tmp_path):
    calls = []

    def arm(tokens, first):
        calls.append(first)
        return truth.clips[first : first + len(tokens)]

    one, other = (read_arm(truth, arm, tmp_path / "arm.safetensors") for _ in range(2))
    assert calls == [0]
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_sharpening_leaves_flat_clips_and_widens_edges():
    clip = torch.full((1, 2, 8, 8, 3), 100, dtype=torch.uint8)
    assert torch.equal(sharpened(clip, 1.0), clip)
    clip[:, :, :, 4:] = 150
    wide = sharpened(clip, 1.0).float()
    assert wide.max() > 150
    assert wide.min() < 100


def test_every_configuration_builds_on_the_meta_device(tmp_path):
    configs = diffusion_study.recipes(tmp_path).values()
    assert len(configs) == len(diffusion_study.SHARES)
    parser = ArgumentParser()
    parser.add_subclass_arguments(TrainedModule, "model")
    for config in configs:
        model = parser.parse_object({"model": yaml.safe_load(yaml.safe_dump(config))["model"]})
        with torch.device("meta"):
            module = parser.instantiate(model)["model"]
        network = module.network
        codes = network.codebook_size
        assert codes == FSQ([8, 6, 5]).codebook_size
        stride = network.spatial_stride
        assert stride == 16
        assert isinstance(network, Tokenizer) or list(network.strides) == [4, 16]


def test_the_steps_that_fit_are_decided_once(tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(diffusion_study, "probe", lambda arguments: 2.0)
    monkeypatch.setattr(
        diffusion_study, "train_once", lambda config, root: trained.append(config) or 5.0
    )
    root = tmp_path / "tokenizer"
    assert diffusion_study.train(diffusion_study.tokenizer_config(root), root, 100.0) == 5.0
    monkeypatch.setattr(diffusion_study, "probe", None)  # a second call goes on as it was begun
    diffusion_study.train(diffusion_study.tokenizer_config(root), root, 600.0)
    assert [one["model"]["init_args"]["max_steps"] for one in trained] == [50, 50]
