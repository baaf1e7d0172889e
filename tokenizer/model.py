"""The tokenizer: video to tokens and back."""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from layers.configurable import Configurable
from layers.storage import (
    CONFIG,
    MANIFEST,
    WEIGHTS,
    find_model,
    load_module,
    read_manifest,
    replacing,
    save_module,
    write_manifest,
)
from tokenizer.blocks import Cache
from tokenizer.bottleneck import Bottleneck, Quantized, Quantizer
from tokenizer.checks import (
    check_factors,
    check_latents,
    check_levels,
    check_pixels,
    check_precision,
    check_strides,
    check_tokens,
)
from tokenizer.cnn import Decoder, Encoder, Layout
from tokenizer.streaming import Codec


class Reconstruction(NamedTuple):
    """One pass through the whole autoencoder."""

    clip: Float[Tensor, "B 3 T H W"]
    quantized: Quantized


class Tokenizer(Configurable, nn.Module, Codec):
    """Causal 3D CNN autoencoder with a bottleneck; an image is a clip of one frame.

    Args:
        quantizer: The bottleneck: FSQ, LFQ or VQ for tokens, KL for continuous latents.
        patch: Pixels folded into channels by the stem, (temporal, spatial).
        wavelet: The stem is a Haar wavelet packet, of powers of two; else pixels are unshuffled.
        channels: Widths of the levels, from the pixels down.
        strides: (temporal, spatial) steps between neighbouring levels.
        encoder_depths: Residual blocks at each level of the encoder.
        decoder_depths: The same for the decoder, also from the pixels down.
        factorized: Split each 3 x 3 x 3 convolution of a block into space and time.
        spatial_attention: Attention within each frame of the latent grid, at both ends.
        temporal_window: Attention of each place over that many latent frames; 0 leaves it out.
    """

    calibrated: Tensor

    def __init__(
        self,
        quantizer: Bottleneck,
        patch: list[int] | None = None,
        channels: list[int] | None = None,
        strides: list[list[int]] | None = None,
        encoder_depths: list[int] | None = None,
        decoder_depths: list[int] | None = None,
        factorized: bool = True,
        wavelet: bool = True,
        spatial_attention: bool = False,
        temporal_window: int = 0,
    ) -> None:
        super().__init__()
        patch = [2, 4] if patch is None else patch
        channels = [128, 256] if channels is None else channels
        strides = [[2, 2]] if strides is None else strides  # [] leaves compression to the stem
        encoder_depths = [2, 2] if encoder_depths is None else encoder_depths
        decoder_depths = [3, 3] if decoder_depths is None else decoder_depths
        check_levels(channels, strides, encoder_depths, decoder_depths)
        check_factors(patch, strides)
        layout = Layout(
            patch=(patch[0], patch[1]),
            wavelet=wavelet,
            channels=channels,
            strides=[(t, s) for t, s in strides],
            factorized=factorized,
            spatial_attention=spatial_attention,
            temporal_window=temporal_window,
        )
        self.layout, self.quantizer = layout, quantizer
        self.encoder = Encoder(layout, encoder_depths, quantizer.input_dim)
        self.decoder = Decoder(layout, decoder_depths, quantizer.dim)
        self.temporal_stride, self.spatial_stride = patch
        for temporal, spatial in strides:
            self.temporal_stride *= temporal
            self.spatial_stride *= spatial
        self.register_buffer("calibrated", torch.tensor(False))
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                layout_last = module.weight.contiguous(memory_format=torch.channels_last_3d)
                module.weight = nn.Parameter(layout_last)

    @property
    def device(self) -> torch.device:
        """Where it works; clips and tokens have to be there."""
        return next(self.parameters()).device

    def encode(
        self, clip: Float[Tensor, "B 3 T H W"], cache: Cache | None = None
    ) -> Int[Tensor, "B t h w"]:
        """Return tokens in [0, codebook_size).

        Args:
            clip: Pixels in [-1, 1]; T = 1 + s k frames, H and W multiples of the spatial stride.
            cache: State of a stream; later chunks hold a multiple of s frames.
        """
        self.require_quantizer()
        tokens = self.encode_latents(clip, cache).tokens
        assert tokens is not None
        return tokens

    def decode(
        self, tokens: Int[Tensor, "B t h w"], cache: Cache | None = None
    ) -> Float[Tensor, "B 3 T H W"]:
        """Return pixels, about in [-1, 1] (not clamped), T = 1 + s (t - 1) frames.

        Tokens may be of any integer type, such as the small ones of a file.
        """
        check_precision(self)
        self.check_tokens(tokens)
        # As an index uint8 would be a mask, and int16 none.
        return self.decoder(self.require_quantizer().lookup(tokens.long()), cache)

    def encode_latents(
        self, clip: Float[Tensor, "B 3 T H W"], cache: Cache | None = None
    ) -> Quantized:
        """Return what `encode` does and the latents behind the bottleneck, continuous for KL.

        The bottleneck learns and draws in `forward` alone.
        """
        self.check_clip(clip, first=not cache)
        return self.quantizer.outside_training(self.encoder(clip, cache))

    def decode_latents(
        self, latents: Float[Tensor, "B D t h w"], cache: Cache | None = None
    ) -> Float[Tensor, "B 3 T H W"]:
        """Return pixels of latents as `encode_latents` gives them."""
        check_precision(self)
        check_latents(latents, self.quantizer.dim)
        return self.decoder(latents, cache)

    def forward(self, clip: Float[Tensor, "B 3 T H W"]) -> Reconstruction:
        """Encode, quantize and decode, for training.

        Raises:
            ValueError: The clip does not fit, as in `encode`; not looked at where this is compiled.
        """
        if not torch.compiler.is_compiling():
            self.check_clip(clip)
        quantized = self.quantizer(self.encoder(clip))
        return Reconstruction(self.decoder(quantized.latents), quantized)

    @property
    def codebook_size(self) -> int:
        """Number of codes; ValueError for a continuous tokenizer."""
        return self.require_quantizer().codebook_size

    @property
    def is_continuous(self) -> bool:
        """Whether the bottleneck makes latents and no tokens."""
        return not isinstance(self.quantizer, Quantizer)

    def require_quantizer(self) -> Quantizer:
        """Return the quantizer; raise ValueError where the bottleneck is continuous."""
        if not isinstance(self.quantizer, Quantizer):
            raise ValueError(
                f"this tokenizer is continuous ({type(self.quantizer).__name__}) and has no "
                "tokens; take one with FSQ, LFQ or VQ, or do without: sample.py --task "
                "reconstruct, or LatentCodec in Python"
            )
        return self.quantizer

    def keep_activations(self, keep: bool) -> None:
        """Keep what a gradient needs (the default), or compute it twice to save memory."""
        self.encoder.checkpointed = self.decoder.checkpointed = not keep

    def num_latent_frames(self, num_frames: int) -> int:
        """Return t of T = 1 + s (t - 1)."""
        if num_frames < 1 or (num_frames - 1) % self.temporal_stride:
            s = self.temporal_stride
            below = 1 + max(0, num_frames - 1) // s * s
            raise ValueError(
                f"num_frames is {num_frames}, but temporal stride {s} needs 1 + {s} k; "
                f"use {below} or {below + s}"
            )
        return 1 + (num_frames - 1) // self.temporal_stride

    def num_frames(self, num_latent_frames: int) -> int:
        """Return T = 1 + s (t - 1)."""
        return 1 + self.temporal_stride * (num_latent_frames - 1)

    def check_clip(self, clip: Float[Tensor, "B 3 T H W"], *, first: bool = True) -> None:
        """Raise ValueError where a clip is none, or does not fit the strides or the range.

        Args:
            clip: What is to be encoded.
            first: Whether it starts a stream; later chunks have s k frames instead of 1 + s k.
        """
        check_precision(self)
        check_pixels(clip)
        if first:
            self.num_latent_frames(clip.shape[2])
        check_strides(clip, 1 if first else self.temporal_stride, self.spatial_stride)

    def check_tokens(self, tokens: Int[Tensor, "B t h w"]) -> None:
        """Raise ValueError where tokens are none of this tokenizer, or it has none."""
        check_tokens(tokens, self.codebook_size)

    @torch.no_grad()
    def calibrate(self, clip: Float[Tensor, "B 3 T H W"]) -> None:
        """Fit both ends to a batch: latents of mean 0 and deviation 1, output at the mean picture.

        Called once, before the first step: a plainly initialised projection uses a handful of codes
        and stays with them for minutes, and an output that first has to find the mean brightness
        pushes all latents to one side.

        Raises:
            ValueError: The batch does not fit, as in `encode`, or is a single latent position.
        """
        self.check_clip(clip)
        if clip.shape[0] == clip.shape[2] == 1 and clip[0, 0].numel() == self.spatial_stride**2:
            raise ValueError(
                f"clip has shape {tuple(clip.shape)}, so a single latent position, which has no "
                "deviation; calibrate with more or larger clips"
            )
        bands = self.encoder.stem(clip)
        deviation = bands.std(dim=(0, 2, 3, 4))[:, None, None, None]
        for stem in (self.encoder.stem, self.decoder.stem):
            stem.shift.copy_(bands.mean(dim=(0, 2, 3, 4))[:, None, None, None])
            stem.scale.copy_(deviation.clamp(min=max(float(deviation.max()) / 30, 1e-4)))
        latents = self.encoder(clip).float()
        mean, std = latents.mean(dim=(0, 2, 3, 4)), latents.std(dim=(0, 2, 3, 4)).clamp(min=1e-4)
        project = self.encoder.project
        project.weight.div_(std[:, None, None, None, None])
        assert project.bias is not None
        project.bias.copy_((project.bias - mean) / std)
        self.calibrated.fill_(True)

    def fingerprint(self) -> str:
        """Hash what decides the tokens: layout, encoder and quantizer, not the decoder."""
        check_precision(self)
        layout = {k: v for k, v in self.config["arguments"].items() if k != "decoder_depths"}
        state = self.encoder.state_dict(), self.quantizer.state_dict()
        for name in self.quantizer.bookkeeping:
            del state[1][name]
        return _hash(json.dumps(layout, sort_keys=True), *state)

    def makes_the_tokens_of(self, other: "Tokenizer") -> bool:
        """Say whether both make the same tokens or latents, given the same weights."""
        return self.layout == other.layout and self.quantizer.kind() == other.quantizer.kind()

    def decoder_fingerprint(self) -> str:
        """Hash what decides the pixels of given latents."""
        layout = json.dumps(self.config["arguments"], sort_keys=True)
        return _hash(layout, self.decoder.state_dict())

    @classmethod
    def from_pretrained(cls, folder_or_hub_id: str | Path) -> "Tokenizer":
        """Load a tokenizer from its own folder or a pipeline's, here or on the Hugging Face hub."""
        folder = find_model(folder_or_hub_id, [MANIFEST, CONFIG, WEIGHTS, "tokenizer/*"])
        own = not (folder / "tokenizer").is_dir()
        read_manifest(folder, "" if own else "tokenizer/")
        tokenizer = load_module(folder if own else folder / "tokenizer")
        if not isinstance(tokenizer, cls):
            raise ValueError(f"{folder} holds a {type(tokenizer).__name__}, not a tokenizer")
        return tokenizer

    def save_pretrained(self, folder: str | Path) -> None:
        """Write safetensors, JSON and hashes; the folder may be copied or uploaded as it is."""
        folder = Path(folder)
        if (folder / "tokenizer").is_dir():
            raise ValueError(f"{folder} holds a whole pipeline; save into another folder")
        facts = {"tokenizer_fingerprint": self.fingerprint()}
        with replacing(folder) as new:
            save_module(self, new)
            write_manifest(new, facts)


def _hash(layout: str, *states: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(layout.encode())
    for state in states:
        for name, value in sorted(state.items()):
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
