"""LPIPS against its formula, position by position, with random weights."""

import functools
import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tokenizer.perceptual import LPIPS, Perceptual

# The standard file: convolutions of a VGG16 by their place, then layers that LPIPS has no use for.
CONVOLUTIONS = {0: 64, 2: 64, 5: 128, 7: 128, 10: 256, 12: 256, 14: 256}
CONVOLUTIONS |= {place: 512 for place in (17, 19, 21, 24, 26, 28)}
LAST = [2, 7, 14, 21, 28]  # before each pooling and at the end


@functools.cache
def random_vgg():
    generator = torch.Generator().manual_seed(0)
    state, channels = {}, 3
    for place, width in CONVOLUTIONS.items():
        weight = torch.randn(width, channels, 3, 3, generator=generator)
        state[f"features.{place}.weight"] = weight * (2 / (9 * channels)) ** 0.5
        state[f"features.{place}.bias"] = 0.1 * torch.randn(width, generator=generator)
        channels = width
    return state


def random_heads():
    generator = torch.Generator().manual_seed(1)
    widths = [64, 128, 256, 512, 512]
    return {
        f"lin{i}.model.1.weight": torch.rand(1, width, 1, 1, generator=generator)
        for i, width in enumerate(widths)
    }


@pytest.fixture(scope="module")
def lpips():
    lpips = LPIPS()
    lpips.load_vgg(random_vgg() | {"classifier.0.weight": torch.ones(1)})
    lpips.load_heads(random_heads())
    return lpips


def slow_taps(frame):
    """Walk through VGG16 by loops in float64; return features of the five taps, C H W."""
    vgg = {name: value.numpy() for name, value in random_vgg().items()}
    shift, scale = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])
    x = (frame - shift[:, None, None]) / scale[:, None, None]
    for place in CONVOLUTIONS:
        weight, bias = vgg[f"features.{place}.weight"], vgg[f"features.{place}.bias"]
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
        y = np.zeros((len(weight), *x.shape[1:]))
        for i in range(3):
            for j in range(3):
                window = padded[:, i : i + x.shape[1], j : j + x.shape[2]]
                y += np.tensordot(weight[:, :, i, j], window, axes=1)
        x = np.maximum(y + bias[:, None, None], 0)
        if place in LAST:
            yield x
            c, h, w = x.shape
            x = x.reshape(c, -(-h // 2), min(h, 2), -(-w // 2), min(w, 2)).max(axis=(2, 4))


def slow_distance(a, b):
    total = 0.0
    for i, (x, y) in enumerate(zip(slow_taps(a), slow_taps(b), strict=True)):
        head = random_heads()[f"lin{i}.model.1.weight"].flatten().double().numpy()
        _, height, width = x.shape
        for row in range(height):
            for column in range(width):
                u, v = x[:, row, column], y[:, row, column]
                difference = u / math.sqrt(u @ u) - v / math.sqrt(v @ v)
                total += head @ difference**2 / (height * width)
    return total


def clips(frames=3):
    generator = torch.Generator().manual_seed(2)
    clip = torch.rand(2, 3, frames, 16, 16, generator=generator) * 2 - 1
    return clip, (clip + 0.3 * torch.randn(clip.shape, generator=generator)).clamp(-1, 1)


def test_the_distance_follows_the_formula_on_every_frame(lpips):
    clip, truth = clips()
    slow = [
        slow_distance(clip[b, :, t].double().numpy(), truth[b, :, t].double().numpy())
        for b in range(2)
        for t in range(3)
    ]
    assert lpips(clip, truth).item() == pytest.approx(np.mean(slow), rel=1e-4)


def test_a_clip_is_at_no_distance_from_itself_and_the_gradient_stays_finite(lpips):
    clip, _ = clips(1)
    black = torch.full_like(clip, -1.0, requires_grad=True)
    assert lpips(clip, clip) == 0
    lpips(black, clip).backward()
    assert black.grad is not None
    assert bool(black.grad.isfinite().all())
    assert bool(black.grad.any())


def test_autocast_changes_nothing(lpips):
    clip, truth = clips(1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(lpips(clip, truth), lpips(clip.float(), truth.float()))


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_the_standard_files_are_read(lpips, suffix, tmp_path):
    paths = []
    for name, state in (("vgg", random_vgg()), ("heads", random_heads())):
        paths.append(str(tmp_path / f"{name}.{suffix}"))
        (torch.save if suffix == "pth" else save_file)(state, paths[-1])
    read = Perceptual(*paths).load()
    assert read is not None
    clip, truth = clips(1)
    assert torch.equal(read(clip, truth), lpips(clip, truth))
    uncalibrated = Perceptual(paths[0]).load()
    assert uncalibrated is not None
    assert uncalibrated(clip, truth) > read(clip, truth)


def test_the_published_heads_fit():
    spec = importlib.util.find_spec("torchmetrics")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "functional" / "image" / "lpips_models"
    heads = torch.load(folder / "vgg.pth", map_location="cpu", weights_only=True)
    lpips = LPIPS()
    lpips.load_heads(heads)
    assert all((head >= 0).all() for head in lpips.heads)


def test_without_a_file_there_is_no_loss():
    assert Perceptual().load() is None


def test_a_file_that_is_something_else_is_refused(tmp_path):
    missing = tmp_path / "vgg.safetensors"
    with pytest.raises(ValueError, match="cannot be read as weights"):
        Perceptual(str(missing)).load()
    dangerous = tmp_path / "vgg.pth"
    torch.save({"features.0.weight": Path("here")}, dangerous)
    with pytest.raises(ValueError, match="tensors alone"):
        Perceptual(str(dangerous)).load()
    for value in (torch.ones(3), {"state_dict": random_vgg(), "epoch": 3}):
        torch.save(value, tmp_path / "no_state.pth")
        with pytest.raises(ValueError, match="tensors under their names"):
            Perceptual(str(tmp_path / "no_state.pth")).load()
    other = tmp_path / "other.pth"
    torch.save(random_heads(), other)
    with pytest.raises(ValueError, match="torchvision's VGG16"):
        Perceptual(str(other)).load()


def test_clips_too_small_for_the_network_are_refused(lpips):
    with pytest.raises(ValueError, match=r"8 x 32 pixels.*needs 16 each way"):
        lpips(torch.zeros(1, 3, 1, 8, 32), torch.zeros(1, 3, 1, 8, 32))
    assert lpips(torch.zeros(1, 3, 1, 16, 16), torch.zeros(1, 3, 1, 16, 16)) == 0
