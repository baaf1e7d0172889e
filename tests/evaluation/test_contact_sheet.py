"""The pictures for people show the right frames, whole, at the right place."""

import numpy as np
import pytest
import torch
from PIL import Image

from data.video import decode_clip
from evaluation.contact_sheet import Row, animated_grid, contact_sheet


def flat_clip(*levels, height=16, width=24):
    """Frame k is the k-th grey level all over."""
    clip = torch.tensor(levels, dtype=torch.uint8)[:, None, None, None]
    return clip.expand(-1, height, width, 3).contiguous()


def picture_of(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def has_block(picture, level, height, width):
    """Whether the picture holds a rectangle of one grey level, and no pixel of it elsewhere."""
    rows, columns = np.nonzero((picture == level).all(-1))
    whole = len(rows) == height * width
    return whole and np.ptp(rows) == height - 1 and np.ptp(columns) == width - 1


def test_the_sheet_holds_every_nth_frame_enlarged(tmp_path):
    rows = [
        Row(
            "a ball", {"truth": flat_clip(50, 60, 70, 80, 90), "prediction": flat_clip(51, 61, 71)}
        ),
        Row("", {"truth": flat_clip(52)}),
    ]
    contact_sheet(rows, tmp_path / "new/sheet.png", every=2, scale=3)
    picture = picture_of(tmp_path / "new/sheet.png")
    for level in (50, 70, 90, 51, 71, 52):
        assert has_block(picture, level, 48, 72), level
    assert not (picture == 60).all(-1).any()


def test_a_long_prompt_is_shortened_to_the_sheet(tmp_path):
    for name, words in (("short", 1), ("long", 60)):
        contact_sheet([Row("ball " * words, {"": flat_clip(90)})], tmp_path / f"{name}.png")
    short, long = (picture_of(tmp_path / f"{name}.png") for name in ("short", "long"))
    assert short.shape == long.shape
    margin = long[:, -12:]
    assert (margin == margin[0, 0]).all()


def test_labels_and_tags_are_drawn(tmp_path):
    for name, label, tag in (("bare", "", ""), ("label", "a ball", ""), ("tag", "", "truth")):
        contact_sheet([Row(label, {tag: flat_clip(90)})], tmp_path / f"{name}.png")
    bare, label, tag = (picture_of(tmp_path / f"{n}.png") for n in ("bare", "label", "tag"))
    assert bare.shape == label.shape
    assert (bare != label).any()
    assert tag.shape[1] > bare.shape[1]


def test_the_grid_plays_all_clips_and_rests_on_the_last_frame(tmp_path):
    clips = [flat_clip(40, 80, 120), flat_clip(160), flat_clip(200, 240)]
    animated_grid(clips, ["one", "two", "three"], tmp_path / "grid.gif", 8.0, 2)
    frames = decode_clip(tmp_path / "grid.gif").numpy()
    assert len(frames) == 3
    for frame, levels in zip(
        frames, [(40, 160, 200), (80, 160, 240), (120, 160, 240)], strict=True
    ):
        corners = [frame[10, 10], frame[10, 70], frame[10 + 32 + 46, 10]]
        assert [int(corner[0]) for corner in corners] == pytest.approx(levels, abs=4)


def test_sixteen_clips_stay_under_a_megabyte(tmp_path):
    generator = torch.Generator().manual_seed(0)
    ball = torch.randint(256, (16, 1, 8, 8, 3), generator=generator).to(torch.uint8)
    clips = ball.repeat_interleave(8, 2).repeat_interleave(8, 3)
    moving = [torch.cat([clip.roll(2 * k, 1) for k in range(17)]) for clip in clips]
    animated_grid(moving, ["a checkered ball moving right and then left"] * 16, tmp_path / "g.gif")
    assert (tmp_path / "g.gif").stat().st_size < 1_000_000
    assert len(decode_clip(tmp_path / "g.gif")) == 17


def test_what_cannot_be_shown_is_named(tmp_path):
    mixed = [flat_clip(0), flat_clip(0, height=12)]
    with pytest.raises(ValueError, match=r"sizes \[\(12, 24\), \(16, 24\)\]"):
        animated_grid(mixed, ["", ""], tmp_path / "g.gif")
    with pytest.raises(ValueError, match="1 labels for 2 clips"):
        animated_grid(mixed, [""], tmp_path / "g.gif")
    with pytest.raises(ValueError, match="0 clips"):
        contact_sheet([], tmp_path / "s.png")
    with pytest.raises(ValueError, match="every is 0"):
        contact_sheet([Row("", {"": mixed[0]})], tmp_path / "s.png", every=0)
