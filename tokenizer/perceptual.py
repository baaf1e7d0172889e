"""LPIPS: distance of pictures in the features of VGG16, on every frame of a clip.

LPIPS: Zhang et al. 2018 (arXiv 1801.03924). VGG16: Simonyan and Zisserman 2014 (arXiv 1409.1556).
No weights come with this project; the files that others publish are read as they are.
"""

import pickle
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
# Mean and deviation of ImageNet's colours, for pictures in [-1, 1].
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


@dataclass(frozen=True)
class Perceptual:
    """The perceptual loss; off without a file of VGG16.

    Args:
        vgg_file: Weights of torchvision's VGG16 (`features.0.weight`, ...), .pth or .safetensors.
        heads_file: LPIPS' linear heads (`lin0.model.1.weight`, ...); without it all channels count
            alike, which the authors call the uncalibrated distance.
        weight: Weight beside the absolute error.
    """

    vgg_file: str | None = None
    heads_file: str | None = None
    weight: float = 1.0

    def load(self) -> "LPIPS | None":
        """Open the files; None where there are none."""
        if not self.weight or self.vgg_file is None:
            return None
        lpips = LPIPS()
        lpips.load_vgg(read_weights(self.vgg_file))
        if self.heads_file is not None:
            lpips.load_heads(read_weights(self.heads_file))
        return lpips


class LPIPS(nn.Module):
    """Frozen network and heads, untrained until `load_vgg`, uncalibrated until `load_heads`."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for stage in STAGES:
            for width in stage:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        # Numbered like torchvision's; the last pooling would follow the last features.
        self.features = nn.Sequential(*layers[:-1])
        self.heads = nn.ParameterList(torch.ones(stage[-1]) for stage in STAGES)
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None])
        self.requires_grad_(False).eval()

    def load_vgg(self, state: dict[str, Tensor]) -> None:
        """Take the convolutions of a VGG16, whatever else there is in its state dict."""
        convolutions = {k: v for k, v in state.items() if k.startswith("features.")}
        _load(self.features, {k.removeprefix("features."): v for k, v in convolutions.items()})

    def load_heads(self, state: dict[str, Tensor]) -> None:
        """Take the weights of the channels."""
        names = {f"lin{i}.model.1.weight": str(i) for i in range(len(STAGES))}
        _load(self.heads, {names.get(k, k): v.flatten() for k, v in state.items()})

    def forward(
        self, clip: Float[Tensor, "B 3 T H W"], truth: Float[Tensor, "B 3 T H W"]
    ) -> Float[Tensor, ""]:
        """Return the mean distance of all frames of clips in [-1, 1], in float32."""
        least = 2 ** (len(STAGES) - 1)  # it is halved between the stages
        if min(clip.shape[3:]) < least:
            raise ValueError(
                f"clip is {clip.shape[3]} x {clip.shape[4]} pixels, but LPIPS needs {least} each "
                "way; use larger clips or leave the perceptual loss out"
            )
        with torch.autocast(clip.device.type, enabled=False):
            with torch.no_grad():
                theirs = self._taps(truth.float())
            ours = self._taps(clip.float())
            distances = [
                torch.einsum("n c h w, c -> n h w", (a - b).square(), head).mean()  # Eq. 1
                for a, b, head in zip(ours, theirs, self.heads, strict=True)
            ]
        return torch.stack(distances).sum()

    def _taps(self, clip: Float[Tensor, "B 3 T H W"]) -> list[Float[Tensor, "N C H2 W2"]]:
        """Return the features before each pooling and at the end, of length 1 at each place."""
        h = (rearrange(clip, "b c t h w -> (b t) c h w") - self.shift) / self.scale
        taps = []
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                taps.append(_unit(h))
            h = layer(h)
        return [*taps, _unit(h)]


def _unit(h: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
    # Within the root, or features that are all zero would have no gradient.
    return h * (h.square().sum(dim=1, keepdim=True) + 1e-8).rsqrt()


def read_weights(path: str) -> dict[str, Tensor]:
    """Read a state dict without unpickling anything but tensors.

    Raises:
        ValueError: The file is missing or holds something else.
    """
    try:
        if Path(path).suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{path} cannot be read as weights ({error}); give a .safetensors file or a .pth of "
            "tensors alone, or leave it out to go without the perceptual loss"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(x, Tensor) for x in state.values()):
        raise ValueError(
            f"{path} holds something else than tensors under their names; save the state_dict of "
            "the network alone"
        )
    return state


def _load(module: nn.Module, state: dict[str, Tensor]) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f"the weights do not fit: {error}; LPIPS takes torchvision's VGG16 and the linear "
            "heads that belong to it"
        ) from error
