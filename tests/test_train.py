"""The commands of the YAML files, on a few steps."""

import pytest
import yaml

from pipeline import VideoPipeline

STEPS = [
    "--model.init_args.max_steps=2",
    "--data.stages=[{num_frames: 5, batch_size: 2, share: 1.0}]",
]


def test_the_demo_trains_exports_and_samples(fit, tmp_path):
    tokenizer, model = str(tmp_path / "tokenizer"), str(tmp_path / "model")
    root = [*STEPS, f"--trainer.default_root_dir={tmp_path}"]
    fit("demo_tokenizer", *root, f"--export={tokenizer}")
    for prior in ("demo_prior", "demo_maskgit"):
        fit(prior, *root, f"--export={model}", f"--model.init_args.tokenizer_folder={tokenizer}")
        pipe = VideoPipeline.from_pretrained(model)
        videos = pipe.generate(["a red circle moving left"], num_frames=5)
        assert videos.shape == (1, 5, 64, 64, 3)


@pytest.mark.parametrize(
    "key",
    [
        "modelx.init_args.max_steps",
        "model.init_args.max_stepz",
        "model.init_args.tokenizer.chanells",
        "model.init_args.tokenizer.quantizer.init_args.levelz",
        "data.train.init_args.spedd",
        "data.val_clipps",
        "trainer.max_epocs",
    ],
)
def test_a_mistyped_key_is_named(fit, key, capsys, tmp_path):
    with pytest.raises(SystemExit):
        fit("demo_tokenizer", f"--{key}=3")
    assert key.split(".")[-1] in capsys.readouterr().err.split("error:")[-1]
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(nested(key.split("."), 3)))
    with pytest.raises(SystemExit):
        fit("demo_tokenizer", f"--config={path}")
    assert key.split(".")[-1] in capsys.readouterr().err.split("error:")[-1]


def nested(keys, value):
    for key in reversed(keys):
        value = {key: value}
    return value
