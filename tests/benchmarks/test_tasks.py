"""The table of tasks, of a model that knows every answer and of one that knows none."""

import json

import pytest
import torch

from benchmarks import tasks
from data.shapes import Shapes
from lm import AutoregressivePrior, Inputs, TextTokenizer, Transformer
from pipeline import VideoPipeline

SOURCE = Shapes(1000, "val")
FRAMES = 17


class Oracle:
    """Answers from the truth: clip i of the seed, or the one whose actions are given."""

    size = 64

    def generate(self, prompts, num_frames, seed, context, task, actions, **given):
        indices = seed if actions is None else [self.whose(one) for one in actions]
        return torch.stack([SOURCE.read(i, num_frames).frames for i in indices])

    def whose(self, actions):
        return next(i for i in range(8) if torch.equal(SOURCE.read(i, FRAMES).actions, actions))

    def caption(self, videos):
        return [SOURCE.read(i, 1).caption for i in range(len(videos))]

    def score(self, videos, prompts):
        """Prefer slow changes, which the true order has."""
        return -videos.float().diff(dim=1).abs().mean((1, 2, 3, 4))


@pytest.fixture(scope="module")
def study():
    return tasks.Study(Oracle(), 8)


@pytest.mark.parametrize("task", ["predict", "interpolate", "inpaint", "outpaint", "upscale"])
def test_the_truth_is_perfect_and_the_baseline_is_not(study, task):
    row = tasks.ROWS[task](study)
    assert row.figure == 100
    assert 8 < row.baseline_figure < 45


def test_baselines_are_what_they_are_called(study):
    flat = study.truth[:, :5]
    still = flat[:, -1:].expand(-1, 12, -1, -1, -1)
    expected = tasks.psnr(still, study.truth[:, 5:])
    assert tasks.prediction(study).baseline_figure == expected
    rows = tasks.interpolation(study)
    middle = (study.truth[:, 0].float() + study.truth[:, 16].float()) / 2
    error = (middle - study.truth[:, 8].float()).square().mean((1, 2, 3)) / 255**2
    # The middle frame is the furthest from both ends, so the mean over frames is not below it.
    assert rows.baseline_figure >= (-10 * error.log10()).mean().item() - 0.1


def test_words_actions_captions_and_order_are_judged(study):
    for task in ("generate", "class"):
        row = tasks.ROWS[task](study)
        assert (row.figure, row.baseline_figure < 0.5) == (1.0, True)
    row = tasks.rollout(study)
    assert row.figure == 100 > row.baseline_figure + 60
    assert tasks.captioning(study)[2:] == (1.0, "most common", 1 / 8)
    assert tasks.control(study).figure == 100


def test_the_object_of_a_story_starts_in_the_middle(study):
    for scene in study.scenes:
        frame = tasks._centred(scene, study)[0, 0]
        change = (frame.int() - scene.background.int()).abs().sum(-1) > 100
        rows, columns = change.nonzero().float().mean(0).tolist()
        assert rows == pytest.approx(32, abs=1.5)
        assert columns == pytest.approx(32, abs=1.5)


def test_one_command_measures_every_task(tiny_tokenizer, tmp_path, capsys):
    torch.manual_seed(0)
    names = ["generate", "interpolate", "inpaint", "outpaint", "control", "upscale", "caption"]
    inputs = Inputs(names, num_classes=65, action_ranges=[[-3.5, 3.5]] * 2)
    network = Transformer(width=32, depth=1, num_heads=2)
    prior = AutoregressivePrior(network, 200, [5, 8, 8], inputs=inputs)
    captions = Shapes(1).captions
    text = TextTokenizer.train(captions, 320)
    pipe = VideoPipeline(tiny_tokenizer, 64, 8.0, prior, text, classes=sorted(captions))
    pipe.save_pretrained(tmp_path / "model")
    arguments = [str(tmp_path / "model"), "--clips", "2", "--long-frames", "177"]
    tasks.main([*arguments, "--json", str(tmp_path / "rows.json")])
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert len(rows) == len(tasks.ROWS) + 1
    assert all(row["figure"] == row["figure"] for row in rows)  # no nan
    assert "177 frames by windows" in capsys.readouterr().out
