"""The study's models build, no part is done twice, and its verdict follows its table."""

import json
import subprocess
import sys

import pytest
import torch
from jsonargparse import ArgumentParser

from benchmarks import prediction_study, train_once
from benchmarks.prediction_study import ROWS, Line, beaten, lines, markdown
from data.source import ClipSource
from training.module import TrainedModule


@pytest.mark.filterwarnings("ignore:Attribute '.*' is an instance of `nn.Module`")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_model_builds_and_a_prior_fits_its_tokenizer(row, tmp_path):
    configs = (
        prediction_study.tokenizer_config(row.data, row.bottleneck, 7),
        prediction_study.prior_config(row, tmp_path, 9),
        prediction_study.decoder_config(row, tmp_path, 11),
    )
    parser = ArgumentParser()
    parser.add_subclass_arguments(TrainedModule, "model")
    parser.add_subclass_arguments(ClipSource, "train")
    models = []
    for config in configs:
        given = {"model": config["model"], "train": config["data"]["train"]}
        with torch.device("meta"):
            built = parser.instantiate(parser.parse_object(given))
        models.append(built["model"])
        assert type(built["train"]).__name__ == prediction_study.SOURCES[row.data]
    tokenizer, prior, decoder = models
    assert [model.max_steps for model in models] == [7, 9, 11]
    assert tokenizer.tokenizer.codebook_size == decoder.decoder.codebook_size
    assert tokenizer.tokenizer.codebook_size == prior.prior.vocabulary.codebook_size
    assert type(tokenizer.tokenizer.quantizer).__name__ == row.bottleneck
    assert ("MaskGIT" in type(prior.prior).__name__) == (row.prior == "MaskGIT")


def figure(low, high, up=True):
    middle = (low + high) / 2
    return {"value": middle, "low": low, "high": high, "higher_is_better": up}


def answer(model, baselines):
    """A result of evaluate.py with these PSNRs and, falling, distances."""
    both = lambda low, high: {
        "figures": {
            "psnr_frame": figure(low, high),
            "frechet_rand3d-seed0": figure(-high, -low, up=False),
        }
    }
    systems = {"model": both(*model), **{k: both(*v) for k, v in baselines.items()}}
    return {"systems": systems, "commit": "abc", "counts": {"units": 4}}


@pytest.fixture
def found():
    known = {"copy_last": (10, 12), "nearest_train": (13, 15), "real": (99, 100)}
    shapes = {row: answer((16, 18), known) for row in ROWS if row.data == "captioned shapes"}
    return shapes | {ROWS[-1]: answer((14, 18), known)}


def test_a_baseline_is_beaten_only_outside_its_interval(found):
    told = beaten(lines(found))
    names = ("psnr_frame", "frechet_rand3d-seed0")
    assert told == {
        "captioned shapes": dict.fromkeys(names, True),
        "moving digits": dict.fromkeys(names, False),  # 14 to 18 reaches into 13 to 15
    }


def test_the_table_has_each_baseline_once_and_no_truth(found, tmp_path):
    table = lines(found)
    systems = [line.system for line in table if line.data == "captioned shapes"]
    models = ["FSQ, AR", "FSQ, AR, diffusion", "FSQ, MaskGIT", "LFQ, AR", "VQ, AR"]
    assert systems == [*models, "copy_last", "nearest_train"]
    prediction_study.write(tmp_path, found, 600.0)
    page = (tmp_path / "prediction_study.md").read_text()
    assert "commit abc; 10 minutes of training" in page
    assert page.count("| copy_last | 11 (10 to 12) |") == 2
    assert (
        "moving digits FSQ with AR beats every baseline, outside all intervals, in: nothing" in page
    )
    stored = json.loads((tmp_path / "prediction_study.json").read_text())
    assert len(stored["table"]) == len(ROWS) + 2 * 2


def test_bits_of_a_masked_prior_say_what_they_are():
    bits = prediction_study._chosen({"pseudo_bits_per_token": figure(2, 4, up=False)})
    table = [Line("d", "FSQ, AR", {}), Line("d", "FSQ, MaskGIT", bits)]
    assert "3 (2 to 4) (pseudo) |" in markdown(table, "")
    plain = prediction_study._chosen({"bits_per_token": figure(2, 4, up=False)})
    assert "pseudo" not in markdown([Line("d", "FSQ, AR", plain)], "")


def test_a_training_is_done_once_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    asked, codes = [], [1, 0, 0]  # the second is told to end: a 0, but no model

    popen = subprocess.Popen

    def started(command, env):
        asked.append((command, env.get("OMP_NUM_THREADS")))
        (tmp_path / "run/checkpoints").mkdir(exist_ok=True)
        (tmp_path / "run/checkpoints/last.ckpt").touch()
        if len(asked) == 3:
            (tmp_path / "run/model").mkdir()
        work = f"import sys; sum(range(2_000_000)); sys.exit({codes.pop(0)})"
        return popen([sys.executable, "-c", work])

    monkeypatch.setattr(train_once.subprocess, "Popen", started)
    config = {"trainer": {}, "model": {}}
    for _ in range(2):
        with pytest.raises(SystemExit, match="the same command goes on from there"):
            train_once.train_once(config, tmp_path / "run")
    first = json.loads((tmp_path / "run/seconds.json").read_text())
    assert 0 < first["cpu_seconds"] < 2 * first["seconds"]
    assert train_once.train_once(config, tmp_path / "run", 1) >= first["seconds"]
    train_once.train_once(config, tmp_path / "run")
    assert ["--ckpt_path=last" in command for command, _ in asked] == [False, True, True]
    assert asked[2][1] == "1"
    assert config["export"] == str(tmp_path / "run/model")
