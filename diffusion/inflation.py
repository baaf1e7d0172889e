"""From a trained network to one that can do more and starts as good: video, control, more pixels.

Align your Latents (Blattmann et al. 2023, arXiv 2304.08818) and before it Make-A-Video: the layers
for space are taken over, those for time start as identity.
"""

import math
from typing import Any

from einops import repeat
from torch import Tensor, nn

from diffusion.condition import FramePhases, TokenFeatures
from diffusion.decoder import DiffusionDecoder


def inflate(source: nn.Module, target: nn.Module) -> None:
    """Give a module the weights of another that may lack what starts as identity.

    That is the layers for time, a control, the level of noise on the CNN's clip and adapters. So
    before training, a module for video does with each frame what its counterpart for images did;
    where it also leaves frames out on the way, with a still clip. In a cascade a code says to each
    of the more places what it said to the one that they were.

    Args:
        source: A denoiser, or a diffusion decoder; one for images has `temporal` false.
        target: The same, perhaps with more.

    Raises:
        ValueError: The two do not belong together.
    """
    values, added, phases = source.state_dict(), additions(target), _phases(target)
    sides = _sides(target)
    state, lacking = {}, []
    for name, held in target.state_dict().items():
        value = values.pop(name.replace(".base_layer.", "."), None)
        if value is not None and name in sides:
            value = _repeated(value, held, sides[name])
        if value is not None and value.shape == held.shape:
            state[name] = value
        elif name not in (added if value is None else phases):
            lacking.append(name)
    if values or lacking:
        raise ValueError(
            f"the weights do not fit: {sorted(values)} are too much, {sorted(lacking)} are missing "
            "or of another shape; build both with the same arguments but for what is added"
        )
    target.load_state_dict(state, strict=False)


def require_alike(source: DiffusionDecoder, target: DiffusionDecoder) -> None:
    """Refuse a decoder to start from whose weights fit but were trained for something else.

    Whether a network for images is causal means nothing, so a video's may be either.

    Raises:
        ValueError: A setting that gives no weight another shape differs.
    """
    theirs, ours = _settings(source), _settings(target)
    if source.enlarge == [1, 1]:  # a cascade starts from the decoder whose clips it enlarges
        theirs["enlarge"] = ours["enlarge"]
    if not source.network.config["arguments"].get("temporal", True):
        theirs["causal"] = ours["causal"]
    if source.control is None or target.control is None:
        theirs["control"] = ours["control"]
    for name, value in theirs.items():
        if value != ours[name]:
            raise ValueError(
                f"{name} is {ours[name]!r}, but the decoder to start from was trained with "
                f"{value!r}; set it to that, or leave start_from out"
            )


def _settings(decoder: DiffusionDecoder) -> dict[str, Any]:
    network = decoder.network.config["arguments"]
    return {
        "use": decoder.use,
        "whiten": decoder.whitening is not None,
        "patch": decoder.patch,
        "enlarge": list(decoder.enlarge),
        "prediction": decoder.objective.prediction,
        "schedule": decoder.objective.schedule.config,
        "causal": network.get("causal", False),
        "network.window": network.get("window"),
        "control": None if decoder.control is None else decoder.control.kind,
    }


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
    } | {name for name, _ in module.named_parameters() if name.split(".")[-1] == "noise_read"}


def _phases(module: nn.Module) -> set[str]:
    """Name the vectors of frames, of which another stride has another number."""
    places = [name for name, part in module.named_modules() if isinstance(part, FramePhases)]
    return {f"{place}.vectors".lstrip(".") for place in places}


def _sides(module: nn.Module) -> dict[str, int]:
    """Name what lays a code's vector over places, and on how many of them on a side."""
    return {
        f"{place}.spread.{name}".lstrip("."): part.scale[1]
        for place, part in module.named_modules()
        if isinstance(part, TokenFeatures)
        for name in part.spread.state_dict()
    }


def _repeated(value: Tensor, held: Tensor, side: int) -> Tensor:
    """Return what lays a vector over places for so many on a side, where it is for less of them."""
    width = len(held) // side**2
    less = math.isqrt(len(value) // width)
    if less == 0 or side % less or less**2 * width != len(value):
        return value
    more = side // less
    return repeat(value, "(p q d) ... -> (p r q s d) ...", p=less, q=less, r=more, s=more)


def temporal_parameters(module: nn.Module) -> set[str]:
    """Name the parameters that start as identity and that an image's counterpart lacks."""
    return {
        f"{place}.{name}".lstrip(".")
        for place, part in module.named_modules()
        if getattr(part, "sees_time", False)
        for name, _ in part.named_parameters()
    }
