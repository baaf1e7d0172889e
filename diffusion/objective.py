"""What a denoiser is asked for, and how a clip, its noise and a velocity turn into each other.

Whatever a network predicts is brought to the velocity v = alpha noise - sigma x (Salimans and Ho
2022, arXiv 2202.00512), since all samplers here start from that. `angle` is broadcast over `z`.
"""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion.schedule import CosineSchedule, Schedule, noise_level, signal, signal_to_noise
from layers.configurable import Configurable

Prediction = Literal["v", "x", "eps"]
"""What the network returns: the velocity, the clean clip or the noise."""


def noised(
    x: Float[Tensor, "*S"], noise: Float[Tensor, "*S"], angle: Float[Tensor, "..."]
) -> Float[Tensor, "*S"]:
    """Return z = alpha x + sigma noise."""
    return signal(angle) * x + noise_level(angle) * noise


def velocity(
    x: Float[Tensor, "*S"], noise: Float[Tensor, "*S"], angle: Float[Tensor, "..."]
) -> Float[Tensor, "*S"]:
    """Return v = alpha noise - sigma x, the derivative of z by the angle."""
    return signal(angle) * noise - noise_level(angle) * x


def clean(
    z: Float[Tensor, "*S"], v: Float[Tensor, "*S"], angle: Float[Tensor, "..."]
) -> Float[Tensor, "*S"]:
    """Return x = alpha z - sigma v."""
    return signal(angle) * z - noise_level(angle) * v


def noise_in(
    z: Float[Tensor, "*S"], v: Float[Tensor, "*S"], angle: Float[Tensor, "..."]
) -> Float[Tensor, "*S"]:
    """Return noise = sigma z + alpha v."""
    return noise_level(angle) * z + signal(angle) * v


def velocity_of_clean(
    z: Float[Tensor, "*S"], x: Float[Tensor, "*S"], angle: Float[Tensor, "..."]
) -> Float[Tensor, "*S"]:
    """Return v = (alpha z - x) / sigma, at any angle above 0."""
    return (signal(angle) * z - x) / noise_level(angle)


def velocity_of_noise(
    z: Float[Tensor, "*S"], noise: Float[Tensor, "*S"], angle: Float[Tensor, "..."]
) -> Float[Tensor, "*S"]:
    """Return v = (noise - sigma z) / alpha, at any angle below pi / 2."""
    return (noise - noise_level(angle) * z) / signal(angle)


def min_snr_weight(
    angle: Float[Tensor, "*S"], gamma: float, prediction: Prediction
) -> Float[Tensor, "*S"]:
    """Weigh the squared error of a prediction as that of the clean clip by min(snr, gamma).

    Hang et al. 2023 (arXiv 2303.09556), section 3.4.

    Args:
        angle: Above 0.
        gamma: Where the weight is cut off; 5 in the paper.
        prediction: What the squared error is of.
    """
    snr = signal_to_noise(angle)
    weight = snr.clamp(max=gamma)
    if prediction == "x":
        return weight
    return weight / (snr if prediction == "eps" else snr + 1)


class DiffusionObjective(Configurable):
    """The loss of a denoiser.

    Args:
        schedule: How noise rises with time; a cosine by default.
        prediction: What the network returns.
        min_snr_gamma: Weigh times by `min_snr_weight`; none weighs all the same.

    Raises:
        ValueError: There is no such prediction, or it or the weight says nothing at pure noise.
    """

    def __init__(
        self,
        schedule: Schedule | None = None,
        prediction: Prediction = "v",
        min_snr_gamma: float | None = None,
    ) -> None:
        self.schedule = schedule or CosineSchedule()
        if prediction not in get_args(Prediction):
            known = ", ".join(get_args(Prediction))
            raise ValueError(f"prediction is {prediction!r}, but must be one of {known}")
        if self.schedule.zero_terminal_snr and prediction == "eps":
            raise ValueError(
                "prediction is eps, which is undefined where no signal is left; predict v or x, or "
                "take a schedule without zero terminal SNR"
            )
        if self.schedule.zero_terminal_snr and min_snr_gamma is not None:
            raise ValueError(
                "min_snr_gamma gives pure noise the weight 0, so that it is never learnt; leave it "
                "out, or take a schedule without zero terminal SNR"
            )
        if min_snr_gamma is not None and min_snr_gamma <= 0:
            raise ValueError(f"min_snr_gamma is {min_snr_gamma:g}, but must be above 0")
        self.prediction: Prediction = prediction
        self.min_snr_gamma = min_snr_gamma

    def velocity(
        self, output: Float[Tensor, "*S"], z: Float[Tensor, "*S"], angle: Float[Tensor, "..."]
    ) -> Float[Tensor, "*S"]:
        """Return the velocity that a network's output means."""
        if self.prediction == "v":
            return output
        turn = velocity_of_clean if self.prediction == "x" else velocity_of_noise
        return turn(z, output, angle)

    def target(
        self, x: Float[Tensor, "*S"], noise: Float[Tensor, "*S"], angle: Float[Tensor, "..."]
    ) -> Float[Tensor, "*S"]:
        """Return what the network should say."""
        if self.prediction == "v":
            return velocity(x, noise, angle)
        return x if self.prediction == "x" else noise

    def errors(
        self,
        network: Callable[[Tensor], Tensor],
        x: Float[Tensor, "*S"],
        noise: Float[Tensor, "*S"],
        angle: Float[Tensor, "..."],
    ) -> Float[Tensor, "*S"]:
        """Return the weighted squared error of the network at every element.

        Args:
            network: From the noised clip to its prediction, the angle known to it.
            x: Clean clips.
            noise: Standard normal.
            angle: Of the noise, above 0.
        """
        output = network(noised(x, noise, angle))
        errors = (output.float() - self.target(x, noise, angle)).square()
        if self.min_snr_gamma is None:
            return errors
        return errors * min_snr_weight(angle, self.min_snr_gamma, self.prediction)

    def draw_times(self, count: int, generator: torch.Generator) -> Float[Tensor, " count"]:
        """Draw times in (0, 1] that lie evenly, which makes the loss of a batch less noisy.

        Kingma et al. 2021 (arXiv 2107.00630), appendix I.1.
        """
        first = torch.rand(1, generator=generator)
        even = (first + torch.arange(count) / count) % 1
        return 1 - even[torch.randperm(count, generator=generator)]
