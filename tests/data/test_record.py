"""Episodes hold what happened: each frame with the action that led to it and what it paid."""

import numpy as np
import pytest
import torch

gymnasium = pytest.importorskip("gymnasium")

from data import ShardFolder, Stage, record  # noqa: E402
from data.datamodule import VideoDataModule  # noqa: E402


class Paint(gymnasium.Env):
    """Its picture is as bright as the sum of what was done; an episode ends at 20 steps."""

    metadata = {"render_modes": ["rgb_array", "human"]}  # noqa: RUF012
    observation_space = gymnasium.spaces.Discrete(1)

    def __init__(self, render_mode=None, choices=0):
        self.render_mode, self.choices = render_mode, choices
        box = gymnasium.spaces.Box(-3, 3, (2,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(choices) if choices else box

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.level, self.steps = float(self.np_random.integers(80, 120)), 0
        return 0, {}

    def step(self, action):
        self.level += float(np.sum(action))
        self.steps += 1
        return 0, float(np.sum(action)) / 2, self.steps == 20, False, {}

    def render(self):
        level = np.uint8(round(self.level))
        return np.full((48, 32, 3), level) if self.render_mode == "rgb_array" else None


@pytest.fixture(autouse=True)
def registered():
    gymnasium.register("Paint-v0", Paint, disable_env_checker=True)
    yield
    del gymnasium.registry["Paint-v0"]


def played(folder, *options):
    record.main(["Paint-v0", str(folder), "--size=16", *options])
    source = ShardFolder(str(folder), min_frames=1)
    rewards = [
        source.reader.read_array(source.stored(i), "rewards.npy") for i in range(len(source))
    ]
    return source, rewards


def test_every_frame_is_where_its_action_led(tmp_path):
    source, rewards = played(tmp_path / "out", "--episodes=6", "--frames=50")
    assert len(source) == 6
    for index in range(6):
        sample = source.read(index, 21)  # 20 steps
        levels = sample.frames[:, 0, 0, 0].double()
        assert sample.actions.shape == (21, 2)
        moved = sample.actions.double().sum(1)
        expected = levels[0] + moved.cumsum(0)
        assert (levels - expected).abs().max() <= 1
        assert (sample.actions[0] == 0).all()
        assert rewards[index] == pytest.approx((moved / 2).numpy(), abs=1e-5)
    starts = {int(source.read(index, 1).frames[0, 0, 0, 0]) for index in range(6)}
    assert len(starts) > 1


def test_episodes_are_cut_and_actions_held(tmp_path):
    source, _ = played(tmp_path / "out", "--episodes=8", "--frames=16", "--hold=4")
    actions = torch.stack([source.read(index, 16).actions[1:] for index in range(8)])
    same = (actions.diff(dim=1) == 0).all(-1).float().mean()
    assert {source.length(index) for index in range(8)} == {16}
    assert same == pytest.approx(1 - 1 / 4, abs=0.15)


def test_an_episode_is_a_function_of_the_seed_and_its_number(tmp_path):
    """So a run that was stopped ends with the same bytes."""
    played(tmp_path / "out", "--episodes=40", "--frames=5")
    whole = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    for name in ("shard-000001.tar", "shard-000001.jsonl"):
        (tmp_path / "out" / name).unlink()
    manifest = tmp_path / "out" / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes().splitlines(keepends=True)[0])
    played(tmp_path / "out", "--episodes=40", "--frames=5")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == whole
    played(tmp_path / "other", "--episodes=40", "--frames=5", "--seed=1")
    assert (tmp_path / "other/shard-000001.tar").read_bytes() != whole["shard-000001.tar"]
    with pytest.raises(ValueError, match="begun with another kind"):
        played(tmp_path / "out", "--episodes=40", "--frames=5", "--seed=1")


def test_training_batches_bring_the_actions(tmp_path):
    source, _ = played(tmp_path / "out", "--episodes=4", "--frames=9")
    data = VideoDataModule(source, source, [Stage(5, 4)], max_steps=1, val_clips=4)
    (batch,) = data.val_dataloader()
    assert batch.actions.shape == (4, 5, 2)
    brightness = (batch.clip[:, 0, :, 0, 0] + 1) * 127.5
    moved = batch.actions.sum(2)
    assert (brightness.diff(dim=1) - moved[:, 1:]).abs().max() <= 1.01


def test_a_choice_is_written_as_its_index():
    assert record.as_row(3).tolist() == [3]
    assert record.as_row(np.array([[1, 2], [3, 4]])).tolist() == [1, 2, 3, 4]


def test_what_cannot_be_recorded_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'Nothing-v0' cannot be made .*; use minigrid, crafter"):
        record.main(["Nothing-v0", str(tmp_path / "out")])
    with pytest.raises(ValueError, match=r"hold is 0\.5, but must be at least 1"):
        record.main(["Paint-v0", str(tmp_path / "out"), "--hold=0.5"])
    with pytest.raises(ValueError, match="not pictures; choose one that renders as rgb_array"):
        record.play(Paint("human"), record.Recording("Paint-v0"), 0)


@pytest.mark.filterwarnings("ignore")  # of the packages themselves
@pytest.mark.parametrize(("name", "choices"), [("minigrid", 7), ("crafter", 17)])
def test_known_games_are_played(tmp_path, name, choices):
    pytest.importorskip(name)
    record.main([name, str(tmp_path / "out"), "--episodes=2", "--frames=12"])
    source = ShardFolder(str(tmp_path / "out"), min_frames=12)
    sample = source.read(0, 12)
    assert sample.frames.shape == (12, 64, 64, 3)
    assert set(sample.actions[:, 0].tolist()) <= set(range(choices))
    assert not torch.equal(sample.frames, source.read(1, 12).frames)
    again = next(record.episodes(record.Recording(name, 12), 1, 2))
    assert np.array_equal(source.read(1, 12).frames.numpy(), again.frames)
