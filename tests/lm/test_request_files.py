"""Files that a request names, read as the model sees them."""

import numpy as np
import pytest
import torch
from PIL import Image

from data.video import VideoWriter, decode_clip, write_video
from lm.request_files import action_rows, bright, guide_frames, last_frames


def write(path, clip, fps=8.0):
    with VideoWriter(path, fps, lossless=True) as writer:
        writer.write(clip)
    return path


def noise(frames, height, width):
    generator = torch.Generator().manual_seed(0)
    shape = (frames, height, width, 3)
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(("frames", "fps"), [(2, 12.0), (2, 24.0), (14, 24.0), (5, 8.0), (3, 1.0)])
def test_key_frames_are_the_first_and_the_last_of_a_file_whatever_its_rate(tmp_path, frames, fps):
    clip = noise(frames, 32, 32)
    path = write(tmp_path / "ends.mp4", clip, fps)
    assert torch.equal(guide_frames(path, "interpolate", 32, 8.0, 4), clip[[0, -1]])


def test_a_file_of_one_frame_is_one_key_frame(tmp_path):
    path = write(tmp_path / "end.mp4", noise(1, 32, 32))
    assert len(guide_frames(path, "interpolate", 32, 8.0, 4)) == 1


def test_a_mask_is_resized_and_cropped_as_its_guide_is(tmp_path, capsys):
    left = torch.zeros(1, 48, 80, 3, dtype=torch.uint8)
    left[:, :20, :37] = 255
    Image.fromarray(left[0].numpy()).save(tmp_path / "mask.png")
    guide = write(tmp_path / "guide.mp4", left.expand(5, -1, -1, -1))
    mask = bright(tmp_path / "mask.png", guide, 32, 8.0, 4)
    seen = guide_frames(guide, "inpaint", 32, 8.0, 4).float().mean(-1) > 127
    assert torch.equal(mask.expand_as(seen), seen)
    assert 0 < mask.sum() < mask.numel()
    assert "mask.png: 48 x 80 resized and cropped to 32" in capsys.readouterr().out


def test_a_mask_of_the_model_s_size_is_taken_as_it_is(tmp_path, capsys):
    guide = write(tmp_path / "guide.mp4", noise(5, 48, 80))
    hole = noise(1, 32, 32)[0, :, :, 0] > 127
    Image.fromarray(hole.numpy()).save(tmp_path / "mask.png")
    assert torch.equal(bright(tmp_path / "mask.png", guide, 32, 8.0, 4)[0], hole)
    assert not capsys.readouterr().out


@pytest.mark.parametrize(("height", "width"), [(32, 64), (16, 16), (48, 81)])
def test_a_mask_of_another_size_is_refused(tmp_path, height, width):
    guide = write(tmp_path / "guide.mp4", noise(5, 48, 80))
    left = torch.zeros(height, width, dtype=torch.uint8)
    left[:, : width // 4] = 255
    Image.fromarray(left.numpy()).save(tmp_path / "mask.png")
    words = f"{height} x {width} pixels.* is 48 x 80 and the model makes 32 x 32; give a mask"
    with pytest.raises(ValueError, match=words):
        bright(tmp_path / "mask.png", guide, 32, 8.0, 4)


def test_a_mask_without_a_guide_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a mask needs a guide"):
        bright(tmp_path / "mask.png", None, 32, 8.0, 4)


@pytest.mark.parametrize(("task", "size"), [("control", 32), ("interpolate", 32), ("upscale", 16)])
def test_a_guide_that_is_resized_is_said_to_be(tmp_path, capsys, task, size):
    fits = write(tmp_path / "fits.mp4", noise(5, size, size))
    assert guide_frames(fits, task, 32, 8.0, 4).shape[1:3] == (size, size)
    assert not capsys.readouterr().out
    wide = write(tmp_path / "wide.mp4", noise(5, 48, 80))
    assert guide_frames(wide, task, 32, 8.0, 4).shape[1:3] == (size, size)
    assert f"wide.mp4: 48 x 80 resized and cropped to {size}" in capsys.readouterr().out


def test_the_last_frames_of_a_context_are_read(tmp_path, capsys):
    write_video(tmp_path / "clip.mp4", noise(9, 48, 80), 8.0)
    last = last_frames(tmp_path / "clip.mp4", 5, 32, 8.0)
    assert torch.equal(last, decode_clip(tmp_path / "clip.mp4", start=4, size=32))
    assert "48 x 80 resized" in capsys.readouterr().out


@pytest.mark.parametrize("frames", [0, -2])
def test_a_context_of_no_frames_is_refused(tmp_path, frames):
    path = write(tmp_path / "clip.mp4", noise(3, 32, 32))
    with pytest.raises(ValueError, match=f"{frames} frames of a context.*take 1 or more"):
        last_frames(path, frames, 32, 8.0)


def test_actions_are_read_as_numbers(tmp_path):
    np.save(tmp_path / "rows.npy", np.array([[-3, 1], [2, 0]]))
    rows = action_rows(tmp_path / "rows.npy")
    assert rows.dtype == torch.float32
    assert rows.tolist() == [[-3, 1], [2, 0]]


@pytest.mark.parametrize("held", [None, b"no array", "pickled"])
def test_actions_that_cannot_be_read_are_refused(tmp_path, held):
    path = tmp_path / "rows.npy"
    if held == "pickled":
        np.save(path, np.array([{"a": 1}], dtype=object))
    elif held is not None:
        path.write_bytes(held)
    with pytest.raises(ValueError, match=r"no readable \.npy file; write the rows"):
        action_rows(path)


@pytest.mark.usefixtures("_without_types")
@pytest.mark.parametrize("rows", [np.zeros(5), np.full((5, 2), "left"), None])
def test_actions_that_are_no_table_of_numbers_are_refused(tmp_path, rows):
    path = tmp_path / "rows.npy"
    with path.open("wb") as file:
        np.savez(file, rows=np.zeros((5, 2))) if rows is None else np.save(file, rows)
    with pytest.raises(ValueError, match=r"no table T x A of numbers; write one"):
        action_rows(path)
