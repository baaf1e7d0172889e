"""The commands of the YAML files, on a few steps."""

import pytest
import torch
import yaml

import train
from data.video import write_video
from pipeline import VideoPipeline
from tests.conftest import QUIET

STEPS = [
    "--model.init_args.max_steps=2",
    "--data.stages=[{num_frames: 5, batch_size: 2, share: 1.0}]",
]


def test_the_demo_trains_exports_and_samples(fit, tmp_path):
    tokenizer, model = str(tmp_path / "tokenizer"), str(tmp_path / "model")
    root = [*STEPS, f"--trainer.default_root_dir={tmp_path}"]
    fit("demo_tokenizer", *root, f"--export={tokenizer}")
    systems = "magvit", "phenaki", "videopoet", "maskvit", "lwm"
    for prior in ("demo_prior", "demo_maskgit", *(f"demo_{name}" for name in systems)):
        fit(prior, *root, f"--export={model}", f"--model.init_args.tokenizer_folder={tokenizer}")
        pipe = VideoPipeline.from_pretrained(model)
        videos = pipe.generate(["a red circle moving left"], num_frames=5)
        assert videos.shape == (1, 5, 64, 64, 3)


def test_continuous_latents_train_export_and_sample(fit, small, tmp_path):
    latents, model = tmp_path / "latents", tmp_path / "model"
    root = [*STEPS, f"--trainer.default_root_dir={tmp_path}"]
    fit("demo_latents", *small, *root, f"--export={latents}")
    root += [f"--model.init_args.tokenizer_folder={latents}", f"--export={model}"]
    root += ["--trainer.limit_val_batches=0"]  # the log's samples take 320 draws
    for prior, network in (
        ("demo_latent_diffusion", "network.init_args.width=32"),
        ("demo_token_diffusion", "transformer.width=32"),
    ):
        fit(prior, *root, f"--model.init_args.prior.init_args.{network}")
        pipe = VideoPipeline.from_pretrained(model)
        videos = pipe.generate(["a red circle moving left"], num_frames=5, steps=1)
        assert videos.shape == (1, 5, 64, 64, 3)


def test_a_prior_goes_on_with_its_own_tokenizer_alone(fit, small, tmp_path):
    options = [*STEPS, f"--trainer.default_root_dir={tmp_path}"]
    fit("demo_tokenizer", *small, *options, f"--export={tmp_path / 'own'}")
    other = VideoPipeline.from_pretrained(tmp_path / "own")
    other.tokenizer.encoder.project.weight.data.add_(1)
    other.save_pretrained(tmp_path / "other")
    options += [
        "--export=null",
        "--model.init_args.prior.transformer.width=32",
        "--trainer.limit_val_batches=0",
    ]
    fit("demo_prior", *options, f"--model.init_args.tokenizer_folder={tmp_path / 'own'}")
    options += ["--model.init_args.max_steps=3", "--ckpt_path=last"]
    with pytest.raises(ValueError, match="but the one that is given is"):
        fit("demo_prior", *options, f"--model.init_args.tokenizer_folder={tmp_path / 'other'}")
    fit("demo_prior", *options, f"--model.init_args.tokenizer_folder={tmp_path / 'own'}")


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


def test_a_model_folder_that_would_lose_a_part_is_refused_before_the_first_step(
    fit, small, tmp_path, pipe
):
    pipe.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="holds a prior, which this has not; choose another"):
        fit("demo_tokenizer", *small, *STEPS, f"--export={tmp_path / 'model'}")


def test_a_file_where_the_model_should_go_is_refused_before_the_first_step(fit, small, tmp_path):
    (tmp_path / "file").write_text("mine")
    for place in ("file", "file/model"):
        with pytest.raises(ValueError, match=r"cannot be made: .*file is a file; choose another"):
            fit("demo_tokenizer", *small, *STEPS, f"--export={tmp_path / place}")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_run_that_ends_early_writes_no_model_and_goes_on(fit, small, tmp_path, capsys):
    """What was trained before is not replaced by what a try or a limit of time left."""
    export, last = tmp_path / "model", tmp_path / "checkpoints" / "last.ckpt"
    root = [*small, *STEPS, f"--trainer.default_root_dir={tmp_path}", f"--export={export}"]
    fit("demo_tokenizer", *root)
    digest, state = (export / "manifest.json").read_text(), last.read_bytes()
    fit("demo_tokenizer", *root, "--model.init_args.max_steps=4", "--trainer.fast_dev_run=true")
    assert "stopped at step 1 of 1" not in capsys.readouterr().out
    assert [path.name for path in last.parent.iterdir()] == ["last.ckpt"]
    assert (last.read_bytes(), (export / "manifest.json").read_text()) == (state, digest)
    fit("demo_tokenizer", *root, "--model.init_args.max_steps=4", "--trainer.max_steps=3")
    assert "stopped at step 3 of 4, so no model is written" in capsys.readouterr().out
    assert (export / "manifest.json").read_text() == digest
    assert torch.load(last, weights_only=True)["state_dict"]["steps_done"] == 3
    fit("demo_tokenizer", *root, "--model.init_args.max_steps=4", "--ckpt_path=last")
    assert "model written to" in capsys.readouterr().out
    assert (export / "manifest.json").read_text() != digest


def test_a_last_checkpoint_that_is_not_there_names_those_of_earlier_runs(fit, small, tmp_path):
    root = [*small, *STEPS, f"--trainer.default_root_dir={tmp_path}", "--export=null"]
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(SystemExit, match="out to start from the beginning"):
        fit("demo_tokenizer", *root, "--ckpt_path=last")
    (tmp_path / "checkpoints" / "earlier.ckpt").write_bytes(b"")
    with pytest.raises(SystemExit, match=r"or give one of .*earlier\.ckpt"):
        fit("demo_tokenizer", *root, "--ckpt_path=last")


def test_several_processors_are_a_choice(monkeypatch):
    """The demo starts a training in its own process: more would start the demo again."""
    monkeypatch.setattr("sys.argv", ["train.py"])
    cli = train.main(["--config=configs/demo_tokenizer.yaml", *QUIET], run=False)
    assert cli.trainer.num_devices == 1


def test_stages_longer_than_the_clips_are_refused_before_the_first_step(fit, tmp_path):
    write_video(tmp_path / "a.mp4", torch.zeros(40, 16, 16, 3, dtype=torch.uint8), 8.0)
    options = [
        f"--data.{split}.init_args.{name}={value}"
        for split in ("train", "val")
        for name, value in (("path", tmp_path), ("size", 16), ("min_frames", 5))
    ]
    stages = "--data.stages=[{num_frames: 5, batch_size: 1, share: 0.5}, "
    stages += "{num_frames: 33, batch_size: 1, share: 0.5}]"
    with pytest.raises(ValueError, match="asks for 33 frames, but the shortest clip has"):
        fit("videos_tokenizer", *options, stages, "--export=null")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--data.stages=[{num_frames: 16, batch_size: 1, share: 1.0}]", "num_frames is 16"),
        ("--data.stages=[{num_frames: 1, batch_size: 1, share: 1.0, size: 60}]", "is 60 x 60"),
        (
            "--data.stages=[{num_frames: 1, batch_size: 1, share: 0.5}, {num_frames: 5, "
            "batch_size: 1, share: 0.2, size: 60, mixed: true}, {num_frames: 5, batch_size: 1, "
            "share: 0.3}]",
            "is 60 x 60 pixels, but height and width must be multiples",
        ),
        ("--trainer.precision=bf16-true", "leave precision out"),
        ("--model.init_args.recipe.decay_share=30", "decay_share is 30.0, but must be 0 to 1"),
        ("--model.init_args.recipe.learning_rate=-1", "learning_rate is -1.0, but must be 0 or"),
        ("--model.init_args.recipe.ema_decay=-1", "ema_decay is -1.0, but must be 0 to 1"),
        ("--model.init_args.quantizer_anneal_steps=-10", "anneal_steps is -10, but must be 0"),
        ("--model.init_args.tokenizer.channels=[16, 0]", "each level has 1 or more"),
        ("--model.init_args.adversary={start_step: 2}", "starts at step 2, but the run has 2"),
        (
            "--model.init_args.adversary={discriminators: [{depth: 7}]}",
            "is 64 x 64 pixels, but a discriminator of depth 7 needs 128",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_before_the_first_step(
    fit, small, tmp_path, option, words
):
    root = f"--trainer.default_root_dir={tmp_path}"
    with pytest.raises(ValueError, match=words):
        fit("demo_tokenizer", *small, *STEPS, root, "--export=null", option)


@pytest.mark.filterwarnings("ignore")
def test_the_last_checkpoint_is_what_is_validated(fit, small, tmp_path):
    root = [*small, *STEPS, f"--trainer.default_root_dir={tmp_path}"]
    command = ["validate", "--config=configs/demo_tokenizer.yaml", *QUIET, *root]
    ways = ([], ["--ckpt_path=last"])  # the same: figures of a random network help nobody
    for way in ways:
        with pytest.raises(SystemExit, match=r"does not exist; give --ckpt_path"):
            train.main([*command, *way])
    fit("demo_tokenizer", *root, "--export=null")
    assert [int(train.main([*command, *way]).model.steps_done) for way in ways] == [2, 2]


@pytest.mark.filterwarnings("ignore")
def test_long_captions_are_cut_and_it_is_said(fit, small, tmp_path):
    words = "two dogs play with a ball on the wet beach while people watch them from far away"
    for k in range(2):
        frames = torch.randint(256, (40, 64, 64, 3), dtype=torch.uint8)
        write_video(tmp_path / f"{k}.mp4", frames, 8.0)
        (tmp_path / f"{k}.txt").write_text(f"{words} {k}")
    data = [f"--data.{split}.init_args.path={tmp_path}" for split in ("train", "val")]
    model = tmp_path / "tokenizer"
    data.append(f"--trainer.default_root_dir={tmp_path}")
    fit("videos_tokenizer", *small, *STEPS, *data, f"--export={model}")
    options = ["--model.init_args.prior.transformer.width=32", "--trainer.limit_val_batches=0"]
    options += ["--model.init_args.prior.text_window=12", "--export=null"]
    command = ["fit", "--config=configs/videos_prior.yaml", *QUIET, *STEPS, *data, *options]
    command.append(f"--model.init_args.tokenizer_folder={model}")
    with pytest.warns(UserWarning, match="2 of 2 captions have more than 12 text pieces"):
        train.main(command)
