"""How much noise a clip has at a time: 0 is clean, 1 is the most.

All schedules keep the variance: a noised clip is alpha x + sigma noise with alpha^2 + sigma^2 = 1.
So one number tells all, the angle phi = arctan(sigma / alpha) (Salimans and Ho 2022, arXiv
2202.00512, appendix D). Angles go from 0, clean, to pi / 2, nothing but noise.
"""

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from layers.configurable import Configurable


def signal(angle: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """Return alpha = cos(angle), exactly 0 at pi / 2."""
    return torch.sin(math.pi / 2 - angle)


def noise_level(angle: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """Return sigma = sin(angle)."""
    return torch.sin(angle)


def angle_of(alpha: Float[Tensor, "*S"], sigma: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """Return phi = arctan(sigma / alpha)."""
    return torch.atan2(sigma, alpha)


def signal_to_noise(angle: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """Return alpha^2 / sigma^2, infinite at angle 0."""
    return (signal(angle) / noise_level(angle)).square()


def with_zero_terminal_snr(
    alpha: Float[Tensor, "*S"], first: Float[Tensor, ""], last: Float[Tensor, ""]
) -> Float[Tensor, "*S"]:
    """Shift and scale alpha so that its last value is 0 and its first stays.

    Lin et al. 2024 (arXiv 2305.08891), algorithm 1. Without it the last step holds a little of the
    clip, its mean colour above all, which sampling from pure noise then lacks.

    Args:
        alpha: Values of a schedule.
        first: The one at time 0.
        last: The one at time 1.
    """
    return (alpha - last) * first / (first - last)


class Schedule(Configurable, ABC):
    """From time in [0, 1] to the angle of the noise.

    `zero_terminal_snr` says whether nothing is left of the clip at time 1.
    """

    zero_terminal_snr: bool

    @abstractmethod
    def angle(self, time: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        """Return phi in [0, pi / 2], rising with time, in float64."""

    def angles(self, steps: int, start: float = 1.0) -> Float[Tensor, " steps_1"]:
        """Return the angles between which a sampler goes, in falling order; the last is 0.

        Args:
            steps: Calls of the network, at least 1; equal steps in time.
            start: The time of the first, in (0, 1]: the strength of an edit.

        Raises:
            ValueError: Either is out of range.
        """
        if not 0 < start <= 1:
            raise ValueError(f"strength is {start:g}, but must lie in (0, 1]")
        if steps < 1:
            raise ValueError(f"steps is {steps}, but must be at least 1")
        time = torch.linspace(start, 0, steps + 1, dtype=torch.float64)
        return torch.cat([self.angle(time[:-1]), time.new_zeros(1)])


class CosineSchedule(Schedule):
    """alpha falls as a cosine (Nichol and Dhariwal 2021, arXiv 2102.09672, Eq. 17), to exactly 0.

    Args:
        offset: Share of the curve that is cut off at the clean end, where almost nothing happens.
        shift: Factor of sigma / alpha (Hoogeboom et al. 2023, arXiv 2301.11093). Above 1 more of
            the time goes to strong noise, where it is decided what is where and how it moves.
    """

    zero_terminal_snr = True

    def __init__(self, offset: float = 0.008, shift: float = 1.0) -> None:
        if not 0 <= offset < 1:
            raise ValueError(f"offset is {offset:g}, but must lie in [0, 1)")
        if not 0 < shift < math.inf:
            raise ValueError(f"shift is {shift:g}, but must be above 0; 1 leaves the curve")
        self.offset, self.shift = offset, shift

    def angle(self, time: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        start = self.offset / (1 + self.offset) * math.pi / 2
        curve = start + time.double() * (math.pi / 2 - start)
        alpha = signal(curve) / math.cos(start)
        return angle_of(alpha, self.shift * (1 - alpha.square()).clamp(min=0).sqrt())


class LogLinearSchedule(Schedule):
    """log(alpha^2 / sigma^2) falls in a line (Kingma et al. 2021, arXiv 2107.00630).

    Args:
        max_log_snr: At time 0.
        min_log_snr: At time 1, before rescaling.
        zero_terminal_snr: Rescale, so that time 1 is pure noise.
    """

    def __init__(
        self,
        max_log_snr: float = 10.0,
        min_log_snr: float = -10.0,
        zero_terminal_snr: bool = False,
    ) -> None:
        if not min_log_snr < max_log_snr:
            raise ValueError(
                f"min_log_snr is {min_log_snr:g}, but must be below max_log_snr, {max_log_snr:g}"
            )
        self.max_log_snr, self.min_log_snr = max_log_snr, min_log_snr
        self.zero_terminal_snr = zero_terminal_snr

    def angle(self, time: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        alpha = self._alpha(time.double())
        if self.zero_terminal_snr:
            first, last = self._alpha(torch.tensor([0.0, 1.0], dtype=torch.float64)).unbind()
            alpha = with_zero_terminal_snr(alpha, first, last)
        return angle_of(alpha, (1 - alpha.square()).clamp(min=0).sqrt())

    def _alpha(self, time: Tensor) -> Tensor:
        log_snr = self.max_log_snr + time * (self.min_log_snr - self.max_log_snr)
        return log_snr.sigmoid().sqrt()
