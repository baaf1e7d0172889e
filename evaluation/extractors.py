"""Networks that others trained, from local files: what a clip or a frame is described by.

Nothing is bundled or downloaded. A file is known by its hash, and a network is called I3D only
after it gave the published answer on black and white clips.
"""

import hashlib
import zipfile
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from data.video import to_model_range
from evaluation.i3d import I3D

Resize = Literal["script", "legacy_stretch", "stretch", "short_centre"]

# FVD of 30 black against 30 white frames of 64 x 64: 151.26 by TorchScript, 151.39 by TF-Hub.
GOLDEN_FRAMES, GOLDEN_DISTANCE, GOLDEN_TOLERANCE = 30, 151.3, 0.5
_SIDE = 224


def file_hash(path: str | Path, expected: str | None = None) -> str:
    """Return the SHA-256 of a file, after comparing it with what was expected.

    Raises:
        ValueError: There is no such file, or it is another one.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is no file; give the local path of the weights")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if expected is not None and digest != expected.lower():
        raise ValueError(
            f"{path} has the SHA-256 {digest}, but {expected} was asked for; get the right file"
        )
    return digest


def device_of(network: nn.Module) -> torch.device:
    """Return where a network works; features come back to the CPU."""
    held = chain(network.parameters(), network.buffers())
    return next((tensor.device for tensor in held), torch.device("cpu"))


def load_script(path: str | Path) -> torch.jit.ScriptModule:
    """Load a TorchScript file."""
    try:
        return torch.jit.load(str(path), map_location="cpu").eval()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{path} is no TorchScript file that loads here ({reason})") from error


class ScriptedFeatures(nn.Module):
    """Any TorchScript network over uint8 pictures; it scales and resizes them itself.

    Where its forward knows the options `return_features`, `rescale` and `resize`, as the published
    I3D and Inception files do, they are set.

    Args:
        path: The file.
        sha256: What the file's hash must be.
        per_frame: Feed it single frames, and describe a clip by those of all its frames.
    """

    def __init__(
        self, path: str | Path, sha256: str | None = None, *, per_frame: bool = False
    ) -> None:
        super().__init__()
        self.sha256, self.per_frame = file_hash(path, sha256), per_frame
        self.extractor_id = f"{Path(path).stem}-{self.sha256[:8]}"
        self.network = load_script(path)
        self.options = _options(self.network, ("return_features", "rescale", "resize"))
        self.num_features = self(torch.zeros(1, 1 if per_frame else 16, 64, 64, 3).byte()).shape[1]

    @torch.no_grad()
    def forward(self, clip: UInt8[Tensor, "B T H W 3"]) -> Float[Tensor, "B D"]:
        pattern = "B T H W C -> (B T) C H W" if self.per_frame else "B T H W C -> B C T H W"
        x = rearrange(clip.to(device_of(self)), pattern)
        features = self.network(x, **self.options).cpu()
        return (
            rearrange(features, "(B T) D -> B (T D)", B=len(clip)) if self.per_frame else features
        )


class I3DFeatures(nn.Module):
    """The 400 logits of I3D, from a TorchScript file or a state dict.

    Args:
        path: `i3d_torchscript.pt`, or a state dict as .pt or .safetensors.
        sha256: What the file's hash must be.
        resize: "script": inside the TorchScript, as StyleGAN-V does. "legacy_stretch": to a square
            by TensorFlow 1's bilinear rule, as in the original. "stretch": by the usual rule
            (TATS). "short_centre": the short side to 224, then the centre (VideoGPT).
    """

    num_features = 400

    def __init__(
        self, path: str | Path, sha256: str | None = None, resize: Resize = "script"
    ) -> None:
        super().__init__()
        self.sha256 = file_hash(path, sha256)
        self.resize: Resize = resize
        self.extractor_id = f"{Path(path).stem}-{self.sha256[:8]}-{resize}"
        if _is_script(Path(path)):
            self.network: nn.Module = load_script(path)
            self.options = _options(self.network, ("return_features",))
            self.inside = _options(self.network, ("rescale", "resize"))
        elif resize == "script":
            raise ValueError(
                f"{path} is a state dict, which resizes nothing; use a protocol with another "
                "resize, or the TorchScript file"
            )
        else:
            self.network, self.options, self.inside = _from_state_dict(Path(path)), {}, {}
        self.is_i3d = False

    @torch.no_grad()
    def forward(self, clip: UInt8[Tensor, "B T H W 3"]) -> Float[Tensor, "B 400"]:
        if clip.shape[1] < 9:
            raise ValueError(f"clip has {clip.shape[1]} frames, but I3D needs at least 9")
        x = rearrange(clip.to(device_of(self)), "B T H W C -> B C T H W")
        if self.resize == "script":
            return self.network(x, **self.inside, **self.options).cpu()
        x = resized(x.float(), self.resize) / 127.5 - 1
        return self.network(x, **dict.fromkeys(self.inside, False), **self.options).cpu()

    def golden_distance(self) -> float:
        """Return the FVD of black against white clips, whose covariance is zero."""
        black = torch.zeros(1, GOLDEN_FRAMES, 64, 64, 3, dtype=torch.uint8)
        return float((self(black).double() - self(255 - black).double()).square().sum())

    def prove(self) -> "I3DFeatures":
        """Give the network the name I3D, if black and white lie as far apart as published.

        Raises:
            ValueError: They do not.
        """
        found = self.golden_distance()
        if not abs(found - GOLDEN_DISTANCE) < GOLDEN_TOLERANCE:
            raise ValueError(
                f"black and white clips lie {found:.2f} apart under {self.extractor_id}, but "
                f"{GOLDEN_DISTANCE} under the I3D of FVD; get i3d_torchscript.pt, or use the file "
                "as --features, whose distance is called frechet"
            )
        self.is_i3d = True
        return self


class EncoderFeatures(nn.Module):
    """What an encoder of clips sees: random mixtures of a layer's channels, mean and deviation.

    Args:
        encoder: Takes clips "B 3 T H W" in [-1, 1].
        layer: The part of it whose output "B C t h w" is read.
        extractor_id: Names the encoder and its weights.
        num_features: How many numbers describe a clip; an even number.
    """

    def __init__(
        self, encoder: nn.Module, layer: nn.Module, extractor_id: str, num_features: int = 64
    ) -> None:
        super().__init__()
        self.encoder, self.extractor_id, self.num_features = encoder, extractor_id, num_features
        self.states: Tensor | None = None
        layer.register_forward_hook(self._keep)

    @torch.no_grad()
    def forward(self, clip: UInt8[Tensor, "B T H W 3"]) -> Float[Tensor, "B D"]:
        self.encoder(to_model_range(clip))
        assert self.states is not None
        states = rearrange(self.states, "B C t h w -> B C (t h w)").float()
        generator = torch.Generator().manual_seed(0)
        mixtures = torch.randn(self.num_features // 2, states.shape[1], generator=generator)
        mixed = (mixtures / states.shape[1] ** 0.5).to(states) @ states
        return torch.cat([mixed.mean(-1), mixed.std(-1, correction=0)], dim=1)

    def _keep(self, layer: nn.Module, inputs: Any, output: Tensor) -> None:
        self.states = output


def resized(x: Float[Tensor, "B C T H W"], rule: Resize) -> Float[Tensor, "B C T H2 W2"]:
    """Bring frames to 224 x 224."""
    height, width = x.shape[3:]
    if rule == "legacy_stretch":
        rows, columns = _legacy_weights(height), _legacy_weights(width)
        return torch.einsum("hr,wc,btdrc->btdhw", rows.to(x), columns.to(x), x)
    scale = _SIDE / min(height, width)
    size = (_SIDE, _SIDE) if rule == "stretch" else (round(height * scale), round(width * scale))
    flat = rearrange(x, "B C T H W -> (B T) C H W")
    flat = F.interpolate(flat, size, mode="bilinear", align_corners=False)
    top, left = (size[0] - _SIDE) // 2, (size[1] - _SIDE) // 2
    flat = flat[:, :, top : top + _SIDE, left : left + _SIDE]
    return rearrange(flat, "(B T) C H W -> B C T H W", B=len(x))


def _legacy_weights(length: int) -> Float[Tensor, "224 L"]:
    """Weights of TensorFlow 1's bilinear rule: place k of the output lies at k length / 224."""
    place = torch.arange(_SIDE) * (length / _SIDE)
    low = place.floor().long()
    high, share = (low + 1).clamp(max=length - 1), place - low
    weights = torch.zeros(_SIDE, length)
    weights[torch.arange(_SIDE), low] += 1 - share
    weights[torch.arange(_SIDE), high] += share
    return weights


def _is_script(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("constants.pkl") for name in archive.namelist())


def _from_state_dict(path: Path) -> I3D:
    network = I3D()
    try:
        safe = path.suffix == ".safetensors"
        state = load_file(path) if safe else torch.load(path, weights_only=True)
        network.load_state_dict(state, strict=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{path} holds no weights of I3D ({reason}); get another file") from error
    return network


def _options(network: nn.Module, names: tuple[str, ...]) -> dict[str, bool]:
    assert isinstance(network, torch.jit.ScriptModule)
    known = {argument.name for argument in network.forward.schema.arguments}
    return {name: True for name in names if name in known}
