"""Long tests of faults and memory; make soak runs them."""

import random
import resource
import subprocess
import sys
import warnings

import pytest

from data.folder import VideoFolder
from data.shapes import Shapes
from data.video import VideoError, write_video

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]


def test_sampling_again_and_again_needs_no_more_memory(pipe):
    peaks = []
    for _ in range(30):
        pipe.generate(["a red circle moving left"] * 4, num_frames=33)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    assert peaks[-1] - peaks[4] < 30_000  # kilobytes


STREAM = """
import resource, torch
from tokenizer import FSQ
from tokenizer.presets import preset
tokenizer = preset("{name}", FSQ([8, 8, 8, 5])).eval()
camera = (torch.rand(1, 3, 1, 256, 256) * 2 - 1 for _ in range(1000))
frames = 0
for clip in tokenizer.stream_decode(tokenizer.stream_encode(camera, pad=True)):
    frames += clip.shape[2]
print(frames, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_a_thousand_frames_fit_in_two_gigabytes(name):
    script = STREAM.format(name=name)
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    frames, peak = map(int, result.stdout.split())
    assert frames == 1001
    assert peak < 2_000_000  # kilobytes


def test_no_damaged_video_ends_the_process(tmp_path):
    rng = random.Random(0)
    for i in range(120):
        path = tmp_path / f"{i:03d}.mp4"
        write_video(path, Shapes(200).read(i, 17).frames, 8.0)
        if i % 2:
            content = bytearray(path.read_bytes())
            for _ in range(rng.choice([1, 10, 100])):
                content[rng.randrange(len(content))] = rng.randrange(256)
            path.write_bytes(content[: rng.randrange(len(content) // 2, len(content) + 1)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = VideoFolder(tmp_path)
    whole = {f"{i:03d}.mp4" for i in range(0, 120, 2)}
    assert not whole & source.skipped.keys()
    for i in range(len(source)):
        try:
            assert source.read(i, 17).frames.shape == (17, 64, 64, 3)
        except VideoError:
            pytest.fail("a video that was accepted cannot be read")
