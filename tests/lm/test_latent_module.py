"""Training of a prior over latents: what a step reads and what is refused."""

from types import SimpleNamespace

import pytest
import torch

from data.datamodule import Batch
from data.video import to_uint8
from diffusion import UNet3D
from lm import Condition, LatentDiffusionPrior, LatentPriorModule, Sampling
from lm.text import TextTokenizer

pytestmark = pytest.mark.filterwarnings("ignore:Attribute '.*' is an instance of `nn.Module`")
CAPTIONS = ["a red circle moving left", "a blue square moving up"]


def module(tokenizer, **options):
    prior = LatentDiffusionPrior(
        UNet3D([32], [1], text_width=16), 3, [5, 4, 4], text_size=320, **options
    )
    one = LatentPriorModule(prior, "", max_steps=10)
    object.__setattr__(one, "tokenizer", tokenizer)
    one.text = TextTokenizer.train(CAPTIONS, 320)
    one._trainer = SimpleNamespace(world_size=1, global_rank=0, loggers=[])
    return one


def test_a_step_fits_the_latents_and_is_a_function_of_its_number(continuous):
    one = module(continuous)
    clip = torch.rand(2, 3, 17, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    batch = Batch(clip, CAPTIONS)
    losses = [one.objective(batch).loss for _ in range(2)]
    assert torch.equal(*losses)
    latents = continuous.encode_latents(clip).latents
    torch.testing.assert_close(one.prior.mean.flatten(), latents.mean(dim=(0, 2, 3, 4)))
    one.steps_done += 1
    assert not torch.equal(one.objective(batch).loss, losses[0])
    losses[0].backward()
    assert all(p.grad is not None for p in one.prior.project.parameters())


def test_latents_become_clips(continuous):
    one = module(continuous)
    texts = [one.text.encode(caption) for caption in CAPTIONS]
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    latents = one.prior.sample(Condition(texts), generators, sampling=Sampling(steps=2))
    assert continuous.decode_latents(latents).shape == (2, 3, 17, 32, 32)


def test_validation_shows_what_the_tokenizer_keeps_above_what_is_sampled(continuous, monkeypatch):
    one, shown = module(continuous), []
    one.prior.steps = 1
    monkeypatch.setattr("lm.frozen.log_clips", lambda *arguments: shown.append(arguments))
    clip = torch.rand(2, 3, 5, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    latents, texts = one._read(Batch(clip, CAPTIONS))
    one._log_pictures(latents, texts)
    rows = shown[0][2]
    kept = to_uint8(continuous.decode_latents(latents).clamp(-1, 1))
    assert rows.shape == (4, 5, 32, 32, 3)
    assert torch.equal(rows[::2], kept)
