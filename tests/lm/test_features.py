"""Any sequence of numbers may stand before the video: here loudness moves an object."""

import pytest
import torch
from einops import rearrange, reduce

from data.datamodule import Batch, VideoDataModule, WindowDataset, collate
from data.schedule import Stage, Window
from data.source import ClipSource, Place, Sample
from lm import AutoregressivePrior, Condition, Inputs, PriorModule, Sampling, Transformer
from pipeline import VideoPipeline
from tests.conftest import quiet_trainer
from training.module import Recipe

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


class Lamp(ClipSource):
    """A lamp as bright as a sound is loud, which is silent or not in each of two latent frames."""

    fps = 8.0
    captions = property(lambda source: [])

    def __len__(self):
        return 4

    def place(self, index, num_frames, offset=0.0, stride=1):
        return Place(str(index), 0, 1)

    def read(self, index, num_frames, offset=0.0, stride=1):
        level = torch.tensor([index // 2, index % 2]).float()
        frames = level[[0, 1, 1, 1, 1], None, None, None].expand(5, 32, 32, 3)
        place = self.place(index, num_frames)
        return Sample((250 * frames).to(torch.uint8), "", place, features=level[:, None])


def lamp_prior():
    torch.manual_seed(0)
    network, inputs = Transformer(width=32, depth=2, num_heads=2), Inputs(feature_size=1)
    return AutoregressivePrior(network, 200, [2, 4, 4], text_window=1, inputs=inputs)


# Without the command line, Lightning warns that networks are saved as hyperparameters too.
@pytest.mark.filterwarnings("ignore")
def test_features_that_clips_bring_are_learnt_in_training(tmp_path, tiny_tokenizer):
    VideoPipeline(tiny_tokenizer, 32, 8.0).save_pretrained(tmp_path)
    prior, recipe = lamp_prior(), Recipe(learning_rate=0.01, warmup_steps=5)
    trainer = quiet_trainer(tmp_path)
    data = VideoDataModule(Lamp(), Lamp(), [Stage(5, 4)], max_steps=80, val_clips=4)
    trainer.fit(PriorModule(prior, str(tmp_path), 80, recipe=recipe), data)
    batch = collate([WindowDataset(Lamp())[Window(index, 5, 0.0)] for index in range(4)])
    truth = tiny_tokenizer.encode(batch.clip)
    condition = Condition([[]] * 4, features=batch.features)
    greedy = Sampling(temperature=0.0)
    made = prior.eval().sample(condition, [torch.Generator()] * 4, sampling=greedy)
    assert (made == truth).float().mean() > 0.8
    assert (made == truth.flip(0)).float().mean() < 0.2


@pytest.mark.filterwarnings("ignore:Attribute '.*' is an instance of `nn.Module`")
@pytest.mark.parametrize("features", [None, torch.zeros(1, 3, 1)])
def test_clips_without_a_row_for_each_latent_frame_are_refused(features):
    module = PriorModule(lamp_prior(), "nowhere", 10)
    batch = Batch(torch.zeros(1, 3, 5, 32, 32), [""], features=features)
    with pytest.raises(ValueError, match="rows of them for 2 latent frames; train on videos"):
        module._condition(batch, "generate", 2, torch.Generator())


def test_clips_with_features_are_no_batch_with_others():
    readings = [WindowDataset(Lamp())[Window(index, 5, 0.0)] for index in range(2)]
    assert collate(readings).first(1).features.tolist() == [[[0.0], [0.0]]]
    readings[1] = readings[1]._replace(sample=readings[1].sample._replace(features=None))
    with pytest.raises(ValueError, match="1 of 2 clips of a batch have features"):
        collate(readings)
