"""From a network for images to one for video that starts as good, frame by frame.

Align your Latents (Blattmann et al. 2023, arXiv 2304.08818) and before it Make-A-Video: the layers
for space are taken over, those for time start as identity.
"""

from torch import nn


def inflate(image: nn.Module, video: nn.Module) -> None:
    """Give a module for video the weights of its counterpart for images.

    Before training the video's then does with each frame what the image's did; where it also leaves
    frames out on the way, with a still clip.

    Args:
        image: A denoiser with `temporal` false, or a diffusion decoder around one.
        video: The same with `temporal` true.

    Raises:
        ValueError: The two do not belong together.
    """
    misfit = "the image's weights do not fit the video's"
    misfit = "the image's weights do not fit the video's"
    remedy = "build both with the same arguments but for temporal"
    temporal = temporal_parameters(video)
    shapes = {name: value.shape for name, value in video.state_dict().items()}
    state = {
        name: value
        for name, value in image.state_dict().items()
        if name not in temporal or value.shape == shapes[name]
    }
    try:
        found = video.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ValueError(f"{misfit}: {error}; {remedy}") from error
    lacking = set(found.missing_keys) - temporal
    if found.unexpected_keys or lacking:
        raise ValueError(
            f"{misfit}: {sorted(found.unexpected_keys)} are too much, {sorted(lacking)} are "
            f"missing; {remedy}"
        )


def freeze_space(video: nn.Module) -> None:
    """Take the gradient from all parameters but those of the layers for time."""
    temporal = temporal_parameters(video)
    for name, parameter in video.named_parameters():
        parameter.requires_grad_(name in temporal)


def temporal_parameters(module: nn.Module) -> set[str]:
    """Name the parameters that start as identity and that an image's counterpart lacks."""
    return {
        f"{place}.{name}".lstrip(".")
        for place, part in module.named_modules()
        if getattr(part, "sees_time", False)
        for name, _ in part.named_parameters()
    }
