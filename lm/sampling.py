"""How tokens are drawn, apart from what is asked for."""

from dataclasses import dataclass
from math import isfinite
from typing import get_args

from lm.packing import Quantization


@dataclass(frozen=True)
class Sampling:
    """The choices of a draw; the defaults draw from what the prior has learnt.

    Args:
        guidance_scale: uncond + scale (cond - uncond); 1 is off and skips the second pass.
        temperature: Logits are divided by it; 0 is greedy.
        top_k: Keep the k likeliest tokens.
        top_p: Keep the smallest set of tokens that has this probability, in (0, 1].
        min_p: Keep tokens of at least this share of the likeliest one's probability, in [0, 1].
        steps: Calls of the network of a masked prior; 12 by default, at most one an unknown token.
        choice_temperature: Weight of the noise in which a masked prior keeps tokens; falls to 0 on
            the way.
        quantize: "int8" for weights of one byte, where reading them takes the time.

    Raises:
        ValueError: An argument is out of range.
    """

    guidance_scale: float = 1.0
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    steps: int | None = None
    choice_temperature: float = 4.5
    quantize: Quantization | None = None

    def __post_init__(self) -> None:
        for name in ("guidance_scale", "temperature", "choice_temperature"):
            if not isfinite(value := getattr(self, name)):
                raise ValueError(f"{name} is {value}, but must be a finite number")
        if self.quantize not in (None, *get_args(Quantization)):
            known = ", ".join(get_args(Quantization))
            raise ValueError(f"quantize is {self.quantize!r}, but must be None or one of {known}")
        if self.temperature < 0:
            raise ValueError(f"temperature is {self.temperature}, but must be 0 (greedy) or more")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k is {self.top_k}, but must be 1 or more; None keeps all tokens")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}, but must lie in (0, 1]; None keeps all")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p is {self.min_p}, but must lie in [0, 1]; None keeps all")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps is {self.steps}, but must be 1 or more; None for the default")
        if self.choice_temperature < 0:
            raise ValueError(
                f"choice_temperature is {self.choice_temperature}, but must be 0 (no noise) or more"
            )
