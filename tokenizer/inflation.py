"""From an image tokenizer to a video tokenizer that starts as good on images.

A 2D kernel becomes the last temporal slice of a 3D one, the others are zero (Yu et al. 2023, arXiv
2310.05737): the present is seen as before, the past not yet. On one frame, and on a frame that
repeats, the video tokenizer then does what the image tokenizer does.

An image tokenizer is a `Tokenizer` whose temporal patch and strides are 1, as `image_counterpart`
builds it. Kernels that it has in time see copies of one frame only, so their sum is what counts.
"""

import copy
from collections.abc import Iterator

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from layers.configurable import build
from tokenizer.blocks import Downsample, Upsample
from tokenizer.model import Tokenizer


def image_counterpart(video: Tokenizer) -> Tokenizer:
    """Build the image tokenizer that can be inflated to a video tokenizer, with fresh weights."""
    config = copy.deepcopy(video.config)
    strides = [block.stride for block in video.encoder.blocks if isinstance(block, Downsample)]
    config["arguments"] |= {
        "patch": [1, video.encoder.stem.spatial],
        "strides": [[1, space] for _, space in strides],
        "temporal_window": 0,
    }
    return build(config)


def spatial_parameters(video: Tokenizer) -> set[str]:
    """Name the parameters that inflation takes over as they are: nothing in them sees time."""
    with torch.device("meta"):
        image = image_counterpart(video)
    names = set()
    for place, ours, theirs in _layers(image, video):
        for name, p in theirs.named_parameters():
            temporal = p.ndim == 5 and p.shape[2] > 1
            if not temporal and p.shape == ours.get_parameter(name).shape:
                names.add(f"{place}.{name}")
    return names


@torch.no_grad()
def inflate(image: Tokenizer, video: Tokenizer) -> None:
    """Give a video tokenizer the weights of an image tokenizer.

    Raises:
        ValueError: The two do not belong together.
    """
    try:
        bands = _inflate_stems(image, video)
        for place, ours, theirs in _layers(image, video):
            rows, columns = _mixtures(place, theirs, bands)
            for name, p in ours.named_parameters():
                target = theirs.get_parameter(name)
                target.copy_(_inflated(p, target, rows, columns))
            if isinstance(theirs, Downsample):
                _absorb_down(ours, theirs)
            elif isinstance(theirs, Upsample):
                _absorb_up(ours, theirs)
        video.quantizer.load_state_dict(image.quantizer.state_dict())
        video.calibrated.copy_(image.calibrated)
        same = _equal_on_a_still_clip(image, video)
    except (AttributeError, RuntimeError) as error:
        raise _misfit(str(error)) from error
    if not same:
        raise _misfit("a frame that repeats has other latents or pixels")


def _misfit(reason: str) -> ValueError:
    return ValueError(
        f"the image tokenizer cannot be inflated to this video tokenizer: {reason}; train one with "
        "the same arguments but for temporal patch and strides of 1"
    )


def _layers(image: Tokenizer, video: Tokenizer) -> Iterator[tuple[str, nn.Module, nn.Module]]:
    """Pair the layers of both, with their place in the video tokenizer.

    Blocks are paired in order by their class; those that only the video tokenizer has, such as
    temporal attention, are left as they start.
    """
    for end in ("encoder", "decoder"):
        ours, theirs = image.get_submodule(end), video.get_submodule(end)
        for name, layer in theirs.named_children():
            if name not in ("stem", "blocks"):
                yield f"{end}.{name}", ours.get_submodule(name), layer
        waiting = list(ours.get_submodule("blocks").children())
        for name, block in theirs.get_submodule("blocks").named_children():
            if waiting and type(waiting[0]) is type(block):
                yield f"{end}.blocks.{name}", waiting.pop(0), block
        if waiting:
            raise AttributeError(f"its {end} has no place for a {type(waiting[0]).__name__}")


def _inflate_stems(image: Tokenizer, video: Tokenizer) -> Float[Tensor, "video_bands image_bands"]:
    """Set shifts and scales; return what each band of the video's stem holds of a still clip."""
    ours, theirs = image.encoder.stem, video.encoder.stem
    pixels = ours.matrix.T / ours.matrix.square().sum(dim=1)
    frames = rearrange(theirs.matrix, "band (s p) -> s band p", s=theirs.temporal) @ pixels
    still, spatial = frames.sum(dim=0), frames.abs().sum(dim=0)
    for stem in (theirs, video.decoder.stem):
        stem.shift.copy_(torch.tensordot(still, ours.shift, 1))
        stem.scale.copy_(torch.tensordot(spatial, ours.scale, 1))
    return still


def _mixtures(
    place: str, layer: nn.Module, bands: Float[Tensor, "V I"]
) -> tuple[Tensor | None, Tensor | None]:
    """Return the matrices that make a layer's outputs and inputs from the image's; None for 1."""
    if place == "encoder.conv_in":
        return None, torch.linalg.pinv(bands)
    if place == "decoder.conv_out":
        return bands, None
    if isinstance(layer, Upsample):  # every frame of a group is the image's
        time, space = layer.stride
        channels = layer.conv.out_channels // (time * space**2)
        group = repeat(torch.eye(space**2), "n m -> (s n) m", s=time)
        return torch.kron(torch.eye(channels), group), None
    return None, None


def _inflated(p: Tensor, target: Tensor, rows: Tensor | None, columns: Tensor | None) -> Tensor:
    """Return a parameter in the shape of its target, kernels in the last temporal slice."""
    value = p if p.ndim < 5 else p.sum(dim=2)
    if rows is not None:
        value = torch.tensordot(rows, value, 1)
    if p.ndim < 5:
        return value
    if columns is not None:
        value = torch.einsum("o i h w, i j -> o j h w", value, columns)
    inflated = torch.zeros_like(target)
    inflated[:, :, -1] = value
    return inflated


def _absorb_down(image: nn.Module, video: Downsample) -> None:
    """Let the kernel make up for a shortcut that averages other groups than the image's."""
    space, width = video.stride[1], video.conv.kernel_size[1]
    pixels = torch.eye(video.conv.in_channels * space**2)
    pixels = rearrange(pixels, "n (c p q) -> n c 1 p q", p=space, q=space)
    missing = _shortcut(image, pixels) - _shortcut(video, pixels)
    kernel = rearrange(missing, "(c p q) o 1 1 1 -> o c p q", p=space, q=space)
    window = slice(width // 2, width // 2 + space)
    if kernel.any():
        video.conv.weight[:, :, -1, window, window] += kernel


def _absorb_up(image: nn.Module, video: Upsample) -> None:
    """The same for a shortcut that repeats other channels than the image's."""
    time, width = video.stride[0], video.conv.kernel_size[1]
    latent = torch.eye(video.conv.in_channels)[:, :, None, None, None]
    group = _shortcut(video, latent.expand(-1, -1, 2, -1, -1))[:, :, -time:]
    missing = _shortcut(image, latent) - group
    rows = rearrange(missing, "i o s p q -> (o s p q) i")
    video.conv.weight[:, :, -1, width // 2, width // 2] += rows


def _shortcut(layer: nn.Module, x: Tensor) -> Tensor:
    """Return what a layer makes of x without its convolution."""
    bare = copy.deepcopy(layer)
    for p in bare.parameters():
        p.zero_()
    return bare(x)


def _equal_on_a_still_clip(image: Tokenizer, video: Tokenizer) -> bool:
    generator = torch.Generator().manual_seed(0)
    side = 4 * image.spatial_stride
    frame = torch.rand(1, 3, 1, side, side, generator=generator) * 2 - 1
    ours = image.encoder(frame)
    theirs = video.encoder(frame.expand(-1, -1, video.num_frames(2), -1, -1))
    latents = ours.tanh()[:, : image.quantizer.dim]
    pixels = image.decoder(latents), video.decoder(latents.expand(-1, -1, 2, -1, -1))
    return all(torch.allclose(a.expand_as(b), b, atol=1e-3) for a, b in ((ours, theirs), pixels))
