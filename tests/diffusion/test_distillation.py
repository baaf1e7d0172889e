"""What a student of few steps learns."""

import copy
import itertools

import pytest
import torch

import diffusion.lightning_module
from diffusion import DiffusionDecoder, DistillationModule, UNet3D
from diffusion.condition import over_clip
from diffusion.distillation import distillation_loss, velocity_between
from diffusion.sampler import ddim_step
from pipeline import VideoPipeline


class Linear(DiffusionDecoder):
    """Velocities with a slope, so that two turns are exact to write down."""

    slope = 0.7

    def velocity(self, z, angle, condition):
        return self.slope * z


class Constant(DiffusionDecoder):
    """Says the same everywhere."""

    value: torch.Tensor

    def velocity(self, z, angle, condition):
        return self.value


def build(cls, **options):
    return cls(UNet3D([32], [1]), 200, [4, 8], use="none", **options)


@pytest.fixture
def clip():
    return torch.rand(3, 3, 9, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


TOKENS = torch.zeros(3, 3, 2, 2, dtype=torch.long)


def test_one_turn_ends_where_it_is_told():
    z, end = torch.randn(2, 4, 5, dtype=torch.float64)
    angle, after = torch.tensor(1.2).double(), torch.tensor(0.7).double()
    torch.testing.assert_close(
        ddim_step(z, velocity_between(z, end, angle, after), angle, after), end
    )


@pytest.mark.parametrize("steps", [1, 4])
def test_the_target_is_two_turns_of_the_teacher(clip, steps, monkeypatch):
    teacher, student = build(Linear), build(Constant, known_share=0.0)
    seen = {}

    def spy(z, angle, condition):
        seen.update(z=z, angle=angle)
        return torch.zeros_like(z)

    monkeypatch.setattr(student, "velocity", spy)
    base = torch.zeros_like(clip)
    generator = torch.Generator().manual_seed(1)
    loss = distillation_loss(student, teacher, steps, clip, TOKENS, base, generator)
    angles = student.objective.schedule.angles(2 * steps).float()
    total = torch.zeros(())
    for z, angle in zip(seen["z"], seen["angle"][:, 0], strict=True):
        k = int((angles - angle).abs().argmin())
        assert k % 2 == 0
        first, second = angles[k] - angles[k + 1], angles[k + 1] - angles[k + 2]
        # A turn by -d along v = a z multiplies by cos d - a sin d.
        factor = (first.cos() - 0.7 * first.sin()) * (second.cos() - 0.7 * second.sin())
        whole = angles[k] - angles[k + 2]
        target = (factor - whole.cos()) / -whole.sin() * z
        total = total + target.square().mean() / 3
    torch.testing.assert_close(loss, total, atol=1e-4, rtol=1e-3)


def test_a_student_that_is_right_has_no_loss_and_known_frames_do_not_count(clip, monkeypatch):
    """On one clean clip the best teacher's path is straight: one turn does what two do."""
    decoder = build(DiffusionDecoder, known_share=0.7)
    base = torch.zeros_like(clip)

    def exact(z, angle, condition):
        assert bool((angle == 0).any())
        a = over_clip(angle)
        v = (a.cos() * z - clip) / a.sin().clamp(min=1e-6)
        return torch.where(a == 0, 77.0, v)

    monkeypatch.setattr(decoder, "velocity", exact)
    generator = torch.Generator().manual_seed(2)
    loss = distillation_loss(decoder, decoder, 4, clip, TOKENS, base, generator)
    assert loss < 1e-5


def test_known_frames_have_no_gradient_that_is_not_finite(clip):
    teacher = build(DiffusionDecoder, known_share=1.0)
    student = copy.deepcopy(teacher)
    generator = torch.Generator().manual_seed(2)
    base = torch.zeros_like(clip)
    distillation_loss(student, teacher, 4, clip, TOKENS, base, generator).backward()
    assert all(bool(p.grad.isfinite().all()) for p in student.parameters() if p.grad is not None)


@pytest.fixture
def distil(fit, pipe, tmp_path):
    """Distil a decoder in 4 steps, two of each round, by the command line; return its folder."""
    torch.manual_seed(0)
    decoder = DiffusionDecoder(UNet3D([32], [1]), 200, [4, 8])
    for p in decoder.parameters():
        p.data.add_(0.05 * torch.randn_like(p))
    decoder.calibrated.fill_(True)
    model = tmp_path / "model"
    VideoPipeline(pipe.tokenizer, 32, 8.0, decoder=decoder).save_pretrained(model)
    options = {
        "model.init_args.max_steps": 4,
        "model.init_args.tokenizer_folder": model,
        "model.init_args.start_from": model,
        "model.init_args.rounds": [2, 1],
        "model.init_args.decoder.codebook_size": 200,
        "model.init_args.decoder.network": "{class_path: UNet3D, init_args: {channels: [32], "
        "depths: [1]}}",
        "data.stages": "[{num_frames: 5, batch_size: 2, share: 1.0}]",
        "checkpoints.every_n_steps": 2,
    }

    def run(name, *arguments):
        root = [f"--trainer.default_root_dir={tmp_path / name}", f"--export={tmp_path / name}/out"]
        given = (f"--{key}={value}" for key, value in options.items())
        fit("distilled_decoder", *given, *root, *arguments)
        return tmp_path / name

    return run


def test_the_command_distils_in_rounds_and_exports_a_decoder_of_few_steps(distil, monkeypatch):
    rounds, teachers = [], []

    def spy(student, teacher, steps, *case):
        rounds.append((student.training, steps))
        teachers.append(teacher.project.weight.clone())
        assert not any(p.requires_grad for p in teacher.parameters())
        return distillation_loss(student, teacher, steps, *case)

    monkeypatch.setattr(diffusion.lightning_module, "distillation_loss", spy)
    out = distil("whole", "--trainer.val_check_interval=1") / "out"
    # Each step and then its validation, which looks at the round that the step was of.
    assert rounds == [(training, steps) for steps in (2, 2, 1, 1) for training in (True, False)]
    changed = [not torch.equal(*pair) for pair in itertools.pairwise(teachers)]
    assert changed == [False, False, False, True, False, False, False]
    found = VideoPipeline.from_pretrained(out)
    assert found.decoder.steps == 1
    tokens = TOKENS[:, :1].repeat(1, 1, 2, 2)
    assert torch.equal(found.decoder.decode(tokens), found.decoder.decode(tokens, steps=1))
    assert not torch.equal(found.decoder.decode(tokens), found.decoder.decode(tokens, steps=2))


def test_distillation_resumed_between_rounds_ends_as_one_that_never_stopped(distil, monkeypatch):
    whole, objective = distil("whole"), DistillationModule.objective

    def stopped(self, batch):
        if self.step == 2:
            raise RuntimeError("stopped")
        return objective(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(DistillationModule, "objective", stopped)
        with pytest.raises(RuntimeError, match="stopped"):
            distil("broken")
    ends = [
        torch.load(root / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for root in (whole, distil("broken", "--ckpt_path=last"))
    ]
    assert [name for name, value in ends[0].items() if not torch.equal(value, ends[1][name])] == []
