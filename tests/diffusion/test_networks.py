"""What the denoising networks see and what they do not."""

import pytest
import torch

from diffusion import DiT, UNet3D, inflate
from diffusion.denoiser import Text
from diffusion.inflation import freeze_space, temporal_parameters


def unet(**options):
    return UNet3D([32, 64], [1, 1], **options)


def dit(**options):
    return DiT(width=32, depth=1, num_heads=2, window=2, **options)


def stirred(network):
    """Move every parameter away from its start, where many are zero."""
    generator = torch.Generator().manual_seed(0)
    for p in network.parameters():
        p.data.add_(0.1 * torch.randn(p.shape, generator=generator))
    return network.eval()


NETWORKS = {
    "U-Net": unet,
    "U-Net that leaves frames out": lambda **options: unet(shrink_time=[True], **options),
    "DiT": dit,
}


@pytest.fixture(params=NETWORKS)
def build(request):
    torch.manual_seed(0)
    return NETWORKS[request.param]


def features(frames=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 32, frames, 4, 8, generator=generator)


def angles(frames=5):
    return torch.linspace(0.1, 1.5, 2 * frames).view(2, frames)


@pytest.mark.parametrize("causal", [True, False])
def test_a_causal_network_sees_no_later_frame_and_another_does(build, causal):
    network, x, angle = stirred(build(causal=causal)), features(), angles()
    before = network(x, angle)
    for frame in range(1, 5):
        changed, other_angle = x.clone(), angle.clone()
        changed[:, :, frame:] += 1
        other_angle[:, frame:] *= 0.5
        after = network(changed, other_angle)
        assert torch.equal(before[:, :, :frame], after[:, :, :frame]) == causal
        assert not torch.equal(before[:, :, frame], after[:, :, frame])


def test_every_parameter_matters(build):
    network = stirred(build(text_width=16))
    text = Text(torch.randn(2, 3, 16), torch.ones(2, 3, dtype=torch.bool))
    network(features(), angles(), text).square().sum().backward()
    assert [name for name, p in network.named_parameters() if not p.grad.any()] == []


def test_every_place_sees_every_other(build):
    network, x = stirred(build()), features().requires_grad_()
    network(x, angles())[:, :, 2, 0, 0].square().sum().backward()
    assert bool(x.grad[:, :, :, :].abs().sum(dim=1).bool().all())


def test_a_network_for_images_takes_each_frame_as_an_image(build):
    network, x, angle = stirred(build(temporal=False)), features(), angles()
    images = [network(x[:, :, i : i + 1], angle[:, i : i + 1]) for i in range(5)]
    torch.testing.assert_close(network(x, angle), torch.cat(images, dim=2), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_an_inflated_network_starts_as_the_one_for_images(build, causal):
    image, video = stirred(build(temporal=False)), build(causal=causal)
    inflate(image, video)
    x, angle = features(), angles()
    if getattr(video, "shrink_time", [False])[0]:  # then of a still clip
        x, angle = x[:, :, :1].expand_as(x), angle[:, :1].expand_as(angle)
    torch.testing.assert_close(video(x, angle), image(x, angle), atol=1e-5, rtol=1e-5)
    video(x, angle).square().sum().backward()
    added = temporal_parameters(video)
    assert added == set(dict(video.named_parameters())) - set(dict(image.named_parameters()))
    assert any(video.get_parameter(name).grad.any() for name in added)


def test_space_can_be_frozen(build):
    network = build()
    freeze_space(network)
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert trained == temporal_parameters(network) != set()


def test_another_network_cannot_be_inflated(build):
    with pytest.raises(ValueError, match="same arguments"):
        inflate(UNet3D([64], [1], temporal=False), build())


def test_text_is_read_where_it_is_present_only(build):
    network, x, angle = stirred(build(text_width=16)), features(), angles()
    states = torch.randn(2, 3, 16)
    present = torch.tensor([[True, True, False], [True, False, False]])
    before = network(x, angle, Text(states, present))
    after = network(x, angle, Text(states + 9 * ~present[..., None], present))
    assert torch.equal(before, after)
    other = network(x, angle, Text(states + 1.0 * present[..., None], present))
    assert not torch.allclose(before, other)


def test_clips_of_a_batch_do_not_see_each_other(build):
    network, x, angle = stirred(build()), features(), angles()
    alone = network(x[1:], angle[1:])
    torch.testing.assert_close(network(x, angle)[1:], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: unet(shrink_time=[True])(features(4), angles(4)), r"1 \+ 2 k"),
        (lambda: UNet3D([32, 64, 64, 64], [1] * 4)(features(), angles()), "fewer levels"),
        (lambda: UNet3D([32, 64], [1]), "one shrink_time fewer"),
        (lambda: UNet3D([32, 48], [1, 1]), "multiple of 32"),
        (lambda: UNet3D([32], [1], attention=[False], text_width=8), "no level has attention"),
        (lambda: DiT(32, 1, 2, window=3)(features(), angles()), "must divide"),
        (lambda: DiT(30, 1, 4, window=2), "not even"),
        (lambda: DiT(32, 1, 2, window=0), "window is 0"),
        (lambda: DiT(48, 1, 2, window=2, text_width=8), "multiple of 32"),
    ],
)
def test_what_cannot_be_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
