import json

import pytest
import torch

from benchmarks import decoding
from data.shapes import ALL_COMBINATIONS, Shapes, render
from diffusion import DiffusionDecoder, UNet3D
from lm import MaskGITPrior, Transformer
from pipeline import VideoPipeline

SOME = ALL_COMBINATIONS[:3]


@pytest.mark.filterwarnings("ignore:prompt .* has characters")
def test_each_way_of_each_model_has_its_row(pipe, tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "ALL_COMBINATIONS", SOME)
    torch.manual_seed(0)
    pipe.decoder = DiffusionDecoder(UNet3D([32], [1]), 200, [4, 8])
    pipe.save_pretrained(tmp_path / "ar")
    masked = MaskGITPrior(Transformer(width=32, depth=1, num_heads=2), 200, [5, 4, 4])
    VideoPipeline(pipe.tokenizer, 32, 8.0, masked, pipe.text).save_pretrained(tmp_path / "masked")
    models = [str(tmp_path / name) for name in ("ar", "masked")]
    options = ["--guidance", "2", "4", "--steps", "6", "--repeats", "1", "--rounds", "1"]
    decoding.main([*models, *options, "--json", str(tmp_path / "rows.json")])
    rows = json.loads((tmp_path / "rows.json").read_text())
    drawn = ["plain", "guidance 2", "guidance 4"]
    of_first = [*drawn, "int8", "diffusion decoder"]
    of_second = [*drawn, *(f"{way}, 6 steps" for way in drawn)]
    named = [(models[0], way) for way in of_first] + [(models[1], way) for way in of_second]
    assert [(row["model"], row["way"]) for row in rows] == named
    assert all(row["seconds"] > 0 for row in rows)
    assert all(row["obeyed"] == 0 for row in rows)  # noise names no prompt
    assert all(0 <= row[word] <= 1 for row in rows for word in ("color", "shape", "direction"))


def test_true_clips_obey_all_and_what_a_way_is_told_arrives(pipe, tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "ALL_COMBINATIONS", SOME)
    true = {c.caption: render(Shapes(3).scene(i, c), 17, 64).frames for i, c in enumerate(SOME)}
    asked = []

    def generate(self, prompts, num_frames, seed=0, context=None, **told):
        asked.append(told)
        return torch.stack([true[prompt] for prompt in prompts])

    monkeypatch.setattr(VideoPipeline, "generate", generate)
    pipe.save_pretrained(tmp_path)
    rows = decoding.measure([tmp_path], [3.0], [], repeats=2, rounds=1)
    assert [row[2:6] for row in rows] == [(1, 1, 1, 1)] * 3
    assert asked[:3] == [{}, {"guidance_scale": 3.0}, {"quantize": "int8"}]
