"""The reward is the prior's own score of what was rendered."""

import math

import numpy as np
import pytest
import torch

gymnasium = pytest.importorskip("gymnasium")

from data.video import to_model_range  # noqa: E402
from evaluation.reward import LikelihoodReward  # noqa: E402


class Noise(gymnasium.Env):
    """Shows one random picture after another, and pays 1 a step."""

    render_mode = "rgb_array"
    action_space = gymnasium.spaces.Discrete(2)
    observation_space = gymnasium.spaces.Discrete(2)

    def __init__(self):
        generator = np.random.default_rng(0)
        self.pictures = generator.integers(256, size=(40, 32, 32, 3), dtype=np.uint8)
        self.time = 0

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return 0, {}

    def step(self, action):
        self.time += 1
        return 0, 1.0, False, False, {}

    def render(self):
        return self.pictures[self.time]


def test_every_stride_pays_the_bits_of_the_newest_latent_frame(pipe):
    env = LikelihoodReward(Noise(), pipe, scale=2.0, keep=0.5)
    env.reset()
    paid = [env.step(0)[1] for _ in range(24)]
    stride = pipe.tokenizer.temporal_stride
    assert [p == 0.5 for p in paid] == [(k + 1) % stride != 0 for k in range(24)]
    # After 24 steps the window holds frames 8 to 24.
    clip = torch.from_numpy(env.unwrapped.pictures[8:25])[None]
    tokens = pipe.tokenizer.encode(to_model_range(clip))
    nats = pipe.prior.score(tokens, pipe.condition(None, 1))[0, -16:].sum().item()
    assert paid[-1] == pytest.approx(0.5 + 2 * nats / math.log(2) / 16, rel=1e-5)


def test_a_new_episode_forgets_the_last(pipe):
    env = LikelihoodReward(Noise(), pipe)
    runs = []
    for _ in range(2):
        env.reset()
        runs.append([env.step(0)[1] for _ in range(8)])
    assert runs[0] == runs[1]


def test_what_cannot_pay_is_refused(pipe):
    env = Noise()
    env.render_mode = "human"
    with pytest.raises(ValueError, match="render_mode is 'human'"):
        LikelihoodReward(env, pipe)
    pipe.prior = None
    with pytest.raises(ValueError, match="the reward is a likelihood"):
        LikelihoodReward(Noise(), pipe)
