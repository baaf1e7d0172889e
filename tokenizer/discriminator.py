"""What the tokenizer is trained against: PatchGANs of frames and of clips.

PatchGAN: Isola et al. 2016 (arXiv 1611.07004). No BatchNorm: its statistics over a few nearly equal
frames are what such trainings often end with. Spectral norm: Miyato et al. 2018 (arXiv 1802.05957).
Lazy regularisation: Karras et al. 2019 (arXiv 1912.04958).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from layers.processes import mean_of_processes
from tokenizer.losses import (
    hinge_generator_loss,
    hinge_loss,
    lecam_penalty,
    non_saturating_generator_loss,
    non_saturating_loss,
    r1_penalty,
)

LOSSES = {
    "hinge": (hinge_loss, hinge_generator_loss),
    "non-saturating": (non_saturating_loss, non_saturating_generator_loss),
}
LECAM_DECAY = 0.99
NORMS, NORM_GROUPS = ("group", "spectral"), 8


class PatchConv3d(nn.Conv3d):
    """3D convolution with zeros around the clip, those in time put there before it is called.

    Where a kernel over 3 frames pads 2 frames itself, its gradient in bfloat16 on a CPU is memory
    that nobody wrote (oneDNN in PyTorch 2.13).
    """

    def forward(self, x: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C2 T2 H2 W2"]:
        time = self.kernel_size[0] // 2
        return super().forward(F.pad(x, (0, 0, 0, 0, time, time)) if time else x)


class PatchDiscriminator(nn.Module):
    """Convolutions that judge each patch of a clip, or of each frame for itself; an image is both.

    Args:
        temporal: Judge some frames together instead of each alone.
        width: Channels of the first layer; they double with each layer up to 8 times as many.
        depth: Layers that halve height and width, and time where `temporal`.
        norm: GroupNorm, or spectral norm of the weights.
    """

    def __init__(
        self,
        temporal: bool = False,
        width: int = 64,
        depth: int = 3,
        norm: Literal["group", "spectral"] = "group",
    ) -> None:
        super().__init__()
        if width % NORM_GROUPS or depth < 1:
            raise ValueError(
                f"width is {width} and depth {depth}, but a discriminator needs a multiple of "
                f"{NORM_GROUPS} channels and at least 1 layer"
            )
        if norm not in NORMS:
            raise ValueError(f"norm is {norm!r}, but a discriminator has one of {list(NORMS)}")
        self.temporal, self.depth = temporal, depth
        widths = [3, *(width * min(8, 2**level) for level in range(depth + 1))]
        layers: list[nn.Module] = []
        for level in range(depth + 1):
            layers += self._layer(widths[level], widths[level + 1], norm, 2 if level < depth else 1)
        self.layers = nn.Sequential(*layers, self._conv(widths[-1], 1, 1, norm))

    def _layer(self, channels: int, width: int, norm: str, stride: int) -> list[nn.Module]:
        layer: list[nn.Module] = [self._conv(channels, width, stride, norm)]
        if norm == "group" and channels > 3:
            layer.append(nn.GroupNorm(NORM_GROUPS, width))
        return [*layer, nn.LeakyReLU(0.2)]

    def _conv(self, channels: int, width: int, stride: int, norm: str) -> nn.Module:
        time, space = (3 if self.temporal else 1), (4 if stride == 2 else 3)
        conv = PatchConv3d(
            channels,
            width,
            kernel_size=(time, space, space),
            stride=(stride if self.temporal else 1, stride, stride),
            padding=(0, 1, 1),
        )
        nn.init.normal_(conv.weight, std=0.02)
        assert conv.bias is not None
        nn.init.zeros_(conv.bias)
        return spectral_norm(conv) if norm == "spectral" else conv

    def check_size(self, height: int, width: int) -> None:
        """Raise ValueError where clips are too small to be judged."""
        least = 2**self.depth
        if min(height, width) < least:
            raise ValueError(
                f"clip is {height} x {width} pixels, but a discriminator of depth {self.depth} "
                f"needs {least} each way; use larger clips or less depth"
            )

    def forward(self, clip: Float[Tensor, "B 3 T H W"]) -> Float[Tensor, "B N"]:
        """Return a logit for each patch of a clip in [-1, 1], above 0 for real."""
        self.check_size(*clip.shape[3:])
        batch = len(clip)
        if not self.temporal:  # so that no norm looks across frames
            clip = rearrange(clip, "b c t h w -> (b t) c 1 h w")
        logits = self.layers(clip.contiguous(memory_format=torch.channels_last_3d))
        return rearrange(logits.float(), "(b n) 1 t h w -> b (n t h w)", b=batch)


class Adversary(nn.Module):
    """Discriminators with the losses of both sides.

    Args:
        discriminators: Judges, averaged; one of frames and one of clips by default.
        start_step: Step of the run at which they start to learn and to be heeded.
        ramp_steps: Steps from then on over which their weight rises to its full value.
        weight: Weight of their judgement, where 1 is as strong as the reconstruction: it is
            multiplied by the ratio of both gradients in the decoder's last layer.
        loss: Of both sides.
        lecam_weight: Weight of LeCam, against overfitting to few clips; 0 is off.
        r1_weight: Gamma of R1, the gradient penalty on real clips; 0 is off.
        r1_every: Steps from one penalty to the next, which counts that many times.
    """

    real_means: Tensor
    fake_means: Tensor

    def __init__(
        self,
        discriminators: list[PatchDiscriminator] | None = None,
        start_step: int = 0,
        ramp_steps: int = 1000,
        weight: float = 0.2,
        loss: Literal["hinge", "non-saturating"] = "hinge",
        lecam_weight: float = 0.0,
        r1_weight: float = 0.0,
        r1_every: int = 16,
    ) -> None:
        super().__init__()
        if start_step < 0 or ramp_steps < 1 or r1_every < 1:
            raise ValueError(
                f"start_step is {start_step}, ramp_steps {ramp_steps} and r1_every {r1_every}, "
                "but they must be at least 0, 1 and 1"
            )
        if loss not in LOSSES:
            raise ValueError(f"loss is {loss!r}, but an adversary has one of {list(LOSSES)}")
        if discriminators is None:
            discriminators = [PatchDiscriminator(), PatchDiscriminator(temporal=True)]
        if not discriminators:
            raise ValueError("discriminators is [], but an adversary needs 1; leave it out instead")
        self.discriminators = nn.ModuleList(discriminators)
        self.start_step, self.ramp_steps, self.weight = start_step, ramp_steps, weight
        self.own_loss, self.generator_objective = LOSSES[loss]
        self.lecam_weight, self.r1_weight, self.r1_every = lecam_weight, r1_weight, r1_every
        self.register_buffer("real_means", torch.zeros(len(discriminators)))
        self.register_buffer("fake_means", torch.zeros(len(discriminators)))

    def check_size(self, height: int, width: int) -> None:
        """Raise ValueError where clips are too small for a judge."""
        for judge in self.discriminators:
            assert isinstance(judge, PatchDiscriminator)
            judge.check_size(height, width)

    def weight_at(self, step: int) -> float:
        """Return the weight of the generator's loss: 0 before the start, then a ramp."""
        return self.weight * min(1.0, max(0, step - self.start_step + 1) / self.ramp_steps)

    def generator_loss(self, fake: Float[Tensor, "B 3 T H W"]) -> Float[Tensor, ""]:
        """Return what the tokenizer minimises; no parameter here takes a gradient from it."""
        losses = [self.generator_objective(judge(fake)) for judge in self.discriminators]
        return torch.stack(losses).mean()

    def loss(
        self, real: Float[Tensor, "B 3 T H W"], fake: Float[Tensor, "B 3 T H W"], step: int
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Return what the discriminators minimise, and the share of patches they judge right."""
        losses, right = [], []
        for i, judge in enumerate(self.discriminators):
            real_logits, fake_logits = judge(torch.cat([real, fake.detach()])).chunk(2)
            loss = self.own_loss(real_logits, fake_logits)
            if self.lecam_weight:
                loss = loss + self.lecam_weight * self._lecam(i, real_logits, fake_logits)
            losses.append(loss)
            right.append(((real_logits > 0).float().mean() + (fake_logits < 0).float().mean()) / 2)
        total = torch.stack(losses).mean()
        if self.r1_weight and (step - self.start_step) % self.r1_every == 0:
            total = total + self.r1_every * self.r1_weight / 2 * self._r1(real)
        return total, {"right": torch.stack(right).mean()}

    def _lecam(self, i: int, real: Tensor, fake: Tensor) -> Float[Tensor, ""]:
        penalty = lecam_penalty(real, fake, self.real_means[i].clone(), self.fake_means[i].clone())
        for means, logits in ((self.real_means, real), (self.fake_means, fake)):
            mean = mean_of_processes(logits.detach().mean())
            moved = means[i].lerp(mean, 1 - LECAM_DECAY)
            means[i] = torch.where(mean.isfinite(), moved, means[i])
        return penalty

    def _r1(self, real: Float[Tensor, "B 3 T H W"]) -> Float[Tensor, ""]:
        with torch.autocast(real.device.type, enabled=False):
            clip = real.detach().float().requires_grad_()
            penalties = [r1_penalty(judge(clip), clip) for judge in self.discriminators]
        return torch.stack(penalties).mean()
