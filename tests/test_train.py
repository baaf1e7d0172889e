"""The commands of the YAML files, on a few steps."""

import warnings

import pytest

import train
from pipeline import VideoPipeline

QUIET = [
    "--trainer.val_check_interval=2",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.logger=false",
    "--trainer.enable_checkpointing=false",
    "--model.init_args.max_steps=2",
    "--data.val_clips=2",
]


def fit(config: str, *arguments: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning warns of few workers and of its own imports.
        train.main(["fit", f"--config=configs/{config}.yaml", *QUIET, *arguments])


@pytest.mark.timeout(300)
def test_the_demo_trains_exports_and_samples(tmp_path):
    tokenizer, model = str(tmp_path / "tokenizer"), str(tmp_path / "model")
    root = f"--trainer.default_root_dir={tmp_path}"
    fit("demo_tokenizer", root, f"--export={tokenizer}")
    fit("demo_prior", root, f"--export={model}", f"--model.init_args.tokenizer_folder={tokenizer}")
    pipe = VideoPipeline.from_pretrained(model)
    videos = pipe.generate(["a red circle moving left"], num_frames=5)
    assert videos.shape == (1, 5, 64, 64, 3)


def test_a_mistyped_key_is_named(capsys):
    with pytest.raises(SystemExit):
        fit("demo_tokenizer", "--model.init_args.tokenizer.chanells=[8,8]")
    assert "chanells" in capsys.readouterr().err
