import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch

from data.shapes import (
    ALL_COMBINATIONS,
    COLORS,
    DIRECTIONS,
    HELD_OUT,
    SHAPES,
    STEADY_FRAMES,
    TRAINING_COMBINATIONS,
    Combination,
    Scene,
    Shapes,
    coverage,
    render,
)

DIFFICULTIES = ("plain", "graded", "textured", "grained")


def scene_of(shape="circle", direction="right", diameter=15.0, speed=2.5, start=(30.0, 32.0)):
    return Scene(Combination("white", shape, direction), diameter, speed, start, "plain", 0)


def grid(size=64, center=(31.3, 32.6)):
    axis = np.arange(size, dtype=np.float64)
    return axis[None, :] - center[0], axis[:, None] - center[1]


def test_a_clip_is_a_pure_function_of_seed_split_and_index():
    first, again = Shapes(50, difficulty="textured"), Shapes(99, difficulty="textured")
    assert first.read(7, 17).caption == again.read(7, 17).caption
    assert torch.equal(first.read(7, 17).frames, again.read(7, 17, offset=0.9).frames)
    for other in (Shapes(50, seed=1), Shapes(50, "val"), Shapes(50, "held_out")):
        assert first.scene(7).start != other.scene(7).start


def test_splits_share_no_scene():
    starts = {s: {Shapes(300, s).scene(i).start for i in range(300)} for s in ("train", "val")}
    assert len(starts["train"]) == len(starts["val"]) == 300
    assert not starts["train"] & starts["val"]


@pytest.mark.parametrize("num_frames", [1, 16, 17, 33])
def test_a_short_clip_is_the_beginning_of_a_long_one(num_frames):
    scene = Shapes(10, difficulty="graded").scene(3)
    long, short = render(scene, 40), render(scene, num_frames)
    assert short.frames.shape == (num_frames, 64, 64, 3)
    assert short.frames.dtype == torch.uint8
    assert torch.equal(long.frames[:num_frames], short.frames)
    assert torch.equal(long.mask[:num_frames], short.mask)
    assert torch.equal(long.centers[:num_frames], short.centers)
    assert torch.equal(long.background, short.background)


def test_the_caption_is_a_plain_sentence():
    assert Combination("red", "circle", "left").caption == "a red circle moving left"
    sample = Shapes(5).read(0, 17)
    assert sample.caption == Shapes(5).scene(0).combination.caption


def test_combinations_are_counted_and_held_out_ones_are_spread():
    assert len(set(ALL_COMBINATIONS)) == 72
    assert len(set(HELD_OUT)) == 7
    assert len(TRAINING_COMBINATIONS) == 65
    for first, second in ((0, 1), (0, 2), (1, 2)):
        pairs = Counter((c[first], c[second]) for c in HELD_OUT)
        assert max(pairs.values()) == 1
        everything = {(c[first], c[second]) for c in ALL_COMBINATIONS}
        assert {(c[first], c[second]) for c in TRAINING_COMBINATIONS} == everything


def test_training_draws_every_combination_but_the_held_out():
    seen = Counter(Shapes(2000).scene(i).combination for i in range(2000))
    assert set(seen) == set(TRAINING_COMBINATIONS)
    # A binomial count of mean 31: six deviations either side.
    assert max(seen.values()) < 65


def test_val_and_held_out_show_each_of_theirs_equally_often():
    val = Counter(Shapes(130, "val").scene(i).combination for i in range(130))
    assert val == dict.fromkeys(TRAINING_COMBINATIONS, 2)
    held_out = Counter(Shapes(21, "held_out").scene(i).combination for i in range(21))
    assert held_out == dict.fromkeys(HELD_OUT, 3)


def test_captions_name_training_combinations_and_every_word():
    captions = Shapes(5, "held_out").captions
    assert len(captions) == 65
    assert not set(captions) & {c.caption for c in HELD_OUT}
    words = {word for caption in captions for word in caption.split()}
    assert words == {"a", "moving", *COLORS, *SHAPES, *DIRECTIONS}


@pytest.mark.parametrize("diameter", [12.0, 15.3, 18.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_all_shapes_cover_the_area_of_the_circle(shape, diameter):
    covered = coverage(shape, diameter, *grid())
    assert covered.sum() == pytest.approx(math.pi * diameter**2 / 4, rel=0.015)
    assert np.any((covered > 0.1) & (covered < 0.9))


@pytest.mark.parametrize("shape", SHAPES)
def test_coverage_agrees_with_supersampling(shape):
    dx, dy = grid()
    fine = (np.arange(8) - 3.5) / 8
    hits = [coverage(shape, 15.0, dx + a, dy + b, edge=1e-9) for a in fine for b in fine]
    assert np.abs(coverage(shape, 15.0, dx, dy) - np.mean(hits, axis=0)).max() < 0.3
    assert np.abs(coverage(shape, 15.0, dx, dy) - np.mean(hits, axis=0)).mean() < 2e-3


@pytest.mark.parametrize("shape", SHAPES)
def test_the_stated_center_is_the_centroid(shape):
    rendered = render(scene_of(shape), 17)
    light = (rendered.frames.float() - rendered.background.float()).sum(-1)
    axis = torch.arange(64.0)
    x = (light.sum(1) @ axis) / light.sum((1, 2))
    y = (light.sum(2) @ axis) / light.sum((1, 2))
    assert torch.allclose(torch.stack([x, y], 1), rendered.centers, atol=0.06)


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_the_mask_is_where_the_object_is(difficulty):
    source = Shapes(20, difficulty=difficulty)
    for i in range(20):
        scene = source.scene(i)
        frames, mask, background, _ = render(scene, 17)
        color = torch.tensor(COLORS[scene.combination.color], dtype=torch.uint8)
        to_color = (frames.int() - color.int()).abs().sum(-1)
        to_background = (frames.int() - background.int()).abs().sum(-1)
        decided = (to_color - to_background).abs() > 12  # rounding, on the very edge
        assert torch.equal((to_color < to_background)[decided], mask[decided])


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_backgrounds_are_still_dark_and_as_rough_as_they_say(difficulty):
    backgrounds = [
        render(Shapes(30, difficulty=difficulty).scene(i), 1).background for i in range(30)
    ]
    stacked = torch.stack(backgrounds).float()
    assert stacked.max() < 0.5 * min(max(color) for color in COLORS.values())
    colors = [len(b.reshape(-1, 3).unique(dim=0)) for b in backgrounds]
    assert (max(colors) == 1) == (difficulty == "plain")
    assert len({tuple(b[0, 0].tolist()) for b in backgrounds}) > 3
    assert difficulty == "grained" or stacked.diff(dim=1).abs().max() < 32


def test_each_difficulty_is_rougher_than_the_one_before():
    def roughness(difficulty):
        source = Shapes(30, difficulty=difficulty)
        frames = [render(source.scene(i), 1).background.float() for i in range(30)]
        return torch.stack(frames).diff(dim=1).abs().mean()

    plain, *others = map(roughness, DIFFICULTIES)
    assert plain == 0
    for smooth, rough in pairwise([0.05, *others]):
        assert rough > 2 * smooth


def test_colors_are_far_apart():
    colors = torch.tensor(list(COLORS.values())).double()
    distance = torch.cdist(colors, colors) + 1000 * torch.eye(len(colors))
    assert distance.min() > 120


def test_the_object_never_leaves_the_frame():
    source = Shapes(60, object_diameter=(10.0, 18.0))
    for i in range(60):
        scene = source.scene(i)
        frames, _, background, centers = render(scene, 60)
        color = torch.tensor(COLORS[scene.combination.color]).float()
        channel = int(color.argmax())
        dark = background[0, 0, channel].float()
        alpha = (frames[..., channel].float() - dark) / (color[channel] - dark)
        area = math.pi * scene.diameter**2 / 4
        assert (alpha.sum((1, 2)) - area).abs().max() < 0.025 * area
        assert centers.min() > 0
        assert centers.max() < 63


@pytest.mark.parametrize("split", ["train", "val", "held_out"])
def test_the_starting_direction_holds_at_constant_speed(split):
    source = Shapes(200, split)
    for i in range(200):
        scene = source.scene(i)
        steps = render(scene, STEADY_FRAMES + 1).centers.diff(dim=0)
        velocity = scene.speed * torch.tensor(DIRECTIONS[scene.combination.direction])
        assert torch.allclose(steps, velocity.expand_as(steps).float(), atol=1e-4)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_wall_reflects(shape, direction):
    scene = scene_of(shape, direction, speed=2.7)
    centers = render(scene, 200).centers
    axis = 0 if DIRECTIONS[direction][0] else 1
    position, start, step = scene.start[axis], scene.start[axis], sum(DIRECTIONS[direction])
    assert torch.equal(centers[:, 1 - axis], torch.full((200,), scene.start[1 - axis]))
    # The slow way: step by step, turning at the walls that the extreme positions show.
    low, high = walls(shape, scene.diameter)[axis]
    expected = [start]
    for _ in range(199):
        position += step * scene.speed
        if position < low or position > high:
            position = 2 * (low if position < low else high) - position
            step = -step
        expected.append(position)
    assert torch.allclose(centers[:, axis], torch.tensor(expected), atol=1e-3)


def walls(shape, diameter):
    """Lowest and highest centroid on both axes, from the corners of the shape itself."""
    area = math.pi * diameter**2 / 4
    if shape == "triangle":
        side = math.sqrt(4 * area / math.sqrt(3))
        height = side * math.sqrt(3) / 2
        return (side / 2, 63 - side / 2), (2 * height / 3, 63 - height / 3)
    reach = diameter / 2 if shape == "circle" else math.sqrt(area) / 2
    return (reach, 63 - reach), (reach, 63 - reach)


def test_other_sizes_render():
    source = Shapes(5, size=96, object_diameter=(6.0, 30.0), speed=(0.5, 4.0))
    for i in range(5):
        assert source.read(i, 9).frames.shape == (9, 96, 96, 3)


def test_fps_and_length():
    assert Shapes().fps == 8.0
    assert len(Shapes()) == 20000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_clips": 0}, "num_clips is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"object_diameter": (18.0, 12.0)}, "object_diameter is"),
        ({"speed": (0.0, 2.0)}, "speed is"),
        ({"size": 32}, "raise size"),
        ({"speed": (2.0, 9.0)}, "or lower object_diameter or speed"),
    ],
)
def test_impossible_collections_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Shapes(**arguments)


def test_impossible_requests_are_refused():
    with pytest.raises(ValueError, match="num_frames is 0"):
        Shapes(5).read(0, 0)
    with pytest.raises(IndexError, match="0 to 4"):
        Shapes(5).read(5, 17)
    with pytest.raises(ValueError, match="raise size"):
        render(scene_of(), 17, size=32)
    with pytest.raises(ValueError, match="only circle, square, triangle"):
        coverage("star", 12.0, *grid())


def test_a_stride_passes_frames_over():
    source = Shapes(5)
    sample = source.read(2, 4, stride=3)
    assert torch.equal(sample.frames, source.read(2, 10).frames[::3])
    assert sample.place == source.place(2, 4, stride=3) == ("train-2", 0, 3)


def test_actions_are_the_steps_of_the_object():
    source = Shapes(4)
    for index in range(4):
        sample, scene = source.read(index, 9), source.scene(index)
        centers = render(scene, 9).centers
        assert sample.actions is not None
        assert not sample.actions[0].any()
        torch.testing.assert_close(centers[0] + sample.actions.cumsum(0), centers)
        assert sample.actions[1].abs().sum().item() == pytest.approx(scene.speed, abs=1e-4)
