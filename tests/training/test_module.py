"""Two players, one step count: what a step does to the network and to its adversary."""

import warnings
from itertools import product
from types import SimpleNamespace

import lightning
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from tests.conftest import quiet_trainer
from training.checkpoints import Checkpoints
from training.ema import EMA
from training.module import Objective, Recipe, TrainedModule
from training.optimizer import learning_rate_scale
from training.precision import autocast

STEPS, START = 8, 3
RECIPE = Recipe(warmup_steps=4, decay_share=0.5, max_bad_steps=3, adversary_learning_rate=0.01)


class Duel(TrainedModule):
    """A generator of points, judged by a plane; what a step sees is drawn from its number."""

    def __init__(self, adversary=True, broken=()):
        judge = nn.Linear(4, 1) if adversary else None
        super().__init__(STEPS, RECIPE, judge)
        self.generator = nn.Linear(4, 4)
        self.broken, self.seen, self.snapshots = broken, [], []
        self.track_average()

    @property
    def network(self):
        return self.generator

    def objective(self, batch):
        self.seen.append(self.step)
        self.snapshots.append(snapshot(self))
        noise = torch.randn(16, 4, generator=torch.Generator().manual_seed(self.step))
        fake = self.generator(noise)
        loss = fake.square().mean() * self.factor("network")
        if self.adversary is None or self.step < START:
            return Objective(loss, {})
        judged = loss - self.adversary(fake).mean()
        return Objective(judged, {}, lambda: self.answer(noise, fake.detach()))

    def answer(self, real, fake):
        assert self.adversary is not None
        loss = (self.adversary(fake) - self.adversary(real)).mean()
        return Objective(loss * self.factor("adversary"), {})

    def factor(self, player):
        return float("nan") if (player, self.step) in self.broken else 1.0


def snapshot(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


class StopAfter(lightning.Callback):
    def __init__(self, last):
        self.last = last

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        trainer.should_stop |= pl_module.step == self.last


def trained(module, root, *, ckpt_path=None, last=STEPS, callbacks=()):
    torch.manual_seed(0)
    for layer in (module.generator, *([module.adversary] if module.adversary else [])):
        layer.reset_parameters()
    module.track_average()
    trainer = quiet_trainer(root, callbacks=[StopAfter(last)])
    trainer.callbacks += callbacks  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loader = DataLoader(torch.zeros(100, 1), batch_size=1)  # type: ignore[arg-type]
        trainer.fit(module, loader, ckpt_path=ckpt_path, weights_only=True)
    return trainer


def by_hand():
    """The same duel in a plain loop with PyTorch's AdamW; return the adversary at its end."""
    torch.manual_seed(0)
    generator, judge = nn.Linear(4, 4), nn.Linear(4, 1)
    settings = {"weight_decay": 0.0}
    first = torch.optim.AdamW(generator.parameters(), lr=1e-3, betas=(0.9, 0.95), **settings)
    second = torch.optim.AdamW(judge.parameters(), lr=0.01, betas=(0.5, 0.9), **settings)
    for step in range(STEPS):
        scale = learning_rate_scale(step, STEPS, RECIPE.warmup_steps, RECIPE.decay_share)
        noise = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        with autocast(noise.device):
            fake = generator(noise)
            loss = fake.square().mean() - (judge(fake).mean() if step >= START else 0)
        minimise(loss, generator, first, 1e-3 * scale)
        if step >= START:
            with autocast(noise.device):
                loss = (judge(fake.detach()) - judge(noise)).mean()
            minimise(loss, judge, second, 0.01 * scale)
    return generator, judge


def minimise(loss, player, optimizer, rate):
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    gradients = torch.autograd.grad(loss, list(player.parameters()))
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    for p, gradient in zip(player.parameters(), gradients, strict=True):
        p.grad = gradient * min(1.0, 1 / norm.item())
    optimizer.step()


def test_both_players_end_where_a_plain_loop_takes_them(tmp_path):
    module = Duel()
    trained(module, tmp_path)
    for ours, theirs in zip((module.generator, module.adversary), by_hand(), strict=True):
        assert ours is not None
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_a_step_counts_once_however_many_optimizers_there_are(tmp_path):
    module = Duel()
    trainer = trained(module, tmp_path)
    assert module.seen == list(range(STEPS))
    assert trainer.global_step == STEPS + (STEPS - START)  # Lightning's, which nothing here uses


def test_the_adversary_steps_once_an_update_and_not_before_its_start(tmp_path):
    module = Duel()
    trainer = trained(module, tmp_path)
    first, second = trainer.optimizers
    assert {state["step"].item() for state in first.state.values()} == {STEPS}
    assert {state["step"].item() for state in second.state.values()} == {STEPS - START}


def test_the_networks_loss_leaves_no_gradient_in_the_adversary():
    module = Duel()
    module.steps_done.fill_(START)
    module.objective(None).loss.backward()
    assert module.adversary is not None
    assert all(p.grad is None for p in module.adversary.parameters())
    assert all(p.grad is not None for p in module.generator.parameters())


@pytest.mark.parametrize(("player", "other"), [("network", "adversary"), ("adversary", "network")])
def test_a_step_that_is_not_finite_is_skipped_for_its_player_alone(player, other, tmp_path):
    module = Duel(broken=[(player, 5)])
    trained(module, tmp_path)
    names = {"network": "generator.weight", "adversary": "adversary.weight"}
    before, after = module.snapshots[5], module.snapshots[6]
    assert torch.equal(before[names[player]], after[names[player]])
    assert not torch.equal(before[names[other]], after[names[other]])
    assert not torch.equal(after[names[player]], module.state_dict()[names[player]])
    assert module.state_dict()[f"{player}_guard.total"] == 1
    assert module.state_dict()[f"{other}_guard.total"] == 0


@pytest.mark.parametrize("player", ["network", "adversary"])
def test_many_such_steps_in_a_row_are_an_error(player, tmp_path):
    module = Duel(broken=[(player, step) for step in (4, 5, 6)])
    with pytest.raises(RuntimeError, match=f"3 steps in a row.*{player}"):
        trained(module, tmp_path)
    scattered = Duel(broken=[(player, step) for step in (3, 4, 6, 7)])
    trained(scattered, tmp_path)
    assert scattered.state_dict()[f"{player}_guard.total"] == 4


def test_a_resumed_duel_equals_one_that_never_stopped(tmp_path):
    whole, first, second = (Duel(broken=[("adversary", 4)]) for _ in range(3))
    trained(whole, tmp_path)
    trained(first, tmp_path, last=6).save_checkpoint(tmp_path / "half.ckpt")
    trained(second, tmp_path, ckpt_path=tmp_path / "half.ckpt")
    assert (first.seen, second.seen) == (list(range(6)), [6, 7])
    ends = whole.state_dict(), second.state_dict()
    assert {name for name in ends[0] if not torch.equal(ends[0][name], ends[1][name])} == set()


def test_the_averages_lie_in_the_state_and_are_no_copies_of_the_start(tmp_path):
    module = Duel(adversary=False)
    trained(module, tmp_path)
    kept = module.state_dict()
    for name, value in EMA(module.generator).named_buffers():
        assert not torch.equal(kept[f"ema.{name}"], value)
        assert not torch.equal(kept[f"ema.{name}"], module.snapshots[0][f"ema.{name}"])


def test_an_end_in_the_middle_of_writing_leaves_the_old_checkpoint(tmp_path):
    kept, module = Checkpoints(str(tmp_path), every_n_steps=1), Duel()
    kept.path.parent.mkdir()

    def ended(path, weights_only):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    def save(write):
        trainer = lightning.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
        trainer.save_checkpoint = write
        kept.on_train_batch_end(trainer, module, None, None, 0)

    module.steps_done += 1
    save(lambda path, weights_only: path.write_bytes(b"whole"))
    module.steps_done += 1
    with pytest.raises(KeyboardInterrupt):
        save(ended)
    assert (kept.path.read_bytes(), kept.saved_step) == (b"whole", 1)


def test_a_norm_that_leaves_nothing_of_a_gradient_is_refused():
    with pytest.raises(ValueError, match="clip_norm is 0"):
        Recipe(clip_norm=0.0)


def test_a_run_that_stops_soon_after_a_resume_says_where_it_goes_on(tmp_path, capsys):
    kept, module = Checkpoints(str(tmp_path)), Duel(broken=[("network", 4 + k) for k in range(3)])
    kept.path.parent.mkdir()
    trained(Duel(), tmp_path, last=4).save_checkpoint(kept.path)
    with pytest.raises(RuntimeError, match="3 steps in a row"):
        trained(module, tmp_path, ckpt_path=kept.path, callbacks=[kept])
    said = capsys.readouterr().err
    assert f"{kept.path} holds step 4: the same command with --ckpt_path last resumes" in said
    other, again = kept.path.rename(tmp_path / "other.ckpt"), Duel(broken=module.broken)
    with pytest.raises(RuntimeError, match="3 steps in a row"):
        trained(again, tmp_path, ckpt_path=other, callbacks=[Checkpoints(str(tmp_path))])
    assert "before a checkpoint was written" in capsys.readouterr().err


def test_going_on_from_another_checkpoint_keeps_the_last_one(tmp_path):
    kept, trainer = Checkpoints(str(tmp_path)), quiet_trainer(tmp_path)
    kept.path.parent.mkdir()
    kept.path.write_bytes(b"long")
    trainer.ckpt_path = str(tmp_path / "other.ckpt")  # type: ignore[method-assign]
    kept.on_fit_start(trainer, Duel())
    assert kept.path.with_name("earlier.ckpt").read_bytes() == b"long"


def test_what_a_limit_of_time_leaves_is_kept(tmp_path):
    kept = Checkpoints(str(tmp_path), every_n_steps=2)
    kept.path.parent.mkdir()
    trained(Duel(), tmp_path, last=3, callbacks=[kept])
    state = torch.load(kept.path, weights_only=True)["state_dict"]
    assert (int(state["steps_done"]), kept.saved_step) == (3, 3)


def test_noise_hangs_on_seed_step_and_process(monkeypatch):
    module, seen = Duel(), set()
    for seed, step, rank in product(("0", "1"), (0, 1), (0, 1)):
        monkeypatch.setenv("PL_GLOBAL_SEED", seed)
        module.steps_done.fill_(step)
        module._trainer = SimpleNamespace(global_rank=rank)
        assert module.noise_seed == module.noise_seed
        seen.add(module.noise_seed)
    assert len(seen) == 8
    assert all(0 <= number < 2**63 for number in seen)


def test_every_new_start_keeps_the_checkpoints_of_all_runs_before(tmp_path):
    kept, trainer = Checkpoints(str(tmp_path)), quiet_trainer(tmp_path)
    kept.path.parent.mkdir()
    for run in (b"long", b"accident", b"second accident"):
        kept.path.write_bytes(run)
        kept.on_fit_start(trainer, Duel())
    names = ("earlier.ckpt", "earlier-2.ckpt", "earlier-3.ckpt")
    found = {path.name: path.read_bytes() for path in kept.path.parent.iterdir()}
    assert found == dict(zip(names, (b"long", b"accident", b"second accident"), strict=True))


def test_distributed_training_does_not_send_the_averages():
    module = Duel()
    sent = {name for name, _ in module.named_buffers()}
    sent -= set(module._ddp_params_and_buffers_to_ignore)
    assert sent == {name for name, _ in module.named_buffers() if not name.startswith("ema.")}
    assert "steps_done" in sent
