import math
from functools import cache

import pytest
import torch
from torch.nn import functional as F

from data.shapes import COLORS, Combination, Scene, Shapes, render
from evaluation.shapes_judge import Verdict, accuracy, judge, position_error, start_spread

DIFFICULTIES = ("plain", "graded", "textured", "grained")
OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}
TURNED = ("left", "up", "right", "down")


@cache
def judged(difficulty, num_clips=500):
    source = Shapes(num_clips, "val", difficulty=difficulty)
    scenes = [source.scene(i) for i in range(num_clips)]
    return [judge(render(s, 17).frames) for s in scenes], [s.combination for s in scenes]


def examples(num_clips, difficulty="textured"):
    source = Shapes(num_clips, "val", difficulty=difficulty)
    for i in range(num_clips):
        scene = source.scene(i)
        yield scene, render(scene, 17)


def reconstruct(clip, generator):
    """What a tokenizer at 28 dB leaves: softened edges and grain."""
    kernel = torch.exp(-(torch.arange(-3.0, 4.0) ** 2) / 2)
    kernel = (kernel / kernel.sum()).expand(17 * 3, 1, 1, 7)
    pixels = clip.permute(0, 3, 1, 2).reshape(1, 17 * 3, 64, 64).float()
    pixels = F.pad(pixels, (3, 3, 3, 3), mode="replicate")
    pixels = F.conv2d(pixels, kernel, groups=17 * 3)
    pixels = F.conv2d(pixels, kernel.transpose(2, 3), groups=17 * 3)
    pixels = pixels + 8 * torch.randn(pixels.shape, generator=generator)
    pixels = pixels.reshape(17, 3, 64, 64).permute(0, 2, 3, 1)
    return pixels.round().clamp(0, 255).to(torch.uint8)


def psnr(first, second):
    error = (first.double() - second.double()).square().mean().item()
    return 10 * math.log10(255**2 / error)


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_true_clips_are_judged_right(difficulty):
    assert min(accuracy(*judged(difficulty))) >= 0.99


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_reconstructions_at_28_db_are_judged_right(difficulty):
    generator = torch.Generator().manual_seed(0)
    verdicts, combinations, levels = [], [], []
    for scene, rendered in examples(40, difficulty):
        clip = reconstruct(rendered.frames, generator)
        levels.append(psnr(clip, rendered.frames))
        verdicts.append(judge(clip))
        combinations.append(scene.combination)
    assert 27 < sum(levels) / len(levels) < 30
    assert min(accuracy(verdicts, combinations)) >= 0.95


def test_shuffled_captions_are_right_by_chance():
    verdicts, combinations = judged("plain")
    generator = torch.Generator().manual_seed(0)
    shuffled = [combinations[i] for i in torch.randperm(len(combinations), generator=generator)]
    color, shape, direction, every = accuracy(verdicts, shuffled)
    assert color == pytest.approx(1 / 6, abs=0.06)
    assert shape == pytest.approx(1 / 3, abs=0.07)
    assert direction == pytest.approx(1 / 4, abs=0.07)
    assert every == pytest.approx(1 / 72, abs=0.02)


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_centers_are_found_to_half_a_pixel(difficulty):
    for _, rendered in examples(40, difficulty):
        assert (judge(rendered.frames).centers - rendered.centers).abs().max() < 0.5


def test_position_error_is_measured_in_the_last_frame():
    _, rendered = next(examples(1))
    moved = rendered.centers.clone()
    moved[-1] += torch.tensor([3.0, 4.0])
    assert position_error(rendered.frames, moved) == pytest.approx(5, abs=0.5)
    gone = rendered.frames.clone()
    gone[-1] = rendered.background
    assert position_error(gone, rendered.centers) == math.inf
    assert judge(gone).centers.isnan().any(1).tolist() == 16 * [False] + [True]


def test_a_frozen_object_has_no_direction():
    for scene, rendered in examples(20, "plain"):
        color, shape, direction, centers = judge(rendered.frames[:1].repeat(17, 1, 1, 1))
        assert (color, shape) == scene.combination[:2]
        assert direction == "unknown"
        assert (centers - rendered.centers[0]).abs().max() < 0.5


def test_a_slow_object_is_found_with_its_background():
    for shape in ("circle", "square", "triangle"):
        combination = Combination("blue", shape, "right")
        scene = Scene(combination, 18.0, 1.0, (20.0, 30.0), "plain", 3)
        rendered = render(scene, 17)
        verdict = judge(rendered.frames)
        assert verdict[:3] == combination
        assert (verdict.centers - rendered.centers).abs().max() < 0.3


def test_a_reversed_clip_moves_the_other_way():
    for scene, rendered in examples(20):
        verdict = judge(rendered.frames[:7].flip(0))
        assert verdict.direction == OPPOSITE[scene.combination.direction]


def test_a_turned_clip_moves_a_quarter_turn_further():
    for scene, rendered in examples(20):
        verdict = judge(rendered.frames.rot90(-1, (1, 2)))
        here = TURNED.index(scene.combination.direction)
        assert verdict.direction == TURNED[(here + 1) % 4]
        assert (verdict.shape == scene.combination.shape) == (scene.combination.shape != "triangle")


def test_rolled_color_channels_are_another_color():
    for scene, rendered in examples(20):
        verdict = judge(rendered.frames.roll(1, -1))
        assert (verdict.color == scene.combination.color) == (scene.combination.color == "white")
        assert verdict.direction == scene.combination.direction


def test_a_color_outside_the_palette_is_unknown():
    _, rendered = next(examples(1, "plain"))
    for color in ((0, 255, 255), (128, 128, 128), (140, 0, 70)):
        clip = torch.where(rendered.mask[..., None], torch.tensor(color), rendered.frames)
        assert judge(clip.to(torch.uint8)).color == "unknown"


@pytest.mark.parametrize("content", ["background", "black", "white", "noise"])
def test_without_an_object_nothing_is_claimed(content):
    _, rendered = next(examples(1))
    clip = rendered.background.expand(17, -1, -1, -1).clone()
    if content in ("black", "white"):
        clip = torch.full_like(clip, 255 if content == "white" else 0)
    elif content == "noise":
        generator = torch.Generator().manual_seed(0)
        clip = torch.randint(0, 256, clip.shape, generator=generator, dtype=torch.uint8)
    verdict = judge(clip)
    assert verdict[:3] == ("unknown", "unknown", "unknown")
    assert math.isinf(position_error(clip, rendered.centers)) or content == "noise"


@pytest.mark.parametrize("fault", ["left", "top", "middle"])
def test_a_damaged_object_has_no_shape(fault):
    axis = torch.arange(64.0)
    for scene, rendered in examples(20):
        x, y = rendered.centers.T[:, :, None, None]
        dx, dy = axis - x, axis[:, None] - y
        erased = {"left": dx + 0 * dy < 0, "top": dy + 0 * dx < 0, "middle": dx**2 + dy**2 < 16}
        clip = torch.where(erased[fault][..., None], rendered.background, rendered.frames)
        verdict = judge(clip)
        assert verdict.shape == "unknown"
        assert verdict.direction == scene.combination.direction


@pytest.mark.parametrize("blob", ["ellipse", "rectangle", "diamond", "cross", "ring", "flipped"])
def test_other_shapes_are_unknown(blob):
    axis = torch.arange(64.0)
    step = 2.5 * torch.arange(17.0)[:, None, None]
    dx, dy = (axis - 12.3 - step).expand(17, 64, 64), (axis[:, None] - 31.6).expand(17, 64, 64)
    x, y = dx.abs(), dy.abs()
    distance = {
        "ellipse": torch.hypot(dx / 1.2, dy * 1.2) - 8,
        "rectangle": torch.maximum(x - 9, y - 6),
        "diamond": (x + y - 10) / math.sqrt(2),
        "cross": torch.minimum(torch.maximum(x - 9, y - 3), torch.maximum(x - 3, y - 9)),
        "ring": (torch.hypot(dx, dy) - 7).abs() - 2.5,
        "flipped": torch.maximum(x * math.sqrt(3) / 2 + dy / 2, -dy) - 5,
    }[blob]
    alpha = (0.5 - distance).clamp(0, 1)[..., None]
    clip = 20 + alpha * (torch.tensor(COLORS["red"]) - 20)
    assert judge(clip.to(torch.uint8))[:3] == ("red", "unknown", "right")


def test_the_larger_of_two_objects_counts():
    asked, other = Combination("red", "circle", "up"), Combination("green", "square", "left")
    large = render(Scene(asked, 18.0, 2.0, (15.0, 50.0), "plain", 0), 17)
    small = render(Scene(other, 9.0, 2.0, (50.0, 10.0), "plain", 0), 17)
    clip = torch.where(small.mask[..., None], small.frames, large.frames)
    verdict = judge(clip)
    assert verdict[:3] == asked
    assert (verdict.centers - large.centers).abs().max() < 0.5


def test_a_clip_too_short_for_a_direction_still_has_a_color():
    _, rendered = next(examples(1, "plain"))
    assert judge(rendered.frames[:1])[:3] == ("red", "circle", "unknown")


def test_accuracy_counts_words_and_whole_captions():
    def said(*words):
        return Verdict(*words, torch.zeros(1, 2))

    asked = [Combination("red", "circle", "left")] * 4
    verdicts = [
        said("red", "circle", "left"),
        said("red", "circle", "unknown"),
        said("red", "square", "left"),
        said("blue", "square", "left"),
    ]
    assert accuracy(verdicts, asked) == (0.75, 0.5, 0.75, 0.25)
    with pytest.raises(ValueError, match="equally many"):
        accuracy(verdicts, asked[:3])


def test_start_spread_is_the_deviation_of_first_centers():
    def at(x, y):
        return Verdict("red", "circle", "left", torch.tensor([[x, y], [0.0, 0.0]]))

    lost = at(math.nan, math.nan)
    assert start_spread([at(10.0, 5.0), at(14.0, 5.0), lost]) == pytest.approx(1.0)
    assert start_spread([at(10.0, 5.0), lost]) == 0.0
    # Uniform starting places over the free part of the frame.
    assert 8 < start_spread(judged("plain")[0]) < 15
