"""Any sequence of numbers may stand before the video: here loudness moves an object."""

import pytest
import torch
from einops import rearrange, reduce

from lm import AutoregressivePrior, Condition, Inputs, Transformer

FRAMES, COLUMNS, SAMPLES = 3, 4, 400


def sounds(count, seed):
    """Draw noise of changing loudness, and clips whose object stands as far right as it is loud."""
    generator = torch.Generator().manual_seed(seed)
    column = torch.randint(COLUMNS, (count, FRAMES), generator=generator)
    noise = torch.randn(count, FRAMES * SAMPLES, generator=generator)
    level = (column / (COLUMNS - 1)).repeat_interleave(SAMPLES, dim=1)
    tokens = torch.nn.functional.one_hot(column, COLUMNS)
    return level * noise, rearrange(tokens, "b t w -> b t 1 w")


def loudness(sound):
    """Return the root mean square over the time of each latent frame."""
    power = reduce(sound.square(), "b (t n) -> b t 1", "mean", n=SAMPLES)
    return power.sqrt()


def test_loudness_moves_the_object():
    torch.manual_seed(0)
    prior = AutoregressivePrior(
        Transformer(width=32, depth=2, num_heads=2),
        codebook_size=2,
        grid=[FRAMES, 1, COLUMNS],
        text_window=1,
        inputs=Inputs(feature_size=1),
    )
    optimizer = torch.optim.Adam(prior.parameters(), 0.003)
    for step in range(200):
        sound, tokens = sounds(32, step)
        condition = Condition([[] for _ in tokens], features=loudness(sound))
        optimizer.zero_grad()
        prior.loss(tokens, condition).backward()
        torch.nn.utils.clip_grad_norm_(prior.parameters(), 0.5)
        optimizer.step()
    sound, truth = sounds(64, 1000)
    generators = [torch.Generator().manual_seed(i) for i in range(64)]
    condition = Condition([[] for _ in truth], features=loudness(sound))
    made = prior.eval().sample(condition, generators)
    right = (made == truth).all(-1).float().mean().item()
    assert right > 0.9
    other = (made == truth.roll(1, 0)).all(-1).float().mean().item()
    assert other == pytest.approx(1 / COLUMNS, abs=0.12)
