"""From a trained network to one that can do more and starts as good, such as images to video.

Align your Latents (Blattmann et al. 2023, arXiv 2304.08818) and before it Make-A-Video: the layers
for space are taken over, those for time start as identity.
"""

from torch import nn


def inflate(source: nn.Module, target: nn.Module) -> None:
    """Give a module the weights of another that may lack what starts as identity.

    That is the layers for time, a control and adapters. So before training, a module for video does
    with each frame what its counterpart for images did; where it also leaves frames out on the way,
    with a still clip.

    Args:
        source: A denoiser, or a diffusion decoder; one for images has `temporal` false.
        target: The same, perhaps with more.

    Raises:
        ValueError: The two do not belong together.
    """
    values, wanted, added = source.state_dict(), target.state_dict(), additions(target)
    state = {}
    for name, held in wanted.items():
        value = values.pop(name.replace(".base_layer.", "."), None)
        if value is not None and value.shape == held.shape:
            state[name] = value
    lacking = set(wanted) - set(state) - added
    if values or lacking:
        raise ValueError(
            f"the weights do not fit: {sorted(values)} are too much, {sorted(lacking)} are missing "
            "or of another shape; build both with the same arguments but for what is added"
        )
    target.load_state_dict(state, strict=False)


def freeze_space(video: nn.Module) -> None:
    """Take the gradient from all parameters but those of the layers for time."""
    temporal = temporal_parameters(video)
    for name, parameter in video.named_parameters():
        parameter.requires_grad_(name in temporal)


def additions(module: nn.Module) -> set[str]:
    """Name the parameters and buffers that start as identity, so that another may lack them."""
    return {
        f"{place}.{name}".lstrip(".")
        for place, part in module.named_modules()
        if getattr(part, "sees_time", False)
        or getattr(part, "is_addition", False)
        or "lora_" in place
        for name in part.state_dict()
    }


def temporal_parameters(module: nn.Module) -> set[str]:
    """Name the parameters that start as identity and that an image's counterpart lacks."""
    return {
        f"{place}.{name}".lstrip(".")
        for place, part in module.named_modules()
        if getattr(part, "sees_time", False)
        for name, _ in part.named_parameters()
    }
