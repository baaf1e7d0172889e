"""Files of weights: known by their hash, called I3D only on the published answer."""

import pytest
import torch
from torch import nn

from evaluation import extractors
from evaluation.extractors import I3DFeatures, ScriptedFeatures, file_hash, resized
from evaluation.frechet import FrechetVideoDistance
from evaluation.i3d import I3D

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")


class Video(nn.Module):
    """Has the published file's options; its features tell what was done to the clip."""

    def forward(
        self, x, rescale: bool = False, resize: bool = False, return_features: bool = False
    ):
        facts = torch.tensor([float(rescale), float(resize), float(return_features)])
        ends = torch.stack([x.amin().float(), x.amax().float(), torch.tensor(float(x.shape[3]))])
        means = x.float().mean((2, 3, 4))[0]
        return torch.cat([facts, ends, means, torch.zeros(391)])[None].repeat(x.shape[0], 1)


class Pictures(nn.Module):
    def forward(self, x):
        return x.float().mean((2, 3))


@pytest.fixture
def save(tmp_path):
    def write(module, name="net.pt"):
        torch.jit.script(module).save(tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def clip():
    return torch.randint(
        256, (2, 9, 20, 30, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )


def test_the_published_file_resizes_and_scales_inside(save, clip):
    features = I3DFeatures(save(Video()))(clip)[0]
    assert features[:3].tolist() == [1, 1, 1]
    assert features[3:6].tolist() == [clip.min(), clip.max(), 20]


def test_other_conventions_resize_before_the_network(save, clip):
    features = I3DFeatures(save(Video()), resize="short_centre")(clip)[0]
    assert features[:3].tolist() == [0, 0, 1]
    assert features[5] == 224
    assert -1 <= features[3] < features[4] <= 1


def test_a_network_is_i3d_only_on_the_published_answer(save, monkeypatch):
    extractor = I3DFeatures(save(Video()))
    assert FrechetVideoDistance(extractor).name.startswith("frechet_net-")
    with pytest.raises(ValueError, match=r"lie .* apart under net-.*, but 151.3 under the I3D"):
        extractor.prove()
    monkeypatch.setattr(extractors, "GOLDEN_DISTANCE", extractor.golden_distance())
    assert FrechetVideoDistance(extractor.prove()).name == "fvd"


def test_a_state_dict_gives_the_same_features_as_the_network(tmp_path, clip):
    torch.manual_seed(0)
    network = I3D()
    torch.save(network.state_dict(), tmp_path / "i3d.pt")
    extractor = I3DFeatures(tmp_path / "i3d.pt", resize="stretch")
    expected = network(resized(clip[:1].permute(0, 4, 1, 2, 3).float(), "stretch") / 127.5 - 1)
    torch.testing.assert_close(extractor(clip[:1]), expected)
    with pytest.raises(ValueError, match="state dict, which resizes nothing"):
        I3DFeatures(tmp_path / "i3d.pt")
    with pytest.raises(ValueError, match="8 frames, but I3D needs at least 9"):
        extractor(clip[:, :8])


def test_legacy_resizing_follows_tensorflow_1():
    """Place k of the output lies at k L / 224 of the input; beyond the last pixel, at it."""
    x = torch.rand(1, 1, 1, 7, 64, generator=torch.Generator().manual_seed(0))
    out = resized(x, "legacy_stretch")[0, 0, 0]
    for row, column in ((0, 0), (31, 100), (223, 223), (200, 3)):
        y, z = row * 7 / 224, column * 64 / 224
        top, left = int(y), int(z)
        below, right = min(top + 1, 6), min(left + 1, 63)
        p, q, picture = y - top, z - left, x[0, 0, 0]
        expected = (1 - p) * ((1 - q) * picture[top, left] + q * picture[top, right])
        expected += p * ((1 - q) * picture[below, left] + q * picture[below, right])
        assert out[row, column].item() == pytest.approx(expected.item(), abs=1e-5)


def test_short_centre_keeps_the_aspect(clip):
    assert resized(clip.permute(0, 4, 1, 2, 3).float(), "short_centre").shape[3:] == (224, 224)
    ramp = torch.arange(448.0).expand(1, 1, 1, 224, 448)
    assert resized(ramp, "short_centre")[0, 0, 0, 0].tolist() == list(range(112, 336))


def test_frames_are_described_one_by_one(save, clip):
    extractor = ScriptedFeatures(save(Pictures()), per_frame=True)
    assert extractor.num_features == 3
    expected = clip.float().mean((2, 3)).flatten(1)
    torch.testing.assert_close(extractor(clip), expected)


def test_missing_wrong_and_broken_files_are_named(tmp_path, save):
    with pytest.raises(ValueError, match=r"none\.pt is no file; give the local path"):
        I3DFeatures(tmp_path / "none.pt")
    path = save(Video())
    digest = file_hash(path)
    assert file_hash(path, digest.upper()) == digest
    with pytest.raises(ValueError, match=f"has the SHA-256 {digest}, but 00 was asked for"):
        I3DFeatures(path, sha256="00")
    (tmp_path / "broken.pt").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"broken\.pt is no TorchScript file"):
        ScriptedFeatures(tmp_path / "broken.pt")
    with pytest.raises(ValueError, match=r"broken\.pt holds no weights of I3D"):
        I3DFeatures(tmp_path / "broken.pt", resize="stretch")
