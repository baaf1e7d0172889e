"""What a student of few steps learns."""

import copy

import pytest
import torch

from diffusion import DiffusionDecoder, UNet3D
from diffusion.condition import over_clip
from diffusion.distillation import distillation_loss, velocity_between
from diffusion.sampler import ddim_step


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
