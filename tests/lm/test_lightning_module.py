"""Training of a mixture of tasks: which step has which, on what data, and resumed."""

import copy
import subprocess
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from torch.utils.data import DataLoader

from data.datamodule import Batch
from data.token_datamodule import TokenBatch
from lm import AutoregressivePrior, Condition, Inputs, MaskGITPrior, PriorModule, Transformer
from lm.tasks import check_sliding
from pipeline import VideoPipeline
from tests.conftest import quiet_trainer
from tokenizer import VQ, Tokenizer

MIXTURE = {"generate": 2.0, "interpolate": 1.0, "caption": 1.0}


# Without the command line, Lightning warns that networks are saved as hyperparameters too.
pytestmark = pytest.mark.filterwarnings("ignore:Attribute '.*' is an instance of `nn.Module`")


@pytest.fixture
def module():
    return new_module(MIXTURE)


def new_module(tasks):
    inputs = Inputs(["generate", "interpolate", "caption"])
    prior = AutoregressivePrior(Transformer(32, 1, 2), 200, [2, 4, 4], inputs=inputs)
    return PriorModule(prior, "nowhere", max_steps=10, tasks=tasks)


def test_a_step_has_its_task_whatever_came_before(module):
    drawn = [module.task_of(step) for step in range(4000)]
    assert [module.task_of(step) for step in (17, 3)] == [drawn[17], drawn[3]]
    names, counts = np.unique(drawn, return_counts=True)
    seen = dict(zip(names.tolist(), counts.tolist(), strict=True))
    for task, weight in MIXTURE.items():
        assert seen[task] / 4000 == pytest.approx(weight / 4, abs=0.03)
    module.seed = 1
    assert [module.task_of(step) for step in range(4000)] != drawn


def test_a_mixture_without_its_inputs_is_refused():
    with pytest.raises(ValueError, match="add inpaint"):
        new_module({"inpaint": 1.0})


def test_guides_of_another_tokenizer_need_its_folder():
    inputs = Inputs(["generate", "upscale"], guide_codebook_size=50)
    prior = AutoregressivePrior(Transformer(32, 1, 2), 200, [2, 4, 4], inputs=inputs)
    with pytest.raises(ValueError, match=r"reads guides of 50 codes, but .* has 200"):
        PriorModule(prior, "nowhere", max_steps=10, tasks={"upscale": 1.0})
    PriorModule(prior, "nowhere", 10, tasks={"upscale": 1.0}, guide_tokenizer_folder="elsewhere")


def test_processes_hide_other_tokens_in_the_same_task(tiny_tokenizer, clip):
    torch.manual_seed(0)
    prior = MaskGITPrior(Transformer(32, 1, 2), 200, [5, 4, 4])
    one = PriorModule(prior, "nowhere", max_steps=10)
    for name in ("tokenizer", "guide_tokenizer"):
        object.__setattr__(one, name, tiny_tokenizer)
    losses = {}
    for world_size, rank in ((1, 0), (2, 0), (2, 1)):
        one._trainer = SimpleNamespace(world_size=world_size, global_rank=rank)
        losses[world_size, rank] = one.objective(Batch(clip, [""])).loss.item()
    assert losses[1, 0] == losses[2, 0] != losses[2, 1]


@pytest.mark.parametrize("grid", [[4, 4, 4], [5, 8, 8]])
def test_clips_that_are_no_part_of_the_window_are_refused(tiny_tokenizer, clip, grid):
    one = PriorModule(AutoregressivePrior(Transformer(32, 1, 2), 200, grid), "nowhere", 10)
    one._trainer = SimpleNamespace(world_size=1, global_rank=0)
    object.__setattr__(one, "tokenizer", tiny_tokenizer)
    with pytest.raises(ValueError, match=r"clips are \[5, 4, 4\] tokens, but the prior's grid"):
        one.objective(Batch(clip, [""]))


def seen_by(prior, tokenizer, batch, task="generate"):
    """Return the tokens that a step of training gives a prior."""
    seen = []
    loss = prior.loss
    prior.loss = lambda tokens, *rest: seen.append((tokens, rest[-1])) or loss(tokens, *rest)
    one = PriorModule(prior, "nowhere", 10, tasks={task: 1.0})
    one._trainer = SimpleNamespace(world_size=1, global_rank=0)
    object.__setattr__(one, "tokenizer", tokenizer)
    object.__setattr__(one, "guide_tokenizer", None)
    one.objective(batch)
    return seen[0]


def test_a_sliding_prior_learns_windows_of_the_stream_of_longer_clips(tiny_tokenizer):
    clip = torch.rand(8, 3, 33, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    stream = tiny_tokenizer.encode(clip)
    prior = AutoregressivePrior(Transformer(32, 1, 2), 200, [5, 4, 4], slides=True)
    seen, given = seen_by(prior, tiny_tokenizer, Batch(clip, [""] * 8))
    cached = seen_by(prior, tiny_tokenizer, TokenBatch(stream, [""] * 8, ()))
    assert torch.equal(cached[0], seen)
    starts = [
        [first for first in range(5) if torch.equal(row[first : first + 5], window)]
        for row, window in zip(stream, seen, strict=True)
    ]
    assert all(len(found) == 1 for found in starts)
    assert {found[0] for found in starts} > {0}
    assert given.tolist() == [2 * (found[0] > 0) for found in starts]


def test_tasks_of_numbered_frames_keep_to_the_start_of_longer_clips(tiny_tokenizer):
    clip = torch.rand(8, 3, 33, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    inputs = Inputs(["inpaint"])
    prior = AutoregressivePrior(Transformer(32, 1, 2), 200, [5, 4, 4], inputs=inputs, slides=True)
    seen, given = seen_by(prior, tiny_tokenizer, Batch(clip, [""] * 8), "inpaint")
    assert torch.equal(seen, tiny_tokenizer.encode(clip)[:, :5])
    assert given is None


def test_a_prior_that_would_learn_no_window_but_the_first_does_not_slide():
    generate, features = {"generate": 1.0}, Inputs(feature_size=2)
    check_sliding(generate, Inputs(), 33, 17)
    for tasks, inputs, num_frames in (
        (generate, Inputs(), 17),
        (generate, features, 33),
        ({"rollout": 1.0}, Inputs(), 33),
    ):
        with pytest.raises(ValueError, match=r"longer than its 17 .* leave slides out"):
            check_sliding(tasks, inputs, num_frames, 17)


def test_latent_frames_that_are_given_are_no_part_of_the_loss():
    torch.manual_seed(0)
    prior = AutoregressivePrior(Transformer(32, 1, 2), 200, [5, 4, 4])
    tokens, condition = torch.randint(200, (2, 5, 4, 4)), Condition([[], []])
    nats = -prior.score(tokens, condition).view(2, 5, 16)
    expected = torch.cat([nats[0], nats[1, 2:]]).mean()
    torch.testing.assert_close(
        prior.loss(tokens, condition, given=torch.tensor([0, 2])).detach(), expected
    )


@pytest.mark.parametrize("causal", [False, True])
def test_a_masked_prior_reads_what_is_given(causal, monkeypatch):
    torch.manual_seed(0)
    prior = MaskGITPrior(Transformer(32, 1, 2), 200, [5, 4, 4], causal=causal)
    tokens, condition = torch.randint(200, (2, 5, 4, 4)), Condition([[], []])
    hidden, states = [], prior._states
    monkeypatch.setattr(prior, "_states", lambda t, m, c: hidden.append(m) or states(t, m, c))
    for given in (None, torch.tensor([0, 2]), torch.tensor([5, 5])):
        generator = torch.Generator().manual_seed(0)
        loss = prior.loss(tokens, condition, None, generator, given)
        assert loss.isfinite()
    plain, some, all_of_it = (masked.view(2, 5, 16) for masked in hidden)
    assert torch.equal(some[0], plain[0])
    assert torch.equal(some[1, 2:], plain[1, 2:])
    assert plain[1, :2].any()
    assert not some[1, :2].any()
    assert not all_of_it.any()


def test_each_tokenizer_must_be_the_one_of_the_checkpoint(tiny_tokenizer):
    other = copy.deepcopy(tiny_tokenizer)
    other.encoder.project.bias.data.add_(1)

    def opened(guide=None):
        one = new_module(MIXTURE)
        one._trainer = SimpleNamespace(strategy=SimpleNamespace(root_device="cpu"))
        one.hold("tokenizer", tiny_tokenizer)
        one.hold("guide_tokenizer", guide)
        return one

    checkpoint = {}
    opened(other).on_save_checkpoint(checkpoint)
    opened(other).on_load_checkpoint(checkpoint)
    first = opened()  # which opens the checkpoint before its second tokenizer
    first.on_load_checkpoint(checkpoint)
    words = r"with the guide tokenizer .* the folder that belongs"
    with pytest.raises(ValueError, match=words):
        first.hold("guide_tokenizer", tiny_tokenizer)
    with pytest.raises(ValueError, match=words):
        opened(tiny_tokenizer).on_load_checkpoint(checkpoint)


def quantized_by_vectors():
    """A small tokenizer whose codebook would move if it were in training."""
    torch.manual_seed(0)
    tokenizer = Tokenizer(
        VQ(200), channels=[16, 32], encoder_depths=[1, 1], decoder_depths=[1, 1]
    ).train()
    tokenizer(torch.rand(4, 3, 5, 32, 32) * 2 - 1)
    return tokenizer.eval()


def test_nothing_of_a_tokenizer_changes_while_a_prior_is_trained(tmp_path, clip):
    VideoPipeline(quantized_by_vectors(), 32, 8.0).save_pretrained(tmp_path)
    inputs = Inputs(["generate", "upscale"], guide_codebook_size=200)
    prior = AutoregressivePrior(Transformer(32, 1, 2), 200, [5, 4, 4], inputs=inputs)
    before = prior.codes.own.detach().clone()
    tasks, guides = {"generate": 1.0, "upscale": 1.0}, str(tmp_path)
    module = PriorModule(prior, guides, 4, tasks=tasks, guide_tokenizer_folder=guides)
    loader = DataLoader([Batch(clip, [""])] * 4, batch_size=None)  # type: ignore[arg-type]
    trainer = quiet_trainer(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, loader, loader)
    assert module.step == 4
    assert not torch.equal(prior.codes.own, before)
    optimized = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert optimized == {id(p) for p in prior.parameters()}
    assert module.ema.names == [name for name, _ in prior.named_parameters()]
    assert not any("tokenizer" in name for name in module.state_dict())
    trained = quantized_by_vectors().state_dict()
    for tokenizer in (module.tokenizer, module.guide_tokenizer):
        assert not any(part.training for part in tokenizer.modules())
        assert not any(p.requires_grad or p.grad is not None for p in tokenizer.parameters())
        state = tokenizer.state_dict()
        assert [name for name in trained if not torch.equal(trained[name], state[name])] == []


def test_a_prior_of_one_task_with_a_guide_shows_that_task(tiny_tokenizer, clip, monkeypatch):
    shown = []
    monkeypatch.setattr("lm.frozen.log_clips", lambda *arguments: shown.append(arguments))
    inputs = Inputs(["upscale", "caption"])
    prior = AutoregressivePrior(Transformer(32, 1, 2), 200, [5, 4, 4], inputs=inputs)
    for tasks, count in (({"caption": 1.0, "upscale": 1.0}, 1), ({"caption": 1.0}, 1)):
        one = PriorModule(prior, "nowhere", max_steps=10, tasks=tasks)
        one._trainer = SimpleNamespace(loggers=[])
        for name in ("tokenizer", "guide_tokenizer"):
            object.__setattr__(one, name, tiny_tokenizer)
        one._log_pictures(Batch(clip, [""]))
        assert len(shown) == count
    assert shown[0][2].shape == (2, 17, 32, 32, 3)


TOKENIZER = [
    "--model.init_args.tokenizer.channels=[16, 32]",
    "--model.init_args.tokenizer.encoder_depths=[1, 1]",
    "--model.init_args.tokenizer.decoder_depths=[1, 1]",
    "--model.init_args.max_steps=1",
    "--data.stages=[{num_frames: 1, batch_size: 2, share: 1.0}]",
]
PRIOR = [
    "--model.init_args.prior.init_args.transformer={width: 32, depth: 1, num_heads: 2}",
    "--data.stages=[{num_frames: 5, batch_size: 2, share: 1.0}]",
    "--trainer.limit_val_batches=1",
]


@pytest.fixture
def tokenizer(fit, tmp_path):
    folder = tmp_path / "tokenizer"
    root = f"--trainer.default_root_dir={tmp_path}/tokenizer_run"
    fit("demo_tokenizer", *TOKENIZER, root, f"--export={folder}")
    return folder


def test_every_task_is_trained_and_the_model_can_be_asked_for_it(fit, tokenizer, tmp_path):
    arguments = [*PRIOR, f"--model.init_args.tokenizer_folder={tokenizer}"]
    root = [f"--trainer.default_root_dir={tmp_path}/run", f"--export={tmp_path}/model"]
    fit("demo_tasks", *arguments, *root, "--model.init_args.max_steps=8")
    pipe = VideoPipeline.from_pretrained(tmp_path / "model")
    clip = torch.randint(256, (1, 5, 64, 64, 3), dtype=torch.uint8)
    mask = torch.ones(64, 64, dtype=torch.bool)
    assert len(pipe.classes) == 65
    assert len(pipe.caption(clip)) == 1
    for task, given in (
        ("class", {"classes": ["a red circle moving left"], "num_frames": 5}),
        ("rollout", {"actions": torch.full((1, 5, 2), 2.5)}),
        ("interpolate", {"guide": clip[:, :2], "num_frames": 5}),
        ("inpaint", {"guide": clip, "mask": mask}),
        ("outpaint", {"guide": clip, "mask": mask}),
        ("control", {"guide": clip}),
        ("upscale", {"guide": clip[:, :, ::2, ::2]}),
    ):
        assert pipe.generate(task=task, **given).shape == clip.shape


def checkpoint(root):
    return torch.load(root / "checkpoints" / "last.ckpt", weights_only=True)


def test_a_resumed_mixture_is_the_one_that_never_stopped(tokenizer, tmp_path):
    command = [sys.executable, "train.py", "fit", "--config=configs/demo_tasks.yaml", *PRIOR]
    command += [f"--model.init_args.tokenizer_folder={tokenizer}", "--export=null"]
    command += ["--trainer.enable_progress_bar=false", "--trainer.logger=false"]
    command += ["--checkpoints.every_n_steps=4", "--data.val_clips=2"]
    command += ["--trainer.val_check_interval=4", "--model.init_args.max_steps=8"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for root, extra in (
        (whole, []),
        (broken, ["--trainer.max_epochs=1", "--trainer.limit_train_batches=4"]),
        (broken, ["--ckpt_path=last"]),
    ):
        arguments = [*command, f"--trainer.default_root_dir={root}", *extra]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    ends = checkpoint(whole)["state_dict"], checkpoint(broken)["state_dict"]
    assert ends[1]["steps_done"] == 8
    assert [name for name in ends[0] if not torch.equal(ends[0][name], ends[1][name])] == []


def test_the_recipe_names_every_task_of_its_prior():
    with open("configs/demo_tasks.yaml") as file:
        model = yaml.safe_load(file)["model"]["init_args"]
    inputs = model["prior"]["init_args"]["inputs"]
    assert set(inputs["tasks"]) == set(model["tasks"]) - {"class", "rollout"}
