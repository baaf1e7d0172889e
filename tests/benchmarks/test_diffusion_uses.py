"""The table of what a diffusion decoder can do else, of decoders that know nothing yet."""

import json

import pytest
import torch

from benchmarks import diffusion_recipes, diffusion_uses
from benchmarks.diffusion_measure import overlap
from benchmarks.diffusion_uses import Uses
from data.shapes import ALL_COMBINATIONS
from diffusion import DiffusionDecoder, UNet3D
from lm import AutoregressivePrior, TextTokenizer, Transformer
from pipeline import VideoPipeline
from tokenizer import FSQ, Tokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The demo's model, tokenizer and prior in small; its decoder gives what the CNN gives."""
    torch.manual_seed(0)
    tokenizer = Tokenizer(
        FSQ([5, 5, 5, 5]), channels=[16, 32], encoder_depths=[1, 1], decoder_depths=[1, 1]
    )
    tokenizer.calibrate(torch.rand(4, 3, 5, 64, 64) * 2 - 1)
    prior = AutoregressivePrior(Transformer(32, 1, 2), codebook_size=625, grid=[5, 8, 8])
    text = TextTokenizer.train([one.caption for one in ALL_COMBINATIONS], 320)
    decoder = DiffusionDecoder(UNet3D([96, 192], [1, 2]), 625, [4, 8])
    folder = tmp_path_factory.mktemp("uses") / "model"
    VideoPipeline(tokenizer, 64, 8.0, prior, text, decoder=decoder).save_pretrained(folder)
    return folder


@pytest.fixture
def uses(model, tmp_path):
    return Uses(model, tmp_path, steps=1, clips=8, decoder_steps=1)


def test_untrained_windows_join_as_the_cnn_does(uses):
    given, guided = uses.seams()
    # One pass of the CNN knows no windows: its seams are like any other latent frame's beginning,
    # and one step from pure noise leaves nothing to be guided.
    assert given.figure == pytest.approx(given.baseline_figure, rel=0.2)
    assert guided.figure == pytest.approx(given.figure, rel=0.01)
    assert guided.figure == pytest.approx(guided.baseline_figure, rel=0.01)


def test_a_training_of_other_steps_or_on_another_model_is_not_taken_for_this_one(uses, monkeypatch):
    monkeypatch.setattr(diffusion_recipes, "opened", lambda folder: folder)
    root = uses.out / "edit"
    root.mkdir()
    (root / "seconds.json").write_text('{"seconds": 1.0, "cpu_seconds": 1.0, "done": true}')
    held = {"max_steps": uses.steps, "tokenizer_folder": str(uses.model)}
    (root / "config.yaml").write_text(json.dumps({"model": {"init_args": held}}))
    assert uses.trained("edit", "edit_decoder") == root / "model"
    longer = Uses(uses.model, uses.out, steps=2, clips=8)
    with pytest.raises(ValueError, match="max_steps 1, but 2 is asked for; give another --out"):
        longer.trained("edit", "edit_decoder")
    other = Uses(uses.model / "other", uses.out, steps=1, clips=8)
    with pytest.raises(ValueError, match=r"tokenizer_folder .*; give another --out"):
        other.trained("edit", "edit_decoder")


def test_windows_are_looked_at_in_one_clip_at_least(uses):
    uses.clips = 2
    assert len(uses.seams()) == 2


@pytest.mark.parametrize("name", ["larger", "faster"])
def test_an_untrained_cascade_is_its_baseline(uses, name, monkeypatch):
    untrained = DiffusionDecoder(
        UNet3D([32], [1]), 625, [4, 8], enlarge=diffusion_recipes.CASCADES[name][0]
    )

    def trained(name, recipe):
        pipe = VideoPipeline.from_pretrained(uses.model)
        untrained.attach(pipe.tokenizer)
        pipe.decoder = untrained.eval()
        return pipe

    monkeypatch.setattr(uses, "trained", trained)
    uses.clips = 4
    rows = uses.cascade(name)
    assert len(rows) == 6
    for row in rows:
        assert row.figure == pytest.approx(row.baseline_figure, rel=0.01, abs=0.01)


def test_an_overlap_is_of_what_is_in_either():
    found, wanted = torch.zeros(1, 1, 1, 4, 4), torch.zeros(1, 1, 1, 4, 4)
    found[..., :2, :], wanted[..., 1:3, :] = 1, 1
    assert overlap(found, wanted) == pytest.approx(4 / 12)
    assert overlap(wanted, wanted) == 1


def test_a_decoder_without_control_is_its_baseline(uses, monkeypatch):
    """And what is steered does find the edges that it is shown."""
    monkeypatch.setattr(
        uses, "trained", lambda name, recipe: VideoPipeline.from_pretrained(uses.model)
    )
    shown = uses.clip(17)

    def decode(self, tokens, seed, steps, *, control=None):
        return self.tokenizer.decode(tokens) if control is None else shown[: len(tokens)]

    monkeypatch.setattr(DiffusionDecoder, "decode", decode)
    own, other = uses.controls()
    assert own.figure == 1 > own.baseline_figure
    assert other.figure < 1


@pytest.mark.filterwarnings("ignore:Attribute '.*' is an instance of `nn.Module`")
@pytest.mark.parametrize(
    ("use", "count"), [("control", 2), ("fewer", 6), ("larger", 6), ("faster", 6)]
)
def test_each_recipe_trains_on_the_model(model, tmp_path, use, count):
    arguments = ["--steps", "1", "--decoder-steps", "1", "--clips", "2", "--out", str(tmp_path)]
    assert len(diffusion_uses.main([str(model), *arguments, "--uses", use])) == count


@pytest.mark.filterwarnings("ignore:Attribute '.*' is an instance of `nn.Module`")
def test_the_command_trains_the_recipes_and_tells_what_they_do(model, tmp_path, monkeypatch):
    monkeypatch.setattr(diffusion_uses, "STRENGTHS", (1.0,))
    arguments = [
        str(model),
        "--steps",
        "1",
        "--decoder-steps",
        "1",
        "--clips",
        "2",
        "--out",
        str(tmp_path),
    ]
    told = ["--json", str(tmp_path / "rows.json"), "--uses", "edit", "extension"]
    rows = diffusion_uses.main([*arguments, *told])
    assert [row.task for row in rows] == [
        "edit, strength 0",
        "edit, strength 1",
        "edit, another clip",
        "extension without tokens, reconstruction guidance",
    ]
    written = json.loads((tmp_path / "rows.json").read_text())
    assert written == [row._asdict() for row in rows]
    as_they_are, _, others, _ = rows
    assert as_they_are.baseline_figure > 60 > 30 > others.baseline_figure
    # A second call measures again what is trained already.
    assert diffusion_uses.main([*arguments, *told]) == rows
