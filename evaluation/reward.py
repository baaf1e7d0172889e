"""The prior as a reward: VIPER, Escontrela et al. 2023, arXiv 2305.14343.

An agent is paid for making what the prior, trained on videos of the task done well, expects.
"""

from collections import deque
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
import torch

from data.resizing import resize_and_crop
from evaluation.likelihood import bits_of


class LikelihoodReward(gymnasium.Wrapper):
    """Pay the log-likelihood of what is seen, in bits of the newest latent frame.

    Every s-th step (s the tokenizer's temporal stride) completes a latent frame and is paid
    -bits / tokens; the steps between are paid 0. The window holds the last frames that the prior
    was trained to see.

    Args:
        env: Renders as `rgb_array`.
        model: A pipeline with an autoregressive prior.
        scale: Multiplies the reward.
        keep: Share of the environment's own reward that is added.
    """

    def __init__(
        self, env: gymnasium.Env, model: Any, scale: float = 1.0, keep: float = 0.0
    ) -> None:
        super().__init__(env)
        if not hasattr(model.prior, "score"):
            raise ValueError("the reward is a likelihood; use a model with an autoregressive prior")
        if env.render_mode != "rgb_array":
            raise ValueError(
                f"render_mode is {env.render_mode!r}; make the environment with 'rgb_array'"
            )
        self.model, self.scale, self.keep = model, scale, keep
        self.stride = model.tokenizer.temporal_stride
        self.tokens = model.prior.grid[1] * model.prior.grid[2]
        self.frames: deque[torch.Tensor] = deque(maxlen=1 + self.stride * (model.prior.grid[0] - 1))
        self.steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start again, with an empty past."""
        observation, info = self.env.reset(seed=seed, options=options)
        self.frames.clear()
        self.steps = 0
        self._see()
        return observation, info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Act, look, and pay."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._see()
        self.steps += 1
        paid = self.keep * float(reward)
        if self.steps % self.stride == 0:
            info["bits"] = self._bits()
            paid -= self.scale * info["bits"] / self.tokens
        return observation, paid, terminated, truncated, info

    def _see(self) -> None:
        picture = torch.from_numpy(np.array(self.env.render()))
        self.frames.append(resize_and_crop(picture[None], self.model.size)[0])

    def _bits(self) -> float:
        clip = torch.stack(list(self.frames))
        length = 1 + (len(clip) - 1) // self.stride * self.stride
        return float(bits_of(self.model, clip[None, -length:])[0, -1])
