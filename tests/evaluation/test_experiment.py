"""Every kind of file in one evaluation: each gives its figure, named after its hash."""

import numpy as np
import pytest
import torch
from torch import nn

from data import Digits, Shapes
from evaluation.experiment import Files, Options, evaluate, weights_hash
from evaluation.extractors import file_hash
from evaluation.pixel import frame_mse
from evaluation.protocols import find
from evaluation.result import why_not_comparable

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit"),
    pytest.mark.filterwarnings("ignore:.*leave the covariance without full rank"),
]


class Video(nn.Module):
    def forward(self, x):
        return x.float().mean((3, 4)).flatten(1)[:, :6] / 255


class Pictures(nn.Module):
    def forward(self, x):
        return x.float().mean((2, 3)) / 255


class Distance(nn.Module):
    def forward(self, x, y):
        return (x - y).abs().mean((1, 2, 3))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The truth of some clips, shifted by one level, as a model's answer."""
    tmp_path = tmp_path_factory.mktemp("evaluation")
    source = Shapes(6, "val")
    clips = torch.stack([source.read(i, 17).frames for i in range(6)])
    (tmp_path / "clips").mkdir()
    for i, clip in enumerate(clips):
        np.save(tmp_path / "clips" / f"{i}.npy", clip.numpy())
    np.save(tmp_path / "answer.npy", (clips + 1).numpy())
    for name, module in (("video", Video()), ("frames", Pictures()), ("distance", Distance())):
        torch.jit.script(module).save(tmp_path / f"{name}.pt")
    files = Files(
        features=tmp_path / "video.pt",
        frame_features=tmp_path / "frames.pt",
        classifier=tmp_path / "video.pt",
        lpips=tmp_path / "distance.pt",
        train_data=tmp_path / "clips",
    )
    options = Options(num_clips=6, batch_size=4, num_replicates=10)
    data, answer = tmp_path / "clips", tmp_path / "answer.npy"
    return evaluate(find("captioned-shapes"), None, data, files, options, answer), tmp_path


def test_every_file_gives_its_figure(found):
    (result, _), folder = found
    figures = result["systems"]["model"]["figures"]
    short = {name: file_hash(folder / f"{name}.pt")[:8] for name in ("video", "frames", "distance")}
    assert figures[f"frechet_video-{short['video']}"]["value"] > 0
    assert figures[f"frechet_frame_frames-{short['frames']}"]["value"] > 0
    assert 1 <= figures[f"inception_score_video-{short['video']}"]["value"] < 6
    distance = figures[f"lpips_distance-{short['distance']}"]["value"]
    assert distance == pytest.approx(1 / 127.5, rel=1e-4)
    assert figures["psnr_frame"]["value"] == pytest.approx(20 * np.log10(255))
    # One level everywhere from the clip it was copied from.
    assert figures["nearest_train_distance"]["value"] == pytest.approx(1 / 255**2, rel=1e-3)
    assert result["systems"]["real"]["figures"]["nearest_train_distance"]["value"] < 1e-12
    # The clips themselves are among what was trained on: retrieval finds and repeats them.
    assert result["systems"]["nearest_train"]["figures"]["psnr_frame"]["value"] == 100
    assert result["systems"]["copy_last"]["figures"]["psnr_frame"]["value"] < 30


def test_the_stamp_names_every_file_and_the_clips(found):
    (result, _), folder = found
    hashes = result["hashes"]
    assert hashes["video"] == hashes["classifier"] == file_hash(folder / "video.pt")
    assert hashes["frames"] == file_hash(folder / "frames.pt")
    assert hashes["lpips"] == file_hash(folder / "distance.pt")
    assert hashes["model"] == file_hash(folder / "answer.npy")
    assert len(hashes["data"]) == len(hashes["train_data"]) == 64
    assert result["counts"]["kernel_clips"] == 2048
    assert result["counts"]["samples"] == 6
    assert result["deviations"] == ["6 units instead of 256"]
    assert "without full rank" in result["options"]["notes"][0]


def test_grey_protocols_compare_grey_answers(tmp_path):
    """The error of the mean of the channels, which is less than the mean of their errors."""
    clips = torch.stack([Digits(2, "val").read(i, 17).frames for i in range(2)])
    off = clips.int() + torch.tensor([12, 0, -9])
    answer = off.clamp(0, 255).to(torch.uint8)
    np.save(tmp_path / "answer.npy", answer.numpy())
    options = Options(num_clips=2, num_replicates=0)
    protocol = find("moving-digits")
    found = evaluate(protocol, None, None, Files(), options, tmp_path / "answer.npy").result
    grey = answer.float().mean(-1).round() - clips[..., 0]
    expected = (grey[:, 5:] / 255).square().sum((2, 3)).mean()
    figures = found["systems"]["model"]["figures"]
    assert figures["mse_sum"]["value"] == pytest.approx(expected.item(), rel=1e-5)
    assert found["counts"]["fps"] == Digits(1).fps  # not the model's, of which none is known


def test_a_model_is_known_by_its_weights():
    torch.manual_seed(0)
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    assert weights_hash(first, None) != weights_hash(second)
    second.load_state_dict(first.state_dict())
    assert weights_hash(first, None) == weights_hash(second)


def test_a_built_in_data_set_brings_its_training_clips(monkeypatch):
    """A handful of them; other training data are another hash, and no comparison."""
    monkeypatch.setattr("evaluation.experiment.TRAINING_CLIPS", 3)
    options = Options(num_clips=2, batch_size=2, num_replicates=0)
    first = evaluate(find("moving-digits"), None, None, Files(), options)
    monkeypatch.setattr("evaluation.experiment.TRAINING_CLIPS", 4)
    second = evaluate(find("moving-digits"), None, None, Files(), options)
    training = torch.stack([Digits(3).read(i, 17).frames for i in range(3)])
    answer = first.rows["nearest_train", "mse"].reshape(2, 12)
    for unit in range(2):
        truth = Digits(2, "val").read(unit, 17).frames[5:]
        errors = [frame_mse(clip[None, 5:], truth[None])[0] for clip in training]
        assert any(torch.allclose(answer[unit], error) for error in errors)
    assert why_not_comparable(first.result, second.result)[0].startswith("train_data: another")
