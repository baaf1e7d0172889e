"""A video tokenizer starts where its image tokenizer is."""

import itertools

import pytest
import torch

from tokenizer import FSQ, Tokenizer
from tokenizer.inflation import image_counterpart, inflate, spatial_parameters


def video_tokenizer(
    patch=(2, 4), strides=((2, 2),), channels=(16, 32), factorized=True, **arguments
):
    return Tokenizer(
        FSQ([8, 5, 5]),
        patch=list(patch),
        channels=list(channels),
        strides=[list(stride) for stride in strides],
        encoder_depths=[1] * len(channels),
        decoder_depths=[1] * len(channels),
        factorized=factorized,
        **arguments,
    )


def trained_image_tokenizer(video):
    image = image_counterpart(video)
    with torch.no_grad():
        for p in image.parameters():
            p.add_(0.05 * torch.randn_like(p))
    image.calibrate(torch.rand(8, 3, 1, 32, 32) * 2 - 1)
    return image.eval()


ARCHITECTURES = {
    "strides": {"patch": (1, 4), "strides": ((2, 2), (2, 2)), "channels": (16, 32, 32)},
    "stem": {"patch": (4, 4), "strides": ((1, 2),)},
    "both": {},
    "both, full kernels": {"factorized": False},
    "one width": {"channels": (16, 16)},
    "time alone": {"strides": ((2, 1),), "channels": (16, 16)},
    "pixels unshuffled": {"wavelet": False},
    "attention": {"channels": (16, 64), "spatial_attention": True, "temporal_window": 3},
}


@pytest.mark.parametrize("frames", [1, 17])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_image_and_its_repetition_pass_as_through_the_image_tokenizer(name, frames):
    torch.manual_seed(0)
    video = video_tokenizer(**ARCHITECTURES[name])
    image = trained_image_tokenizer(video)
    inflate(image, video)
    frame = torch.rand(2, 3, 1, 32, 32) * 2 - 1
    still = frame.expand(-1, -1, frames, -1, -1)
    latents = video.encoder(still)
    torch.testing.assert_close(
        latents, image.encoder(frame).expand_as(latents), atol=1e-5, rtol=1e-5
    )
    tokens = image.encode(frame)
    pixels = video.decode(tokens.expand(-1, latents.shape[2], -1, -1))
    assert pixels.shape == still.shape
    torch.testing.assert_close(pixels, image.decode(tokens).expand_as(pixels), atol=1e-5, rtol=1e-5)
    assert (video.encode(still) == tokens).float().mean() > 0.99
    assert bool(video.calibrated)


@pytest.mark.parametrize("factorized", [True, False])
def test_kernels_lie_in_the_last_slice(factorized):
    video = video_tokenizer(factorized=factorized)
    inflate(trained_image_tokenizer(video), video)
    kernels = [p for p in video.parameters() if p.ndim == 5 and p.shape[2] > 1]
    assert len(kernels) >= 6
    for kernel in kernels:
        assert not kernel[:, :, :-1].any()
        assert kernel[:, :, -1].any()


def test_kernels_in_time_of_an_image_tokenizer_count_by_their_sum():
    video = video_tokenizer()
    image = trained_image_tokenizer(video)
    assert image.decoder.conv_in.weight.shape[2] == 3
    inflate(image, video)
    torch.testing.assert_close(
        video.decoder.conv_in.weight[:, :, -1], image.decoder.conv_in.weight.sum(2)
    )


def test_motion_reaches_an_inflated_tokenizer_once_it_trains():
    video = video_tokenizer()
    inflate(trained_image_tokenizer(video), video)
    video(torch.rand(1, 3, 5, 32, 32) * 2 - 1).clip.square().mean().backward()
    for p in video.parameters():
        assert p.grad is not None
        if p.ndim == 5 and p.shape[2] > 1:
            assert bool(p.grad[:, :, 0].any())


def test_what_is_spatial_is_what_no_time_axis_can_be_found_in():
    video = video_tokenizer()
    names = spatial_parameters(video)
    parameters = dict(video.named_parameters())
    assert names < parameters.keys()
    assert "encoder.blocks.0.conv1.weight" in names
    assert "encoder.blocks.0.conv2.weight" not in names  # 3 x 1 x 1
    assert "encoder.conv_in.weight" not in names  # holds the stem's temporal bands
    assert "decoder.blocks.1.conv.weight" not in names  # makes two frames of one
    assert all(parameters[n].shape[2] == 1 for n in names if parameters[n].ndim == 5)
    image = video_tokenizer(patch=(1, 4), strides=((1, 2),))
    flat = {n for n, p in image.named_parameters() if p.ndim < 5 or p.shape[2] == 1}
    assert spatial_parameters(image) == flat


OTHERS = {
    "width": {"channels": (16, 16)},
    "levels": {"strides": ((2, 2), (2, 2)), "channels": (16, 32, 32)},
    "patch": {"patch": (2, 2)},
    "kernels": {"factorized": False},
}


@pytest.mark.parametrize("pair", list(itertools.permutations(OTHERS, 2)), ids=" to ".join)
def test_strangers_are_refused(pair):
    one, other = (video_tokenizer(**OTHERS[name]) for name in pair)
    with pytest.raises(ValueError, match="temporal patch and strides of 1"):
        inflate(trained_image_tokenizer(one), other)


def test_a_video_tokenizer_is_not_an_image_tokenizer():
    video = video_tokenizer()
    moving = trained_image_tokenizer(video_tokenizer())
    inflate(moving, video)
    with pytest.raises(ValueError, match="cannot be inflated"):
        inflate(video, video_tokenizer())
