"""Sampled videos as files."""

import pytest
import torch

from data.video import MAX_GIF_FPS, probe
from evaluation.samples import write_samples

CHUNKS = torch.randint(256, (2, 1, 9, 16, 16, 3), dtype=torch.uint8)


@pytest.mark.parametrize("fps", [8.0, MAX_GIF_FPS, 60.0])
def test_short_videos_are_gifs_too_at_any_rate(tmp_path, fps):
    """Faster than a GIF plays, it is slower than the mp4."""
    write_samples(iter(CHUNKS), ["a"], 18, tmp_path / "out", fps)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "000.mp4",
        "000.gif",
        "samples.png",
    }
    assert probe(tmp_path / "out" / "000.mp4").fps == pytest.approx(fps)


def test_a_file_in_the_place_of_the_folder_is_refused_before_anything_is_made(tmp_path):
    def made():
        raise AssertionError("sampled")
        yield

    (tmp_path / "out").touch()
    with pytest.raises(ValueError, match="out is a file, but videos go into a folder"):
        write_samples(made(), ["a"], 18, tmp_path / "out", 8.0)
